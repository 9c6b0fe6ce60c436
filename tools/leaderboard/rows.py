"""Rows of the leaderboard, from the manifest's models and references, the timings and the published figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from flowzoo.manifest.read import Manifest, Reference

__all__ = ["Row", "Sources", "Table", "tables"]

What = Literal["model", "baseline", "published"]
Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table; what is not known or does not apply is None.

    Attributes:
        name: The model, the baseline or the published model.
        what: Measured here with weights that flowzoo ships, a baseline computed from the data, or a figure that a paper
            gives and nobody has measured here.
        figure: Bits per dimension, or nats where the table says so, with one noise sample an image: what a table is
            sorted by. Of a code, and of a model without noise, the only figure.
        stderr: Standard error of it over the images.
        several: The figure with several noise samples an image, the mean of their densities: a bound.
        several_stderr: Standard error of that one.
        samples: Its number of samples.
        record: Which of a model's figures is on record, for ``flowzoo eval`` to verify.
        kind: ``exact``, ``bound``, ``unbiased``, ``biased`` (flows, with one sample); ``code`` (a baseline's code
            length). Of a published figure of several samples, what that one is.
        uniform: The figure under uniform noise, with one sample.
        given_label: The figure of p(x given y), which no other column is to be compared with.
        file: Bits per dimension of the file that the model makes of the same images, all overhead counted.
        published: The published figure beside a measured one.
        source: Where the published figure is from.
        comparable: ``yes``, ``no`` or None: whether the published figure was measured in the same way.
        reasons: Codes of why not.
        selection: What the model was chosen on.
        parameters: Number of parameters.
        cost: Of the training.
        density_ms: Milliseconds an image of ``log_prob``.
        sample_ms: Those of ``sample``.
        hardware: Where these were measured.
        density_passes: Passes through the networks that a density takes.
        sampling_passes: Those that a sample takes.
        round_trip: The largest difference, in grey levels, between images and what their latents give back: in float32
            and in float64.
        exact: Test images that ``decode(encode(x))`` gave back exactly, of how many.
        finite: Samples that are finite, of how many.
        license: Of the weights.
        sha256: The first twelve digits of the weights' digest.
        revision: Those of the commit on the Hub.
        date: Day of the measurement.
        command: What to run: measure again, train, or compute.
        page: The model's card, relative to the docs.
        note: Caveats in words.
    """

    name: str
    what: What
    figure: float | None = None
    stderr: float | None = None
    several: float | None = None
    several_stderr: float | None = None
    samples: int | None = None
    record: str | None = None
    kind: str | None = None
    uniform: float | None = None
    given_label: float | None = None
    file: float | None = None
    published: float | None = None
    source: str | None = None
    comparable: str | None = None
    reasons: tuple[str, ...] = ()
    selection: str | None = None
    parameters: int | None = None
    cost: str | None = None
    density_ms: float | None = None
    sample_ms: float | None = None
    hardware: str | None = None
    density_passes: int | None = None
    sampling_passes: int | None = None
    round_trip: str | None = None
    exact: str | None = None
    finite: str | None = None
    license: str | None = None
    sha256: str | None = None
    revision: str | None = None
    date: str | None = None
    command: str | None = None
    page: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one release of a data set at one depth of grey levels.

    Attributes:
        name: The data set's id, with the bits where they are not 8; noisy: of models whose density is that of images
            with noise wider than a grey level.
        description: Release, preprocessing, split and number of images, in words.
        unit: ``bits/dim`` or ``nats``.
        rows: Best figure of one sample first, published ones by the figure that there is; rows without one are last.
    """

    name: str
    description: str
    unit: str = "bits/dim"
    rows: tuple[Row, ...] = field(default=())

    @property
    def heading(self) -> str:
        """What the rows' :attr:`Row.figure` is of. A density in nats is of vectors, which need no noise."""
        return self.unit if self.unit == "nats" else f"{self.unit}, one sample"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Everything that the leaderboard is made from.

    Attributes:
        manifest: The models and the baselines, which were checked when the manifest was read.
        texts: The same entries as they stand in the file, by ``name@version``: fields that older ones lack are absent.
        timings: ``docs/timings.json``.
        published: ``tools/leaderboard/published.json``.
    """

    manifest: Manifest
    texts: Mapping[str, Json]
    timings: Json
    published: Json

    @classmethod
    def read(cls, manifest: Manifest, text: str, *others: str) -> Sources:
        """Sources from a parsed manifest, its text, and the texts of timings and published figures."""
        texts = {f"{model['name']}@{model['version']}": model for model in json.loads(text)["models"]}
        timings, published = (json.loads(other) for other in others)
        return cls(manifest=manifest, texts=texts, timings=timings, published=published)


def tables(sources: Sources) -> list[Table]:
    """All tables: those with most models first, then those with baselines, then the others."""
    rows: dict[str, list[Row]] = {}
    descriptions: dict[str, str] = {}
    units: dict[str, str] = {}
    for name, description, unit, row in _all_rows(sources):
        rows.setdefault(name, []).append(row)
        descriptions.setdefault(name, description)
        units.setdefault(name, unit)
    made = [
        Table(
            name=name, description=descriptions[name], unit=units[name], rows=tuple(sorted(found, key=_place))
        )
        for name, found in rows.items()
        if any(row.what != "baseline" for row in found)
    ]
    return sorted(made, key=_order)


def _order(table: Table) -> tuple[int, int, str]:
    models = sum(row.what == "model" for row in table.rows)
    return min(_rank(row) for row in table.rows), -models, table.name


def as_records(found: Iterable[Table]) -> list[dict[str, Any]]:
    """Every row of every table as a flat record that begins with the table's name and unit."""
    return [{"dataset": t.name, "unit": t.unit, **asdict(row)} for t in found for row in t.rows]


def _place(row: Row) -> tuple[bool, float, str]:
    """Models by the figure of one sample alone: figures of unequal numbers of samples rank nothing."""
    place = row.several if row.figure is None and row.what == "published" else row.figure
    return place is None, place or 0.0, row.name


def _rank(row: Row) -> int:
    return ("model", "baseline", "published").index(row.what)


def _all_rows(sources: Sources) -> Iterator[tuple[str, str, str, Row]]:
    """Each row with its table's name, description and unit."""
    for name in sources.manifest.names():
        entry = sources.manifest.default(name)
        assert entry is not None
        found = sources.texts[entry.key]
        comparison = sources.published["models"].get(name, {})
        table = _table_name(found)
        unit = "nats" if (found["measured"] or {}).get("nats") is not None else "bits/dim"
        if found["measured"] is not None:
            row = _model(found, sources.timings.get(entry.key, {}))
            items = "vectors" if found["config"].get("dims") else "images"
            text = _description(found["data"], items)
            if _noisy(found):
                text += (
                    "; with noise wider than a grey level, so that the density, in nats, is no number of bits"
                )
            yield table, text, unit, row
        elif found["published"] is not None:
            # The paper's figure may be of another release than the one that our recipe trains on.
            other = comparison.get("dataset", table)
            text = _description(found["data"]) if other == table else sources.published["releases"][other]
            yield other, text, unit, _without_weights(found, comparison)
    for reference in sources.manifest.references:
        yield reference.data.id, _description(asdict(reference.data)), "bits/dim", _baseline(reference)
    for line in sources.published["rows"]:
        description = sources.published["releases"].get(line["dataset"], "")
        yield line["dataset"], description, "bits/dim", _published(line)


def _table_name(entry: Json) -> str:
    bits = entry["config"].get("n_bits", 8)
    return (
        str(entry["data"]["id"])
        + (f", {bits} bits" if bits != 8 else "")
        + (", noisy" if _noisy(entry) else "")
    )


def _noisy(entry: Json) -> bool:
    """Whether the figure is a density, in nats, of images with noise wider than a grey level: no code length."""
    return (entry["measured"] or {}).get("nats") is not None and not entry["config"].get("dims")


def _description(data: Json, items: str = "images") -> str:
    release = f"{data['release']}; " if data.get("release") else ""
    number = f"{data['num_images']:,} {items}"
    return f"{release}preprocessing {data['preprocessing']}; {number} of the {data['split']} split"


def _model(entry: Json, timing: Json) -> Row:
    """A model that was measured here. Timings count only if they are of the same weights."""
    found, published, weights, sampling = (
        entry["measured"], entry["published"] or {}, entry["weights"] or {}, entry["sampling"]
    )  # fmt: skip
    times = timing if timing.get("sha256") == weights.get("sha256") else {}
    total = found["num_images"]
    return Row(
        name=entry["name"],
        what="model",
        **_figures(entry),
        kind=entry.get("kind") or ("bound" if found["dequantization"] == "variational" else "exact"),
        file=(entry.get("compressed") or {}).get("bpd"),
        published=published.get("bpd"),
        source=published.get("source"),
        comparable=_comparable(published),
        reasons=tuple(published.get("incomparable", ())),
        selection="validation" if entry["training"] else None,
        parameters=entry["num_params"],
        cost=_cost(entry["training"]),
        density_ms=times.get("density_ms"),
        sample_ms=times.get("sample_ms"),
        hardware=times.get("hardware"),
        density_passes=entry.get("density_passes"),
        sampling_passes=entry.get("sampling_passes"),
        round_trip=_round_trip(times.get("round_trip")),
        exact=_of(found["reconstruction_exact"], total),
        finite=_of(sampling["finite"], sampling["drawn"]) if sampling else None,
        license=entry["license"],
        sha256=weights.get("sha256", "")[:12] or None,
        revision=(weights.get("revision") or "")[:12] or None,
        date=found.get("date"),
        command=found["command"],
        page=f"models/{entry['name']}.md",
        note=entry["note"],
    )


def _figures(entry: Json) -> dict[str, Any]:
    """The row's figures of one sample, of several, under uniform noise and given the label."""
    found, labels = entry["measured"], entry.get("labels") or {}
    samples, other = found["samples"], labels.get("other")
    figure = found.get("nats") if found["bpd"] is None else found["bpd"]
    one = figure if samples == 1 else entry["one_sample_bpd"]
    if labels.get("figure") == "x|y":
        # Of p(x) there is one figure, of as many samples as the measured one.
        place = {"figure": other} if samples == 1 else {"several": other, "samples": samples}
        return {"given_label": one if one is not None else figure, **place}
    row = {"figure": one, "uniform": _uniform(entry, one), "given_label": other}
    if samples > 1:
        several = {"several": figure, "several_stderr": found["stderr"], "samples": samples}
        return row | several | {"record": f"{samples} samples"}
    row |= {"stderr": found["stderr"], "record": None if found["bpd"] is None else "one sample"}
    if (more := entry.get("several_samples")) is not None:
        row |= {"several": more["bpd"], "several_stderr": more["stderr"], "samples": more["samples"]}
    return row


def _uniform(entry: Json, one: float | None) -> float | None:
    """The figure under uniform noise of one sample: the measured one's, or that of the noise in its place."""
    if entry["measured"]["dequantization"] == "uniform":
        return one
    return (entry.get("uniform_noise") or {}).get("bpd")


def _comparable(published: Json) -> str | None:
    """Whether a published figure stands beside a measured one rightly; None if there is none."""
    if not published:
        return None
    return "no" if published.get("incomparable") else "yes"


def _of(part: int | None, whole: int) -> str | None:
    return None if part is None else f"{part:,} of {whole:,}"


def _round_trip(found: Json | None) -> str | None:
    return None if found is None else f"{found['float32']:g} / {found['float64']:g}"


def _cost(training: Json | None) -> str | None:
    if training is None:
        return None
    hours = training["hours"]
    return (
        f"{hours:.1f} h, {training['hardware']}" if hours >= 0.1 else f"{hours:.1g} h, {training['hardware']}"
    )


def _without_weights(entry: Json, comparison: Json) -> Row:
    """A configuration that nobody has trained here, with the paper's figure."""
    published = entry["published"]
    return Row(
        name=entry["name"],
        what="published",
        **_of_samples(published["bpd"], comparison.get("samples")),
        kind=comparison.get("kind"),
        source=published["source"],
        selection=comparison.get("selection"),
        comparable=_comparable(published),
        reasons=tuple(published.get("incomparable", ())),
        parameters=entry["num_params"],
        command=f"flowzoo train {entry['name']} --out run",
        page=f"models/{entry['name']}.md",
        note=published["protocol"],
    )


def _of_samples(figure: float, samples: int | None) -> dict[str, Any]:
    """Where a published figure stands: among those of one sample unless the source says that it is of several."""
    return {"figure": figure} if samples in (None, 1) else {"several": figure, "samples": samples}


def _baseline(reference: Reference) -> Row:
    return Row(
        name=reference.name,
        what="baseline",
        figure=reference.figure,
        stderr=reference.stderr,
        kind="code",
        command=reference.command,
        note=reference.note,
    )


def _published(line: Json) -> Row:
    return Row(
        name=line["name"],
        what="published",
        **_of_samples(line["bpd"], line.get("samples")),
        kind=line.get("kind"),
        source=line["source"],
        selection=line.get("selection"),
        comparable=line.get("comparable"),
        reasons=tuple(line.get("reasons", ())),
        parameters=line.get("parameters"),
        note=line.get("note"),
    )
