"""The leaderboard's tables: what is in which, in which order, and that the files in the repository are today's."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from flowzoo.manifest.read import parse
from tests.manifest_examples import example_reference, manifest_text
from tools.leaderboard.__main__ import ROOT, differences, pages, pictures, sources
from tools.leaderboard.page import figure, page, several
from tools.leaderboard.plots import draw, is_current, label_points, plot, points
from tools.leaderboard.rows import Row, Sources, Table, as_records, tables

MARKERS = "<!-- leaderboard: x -->\n<!-- /leaderboard -->\n"


def entry(name: str, /, **changes: Any) -> dict[str, Any]:
    """An entry of the real manifest, changed."""
    text = json.loads((ROOT / "weights_manifest.json").read_text(encoding="utf-8"))
    found = next(model for model in text["models"] if model["name"] == name)
    return {**found, **changes}


def made(*entries: dict[str, Any], **others: Any) -> Sources:
    text = manifest_text(*entries, references=others.pop("references", ()))
    empty: dict[str, Any] = {"reasons": {}, "releases": {}, "models": {}, "rows": []}
    known = {"timings": {}} | others
    published = empty | known.get("published", {})
    return Sources.read(
        parse(text, "m"),
        text,
        json.dumps(known["timings"]),
        json.dumps(published),
    )


def only(found: list[Table]) -> Row:
    [table] = found
    [row] = table.rows
    return row


def test_the_files_in_the_repository_are_those_of_today() -> None:
    assert sorted(differences(ROOT)) == [], "run: make docs"


def test_releases_and_depths_are_never_mixed() -> None:
    other = entry("nice-mnist", name="nice-other", data=entry("glow-celeba64")["data"])
    coarse = entry("glow-mnist", name="glow-coarse")
    coarse["config"] = {**coarse["config"], "n_bits": 5}
    found = {
        table.name: {row.name for row in table.rows}
        for table in tables(made(other, coarse, entry("glow-mnist")))
    }
    assert found == {
        "celeba64-half": {"nice-other"},
        "mnist, 5 bits": {"glow-coarse"},
        "mnist": {"glow-mnist"},
    }


def test_densities_of_noisy_images_are_not_ranked_among_bits() -> None:
    found = tables(made(entry("tarflow-digits"), entry("glow-mnist"), entry("maf-moons")))
    assert {(table.name, table.unit, table.rows[0].name) for table in found} == {
        ("mnist", "bits/dim", "glow-mnist"),
        ("mnist, noisy", "nats", "tarflow-digits"),
        ("points:two-moons", "nats", "maf-moons"),
    }
    assert "no number of bits" in {table.name: table.description for table in found}["mnist, noisy"]


def test_a_models_row_holds_what_its_entry_says() -> None:
    found = entry("glow-mnist")
    found["published"] = {**found["published"], "incomparable": ["not-stated"]}
    row = only(tables(made(found)))
    assert (row.what, row.kind, row.samples, row.record) == ("model", "bound", 8, "8 samples")
    assert (row.several, row.several_stderr) == (found["measured"]["bpd"], found["measured"]["stderr"])
    assert (row.figure, row.stderr) == (found["one_sample_bpd"], None)
    assert row.uniform == found["uniform_noise"]["bpd"], "its own noise is learned"
    del found["uniform_noise"]
    assert only(tables(made(found))).uniform is None
    assert (row.published, row.comparable, row.reasons) == (1.05, "no", ("not-stated",))
    assert (row.parameters, row.license) == (found["num_params"], "Apache-2.0")
    assert row.sha256 == found["weights"]["sha256"][:12]
    assert (row.exact, row.finite) == ("10,000 of 10,000", "10,000 of 10,000")
    assert row.command == "flowzoo eval glow-mnist@1"
    assert row.date == found["measured"]["date"]


def test_uniform_noise_of_one_sample_is_its_own_one_sample_figure() -> None:
    row = only(tables(made(entry("nice-mnist"))))
    assert (row.kind, row.record) == ("exact", "one sample")
    assert row.figure == row.uniform


def test_a_configuration_without_weights_is_a_published_row_with_the_command_that_trains_it() -> None:
    row = only(tables(made(entry("glow-cifar10"))))
    assert (row.what, row.figure, row.stderr, row.published) == ("published", 3.35, None, None)
    assert row.command == "flowzoo train glow-cifar10 --out run"
    assert tables(made(entry("glow-celeba64-full"))) == [], "neither weights nor a figure"


def test_a_paper_on_another_release_stands_in_the_table_of_that_release() -> None:
    moved = {"models": {"glow-cifar10": {"dataset": "other"}}, "releases": {"other": "Another release"}}
    [table] = tables(made(entry("glow-cifar10"), published=moved))
    assert (table.name, table.description) == ("other", "Another release")


def test_times_count_only_for_the_weights_that_were_timed() -> None:
    found = entry("glow-mnist")
    times = {"sha256": found["weights"]["sha256"], "density_ms": 2.5, "sample_ms": 3.5, "hardware": "this"}
    times["round_trip"] = {"float32": 0.01, "float64": 2e-11}
    row = only(tables(made(found, timings={"glow-mnist@1": times})))
    assert (row.density_ms, row.sample_ms, row.hardware) == (2.5, 3.5, "this")
    assert row.round_trip == "0.01 / 2e-11"
    stale = only(tables(made(found, timings={"glow-mnist@1": times | {"sha256": "0" * 64}})))
    assert (stale.density_ms, stale.sample_ms, stale.hardware) == (None, None, None)


def test_the_best_comes_first_and_models_before_baselines_in_name_only() -> None:
    base = [example_reference("code", figure=2.0, note="h", stderr=None)]
    [table] = tables(made(entry("nice-mnist"), entry("glow-mnist"), references=base))
    assert [row.name for row in table.rows] == ["glow-mnist", "code", "nice-mnist"]
    code = table.rows[1]
    assert (code.what, code.figure, code.kind, code.note) == ("baseline", 2.0, "code", "h")
    assert code.command == "python -m tools.baselines mnist"
    assert tables(made(references=base)) == [], "a baseline alone says nothing of flows"


def test_models_are_ranked_by_one_sample_whatever_the_others_have() -> None:
    """A model with a better figure of eight samples stands below one that is better with one."""
    one, eight = entry("splines-mnist"), entry("realnvp-mnist")
    assert eight["measured"]["bpd"] < one["measured"]["bpd"] < eight["one_sample_bpd"]
    [table] = tables(made(eight, one))
    assert [row.name for row in table.rows] == ["splines-mnist", "realnvp-mnist"]
    assert [row.record for row in table.rows] == ["one sample", "8 samples"]
    assert table.rows[0].several == one["several_samples"]["bpd"]
    unknown = entry("glow-mnist", one_sample_bpd=None)
    [table] = tables(made(eight, one, unknown))
    assert table.rows[-1].name == "glow-mnist", "eight samples alone give it no place"


def test_in_every_table_the_figures_of_one_sample_ascend() -> None:
    for table in tables(sources(ROOT)):
        models = [row for row in table.rows if row.what == "model"]
        figures = [row.figure for row in models if row.figure is not None]
        assert figures == sorted(figures), table.name
        assert len(figures) == len(models), f"{table.name}: a model has no figure of one sample"
        assert all(row.several < row.figure for row in models if row.several is not None and row.figure)


def test_a_published_figure_of_several_samples_stands_among_those() -> None:
    line = {"dataset": "mnist", "kind": "bound", "source": "s", "bpd": 1.078}
    rows = [{**line, "name": "many", "samples": 1000}, {**line, "name": "eight", "samples": 8}]
    rows += [{**line, "name": "one", "samples": 1, "bpd": 1.0}, {**line, "name": "unsaid", "bpd": 2.0}]
    [table] = tables(made(published={"rows": rows}))
    found = {row.name: (figure(row), several(row)) for row in table.rows}
    assert found == {
        "one": ("1.00", "-"),
        "eight": ("-", "1.078"),
        "many": ("-", "1.078 of 1,000"),
        "unsaid": ("2.00", "-"),
    }
    assert list(found) == ["one", "eight", "many", "unsaid"], "published rows by the figure that there is"


def test_figures_on_mnist_that_others_gave_stand_in_its_table() -> None:
    [mnist] = [table for table in tables(sources(ROOT)) if table.name == "mnist"]
    found = {row.name: row for row in mnist.rows if row.what == "published"}
    rnode = found["RNODE"]
    assert (rnode.figure, rnode.comparable) == (0.97, "no") and "one-sample" in rnode.reasons
    tutorial = {name: row for name, row in found.items() if name.startswith("UvA tutorial")}
    assert [(row.several, row.samples) for row in tutorial.values()] == [(1.02, 8), (1.043, 8), (1.078, 8)]
    assert all(row.figure is None and row.reasons == ("several-samples",) for row in tutorial.values())


def test_no_figure_of_several_samples_is_called_exact() -> None:
    text = page(tables(made(entry("nice-cdf-mnist"), entry("realnvp-mnist"))), {}, {})
    [nice] = [line for line in text.splitlines() if "`nice-cdf-mnist`" in line]
    assert "| 1.2685 | ≤ 1.2486 ± 0.0029 | exact; of several samples a bound | 8 samples |" in nice
    [realnvp] = [line for line in text.splitlines() if "`realnvp-mnist`" in line]
    assert "| ≤ 1.0709 | ≤ 1.0596 ± 0.0025 | bound | 8 samples |" in realnvp


def test_fields_of_a_newer_manifest_are_shown_where_they_are() -> None:
    """The kind and passes of an entry, and a conditional figure, which stands in a column of its own."""
    known = made(entry("glow-mnist"))
    newer = {**known.texts["glow-mnist@1"], "kind": "unbiased", "density_passes": 7, "sampling_passes": 30}
    newer["compressed"] = {"bpd": 1.0625}
    newer["labels"] = {"classes": 10, "figure": "x|y", "other": None}
    row = only(tables(dataclasses.replace(known, texts={"glow-mnist@1": newer})))
    assert (row.kind, row.density_passes, row.sampling_passes) == ("unbiased", 7, 30)
    assert row.figure is None and row.several is None
    assert row.given_label == newer["one_sample_bpd"]
    assert row.file == 1.0625


def test_a_page_shows_every_row_and_no_empty_column() -> None:
    found = tables(made(entry("glow-mnist"), entry("nice-mnist")))
    text = page(found, {"code": "meaning"}, {"mnist": ["images/x-parameters.svg"]})
    assert "| model | row | bits/dim, one sample | eight samples | kind | on record |" in text
    assert (
        "| [`glow-mnist`](models/glow-mnist.md) | model | ≤ 1.0590 | ≤ 1.0479 ± 0.0025 | bound | 8 samples |"
        in text
    )
    assert "| given the label |" not in text and "| as a file |" not in text
    with_file = dataclasses.replace(found[0], rows=(dataclasses.replace(found[0].rows[0], file=1.0625),))
    assert "| as a file |" in (shown := page([with_file], {}, {})) and "| 1.0625 |" in shown
    assert "| `code` | meaning |" in text
    assert "images/x-parameters.svg" in text


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (Row(name="a", what="model", figure=1.23456, stderr=0.001, kind="bound"), "≤ 1.2346 ± 0.0010"),
        (Row(name="a", what="baseline", figure=8.0, kind="code"), "8.0000"),
        (Row(name="a", what="published", figure=3.4, kind="bound"), "3.40"),
        (Row(name="a", what="model"), "-"),
    ],
)
def test_a_figure_has_the_digits_that_it_deserves(row: Row, text: str) -> None:
    assert figure(row) == text


def test_csv_and_json_hold_every_row() -> None:
    found = sources(ROOT)
    files = pages(found, MARKERS)
    records = json.loads(files["docs/leaderboard.json"])
    lines = list(csv.DictReader(io.StringIO(files["docs/leaderboard.csv"])))
    assert len(records) == len(lines) == len(as_records(tables(found))) > 40
    assert [line["name"] for line in lines] == [record["name"] for record in records]
    assert lines[0]["dataset"] == records[0]["dataset"] == "mnist"


def test_the_readme_shows_the_best_models_and_baselines() -> None:
    text = pages(sources(ROOT), MARKERS)["README.md"]
    assert "[`glow-mnist`](docs/models/glow-mnist.md)" in text
    assert "xz" in text
    assert "published" not in text


def test_a_picture_knows_whether_it_is_of_these_figures() -> None:
    [table] = tables(made(entry("glow-mnist"), entry("nice-mnist")))
    picture = draw(table, "parameters")
    assert len(points(table, "parameters")) == 2
    assert points(table, "milliseconds") == []
    assert is_current(picture, table, "parameters")
    assert "glow-mnist" in picture
    moved = dataclasses.replace(table, rows=(dataclasses.replace(table.rows[0], figure=1.0), *table.rows[1:]))
    assert not is_current(picture, moved, "parameters")


def test_names_of_neighbours_do_not_cover_each_other_or_a_point() -> None:
    from matplotlib.figure import Figure

    axes = Figure(figsize=(7.2, 4.0)).add_subplot()
    axes.set(xscale="log", xlim=(0.1, 100), ylim=(0, 5))
    near = [("first-mnist", 2.3, 1.02), ("second-mnist", 2.5, 1.05), ("third-mnist", 4.6, 1.06)]
    label_points(axes, [(name, "model", x, y) for name, x, y in near])
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert list(boxes) == [name for name, *_ in near]
    for name, box in boxes.items():
        assert not any(box.overlaps(other) for key, other in boxes.items() if key != name)
        assert not any(box.contains(*axes.transData.transform((x, y))) for _, x, y in near)


@pytest.mark.parametrize("name", sorted(pictures(sources(ROOT))))
def test_no_words_of_a_picture_cover_others(name: str) -> None:
    table, axis = pictures(sources(ROOT))[name]
    picture = plot(table, axis)
    picture.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in picture.axes[0].texts]
    assert len(boxes) >= len(points(table, axis))
    assert [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)] == []


@pytest.mark.parametrize("name", sorted(pictures(sources(ROOT))))
def test_the_line_of_the_best_strikes_no_name_through(name: str) -> None:
    table, axis = pictures(sources(ROOT))[name]
    picture = plot(table, axis)
    picture.draw_without_rendering()
    [axes] = picture.axes
    front = [line for line in axes.lines if len(line.get_xdata()) > 2]
    corners = [axes.transData.transform(point) for line in front for point in line.get_xydata()]
    along = [a + (b - a) * share for a, b in pairwise(corners) for share in np.linspace(0, 1, 200)]
    names = {row[0].removesuffix(f"-{table.name}") for row in points(table, axis)}
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts if text.get_text() in names}
    assert [word for word, box in boxes.items() if any(box.contains(*place) for place in along)] == []


def test_a_line_leads_to_a_name_that_has_no_room_beside_its_point() -> None:
    from matplotlib.figure import Figure

    axes = Figure(figsize=(7.2, 4.0)).add_subplot()
    axes.set(xscale="log", xlim=(0.1, 100), ylim=(0, 5))
    label_points(axes, [("alone", "model", 0.5, 1.0)])
    assert not axes.lines
    label_points(axes, [(f"model-{i}", "model", 10 * 1.01**i, 2.0) for i in range(6)])
    assert len(axes.lines) == 2, "four names have room, on four sides"
    for line in axes.lines:
        start, end = axes.transData.transform(line.get_xydata())
        assert 0 < float(np.hypot(*(end - start))) < 60
    assert axes.get_xlim() == (0.1, 100)
