"""``flowzoo eval``: a model's bits per dimension, measured here and compared with the manifest."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowzoo.cli.output import fields, json_option, note, print_json, print_line, table
from flowzoo.errors import DataUnavailable, FlowzooError, InputError, WeightsUnavailable

if TYPE_CHECKING:
    from flowzoo.evaluation.measure import Evaluation
    from flowzoo.evaluation.protocol import Protocol
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.fingerprint import Comparison

    _Outcome = tuple[tuple[Any, ...], dict[str, Any], bool | None]

HEADERS = ("model", "items", "measured here", "on record", "published", "verdict")
RIGHT = ("items", "measured here", "on record", "published")


@click.command(name="eval")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Verify every released model whose data are here.")
@click.option("--samples", type=click.IntRange(1), help="Noise samples an image, importance-weighted.")
@click.option("--probes", type=click.IntRange(1), help="Probes of an estimated log-determinant, averaged.")
@click.option(
    "--conditional/--marginal",
    default=None,
    help="Of an item given its label, or of the item itself; given the label where there is one.",
)
@click.option("--classify", is_flag=True, help="Find the likeliest label of each image by Bayes' rule too.")
@click.option(
    "--noise",
    type=click.Choice(["own", "uniform"]),
    default="own",
    show_default=True,
    help="Dequantize by the model's own noise, or by uniform noise in place of a learned one.",
)
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="Key of the noise.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="Precision; float64 is an audit.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=100, show_default=True, help="Images at a time."
)
@click.option("--device", help="cpu, cuda or cuda:1; a GPU if there is one.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option("--limit", type=click.IntRange(1), help="Only the first images; the result is partial.")
@click.option("--data", "dataset", help="Another data set than the model's own.")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), help="Another split than test.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where data sets are [$FLOWZOO_DATA].")
@click.option("--audit/--no-audit", default=True, help="Check that images are reconstructed exactly.")
@click.option(
    "--per-image", type=click.Path(dir_okay=False, path_type=Path), help="Write a CSV, one image a row."
)
@click.option("--explain", is_flag=True, help="Print protocol and formula instead of measuring.")
@click.option("--record", is_flag=True, hidden=True, help="Deprecated: publish NAME --record.")
@json_option
def evaluate(
    name: str | None,
    everything: bool,
    threads: int | None,
    per_image: Path | None,
    explain: bool,
    record: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure NAME, a model, a run's directory or a path: bits per dimension of images, nats of vectors.

    Samples, seed and precision default to those of the model's manifest entry, or of its own card. Exit code 0:
    verified (the figure on record within its tolerance), or nothing to verify against, or only a part asked for
    with --limit; 1: anything else, a figure that is not finite and an export that differs from its
    fingerprint included. With --all, models without data, weights or a
    plugin are skipped; at least one must be verified.
    """
    if (name is None) != everything:
        raise click.UsageError("Give a model, a run's directory or a path; or --all.")
    if everything and (per_image or explain or record):
        raise click.UsageError("--per-image, --explain and --record go with one model, not with --all.")
    if threads is not None:
        from flowzoo.devices import set_threads

        set_threads(threads)
    if everything:
        return _evaluate_all(options, as_json)
    assert name is not None
    if explain:
        print_line(_explanation(name, options))
        return 0
    return _evaluate_one(name, options, per_image, record=record, as_json=as_json)


def _evaluate_one(
    name: str, options: dict[str, Any], per_image: Path | None, *, record: bool, as_json: bool
) -> int:
    from flowzoo.distributed import is_main_process
    from flowzoo.evaluation.measure import evaluate as run_evaluation

    if per_image is not None:
        _check_file(per_image)
    proof = _proof_of_export(name)
    path = None
    if record:
        note("`flowzoo eval NAME --record` is now `flowzoo publish NAME --record`; the old option will go.")
        found, path = record_figure(name, **options)
    else:
        found = run_evaluation(name, **options)
    if not is_main_process():
        return 0
    if per_image is not None:
        _write_csv(found, per_image)
    if as_json:
        print_json(_as_dict(found) | ({} if proof is None else {"fingerprint": _proof_as_dict(proof)}))
    else:
        _show(found, proof)
    if path is not None:
        note(f"Recorded in {path}.")
        return 0
    return 0 if found.verdict.passed and (proof is None or proof.verified) else 1


def _proof_of_export(name: str) -> Comparison | None:
    """The fingerprint that a directory or a repository states beside what its weights give here.

    A listed model has a figure to be compared with; for these it is all that shows whether code and weights fit.
    """
    from flowzoo.weights.fingerprint import compare, stated_fingerprint
    from flowzoo.weights.load import load

    path = Path(name.removeprefix("path:"))
    if not name.startswith("hf:") and ((path / "run.json").exists() or not (path / "flowzoo.json").is_file()):
        return None
    flow = load(name if name.startswith(("hf:", "path:")) else f"path:{name}")
    expected = stated_fingerprint(flow.card, name)
    return None if expected is None else compare(flow, expected)


def _proof_as_dict(proof: Comparison) -> dict[str, Any]:
    return {"verified": proof.verified, "difference": proof.difference, "tolerance": proof.tolerance}


def _explanation(name: str, options: dict[str, Any]) -> str:
    from flowzoo.evaluation.explain import explain
    from flowzoo.evaluation.protocol import protocol_of, under
    from flowzoo.evaluation.trained_model import find_target

    target = find_target(name)
    protocol = protocol_of(
        target, options["samples"], options["seed"], options["dtype"], noise=options["noise"]
    )
    dataset, split = options["dataset"] or target.dataset, options["split"] or target.split
    return explain(target.name, under(target.flow, protocol.noise), protocol, dataset, split)


def _evaluate_all(options: dict[str, Any], as_json: bool) -> int:
    from flowzoo.distributed import is_main_process
    from flowzoo.manifest.read import load_manifests

    rows: list[tuple[Any, ...]] = []
    results: list[dict[str, Any]] = []
    released = [entry for entry in load_manifests().entries if entry.status == "released"]
    outcomes: list[bool | None] = []
    try:
        for count, entry in enumerate(released, start=1):
            key = entry.key
            if is_main_process():
                note(f"{count} of {len(released)}: {key} ...")
            row, result, passed = _evaluate_next(entry, options)
            rows.append(row)
            results.append(result)
            outcomes.append(passed)
            if is_main_process():
                note(f"{key}: {result.get('reason') or f'{row[2]}, {row[-1]}'}")
    finally:
        # Whatever ends it: the figures of hours are not lost.
        if is_main_process() and (results or not released):
            if as_json:
                print_json(results)
            else:
                table(HEADERS, rows, right=RIGHT)
    if not is_main_process():
        return 0
    if True not in outcomes:
        note("Nothing was verified.")
    return 1 if False in outcomes or True not in outcomes else 0


def _evaluate_next(entry: Entry, options: dict[str, Any]) -> _Outcome:
    """A row of the table, the same for JSON, and whether the model passed; None: it was skipped."""
    from flowzoo.evaluation.measure import evaluate as run_evaluation
    from flowzoo.registry import absence

    if lacking := absence(entry.architecture):
        return _skipped(entry.key, lacking, lacking)
    try:
        found = run_evaluation(entry.key, **options)
    except DataUnavailable as error:
        return _skipped(entry.key, "no data", str(error))
    except WeightsUnavailable as error:
        return _skipped(entry.key, "no weights", str(error))
    except FlowzooError as error:
        # The whole of it goes to standard error: its lines would tear the table apart.
        row = (entry.key, *(None,) * 4, f"error: {str(error).splitlines()[0]}")
        return row, {"name": entry.key, "verdict": "error", "reason": str(error)}, False
    return _row(found), _as_dict(found), found.verdict.passed


def _skipped(key: str, brief: str, reason: str) -> _Outcome:
    row = (key, *(None,) * 4, f"skipped: {brief}")
    return row, {"name": key, "verdict": "skipped", "reason": reason}, None


def _row(found: Evaluation) -> tuple[Any, ...]:
    verdict = found.verdict
    here = _figure(found) + (" (partial)" if found.partial else "")
    there = None if verdict.manifest_bpd is None else f"{verdict.manifest_bpd:.6f}"
    published = None if verdict.published_bpd is None else f"{verdict.published_bpd:g}"
    return (found.name, found.num_images, here, there, published, verdict.state)


def _figure(found: Evaluation) -> str:
    if found.unit == "nats":
        return f"{found.nats:.5f} ± {found.nats_stderr:.5f} nats"
    return f"{found.bpd:.6f} ± {found.stderr:.4f}"


def _kind_words(found: Evaluation) -> str:
    """How good the figure is, in words."""
    words = {
        "exact": "exact",
        "unbiased": "estimated without bias",
        "biased": "estimated with a bias: no figure to compare",
    }[found.kind]
    if not math.isnan(found.probe_stderr):
        words += f", ± {found.probe_stderr:.5f} by the scatter of {found.protocol.probes} probes"
    return words


def _show(found: Evaluation, proof: Comparison | None) -> None:
    from flowzoo.evaluation.audit import VECTOR_TOLERANCE

    table(HEADERS, [_row(found)], right=RIGHT)
    print_line()
    protocol, audit = found.protocol, found.reconstruction
    bound = ", an upper bound" if found.is_lower_bound else ""
    items = found.data_kind
    noise = "" if found.dequantization == "none" else f"{found.dequantization} dequantization, "
    pairs: list[tuple[str, object]] = [
        ("verdict", f"{found.verdict.state}: {found.verdict.reason}"),
        ("published", found.verdict.published_note),
        ("data", f"{found.dataset}, {found.split} split, {found.num_images} {items}"),
        ("of", _likelihood_words(found)),
        ("true entropy", _entropy_words(found)),
        ("KL divergence", _divergence_words(found)),
        ("log-determinant", None if found.kind == "exact" else _kind_words(found)),
        ("protocol", f"{noise}{_protocol_words(protocol)}{bound}"),
    ]
    if proof is not None:
        state = (
            "verified"
            if proof.verified
            else "NOT VERIFIED: its code or its weights are not those it was made with"
        )
        pairs.append(
            ("fingerprint", f"{state}; differs by {proof.difference:.2e}, tolerance {proof.tolerance:g}")
        )
    if audit is not None:
        how = "exactly" if items == "images" else f"within {VECTOR_TOLERANCE:g}"
        back = f"{audit.exact} of {audit.count} {items} {how} ({100 * audit.share:.4g} %)"
        pairs.append(("decode(encode(x)) == x", f"{back}; worst latent round trip {audit.worst_latent:.2e}"))
    if not math.isnan(found.accuracy):
        pairs.append(("likeliest label is right", f"{100 * found.accuracy:.2f} %"))
    pairs.append(("time", f"{found.seconds:.1f} s, {found.images_per_s:.1f} {items}/s on {found.hardware}"))
    fields(pairs)


def _likelihood_words(found: Evaluation) -> str | None:
    """Which likelihood of a model of labels was measured; None of a model without any."""
    log = "log P" if found.unit == "bits/dim" else "log p"
    if found.protocol.conditional:
        return f"{log}(x|y), given the label"
    if not found.classes:
        return None
    if found.label_dropout:
        return f"{log}(x), of an item without a label"
    return f"{log}(x), the average over all {found.classes} labels"


def _entropy_words(found: Evaluation) -> str | None:
    """The entropy of what the vectors were drawn from, and how far above it the figure is."""
    if found.true_entropy is None or found.above_entropy is None:
        return None
    return (
        f"{found.true_entropy:.5f} nats, known of these data; the model is {found.above_entropy:+.5f} ± "
        f"{found.nats_stderr:.5f} from it"
    )


def _divergence_words(found: Evaluation) -> str | None:
    """How far the model is from the density that the vectors were drawn from."""
    if math.isnan(found.divergence):
        return None
    return (
        f"{found.divergence:.5f} ± {found.divergence_stderr:.5f} nats of the model from the true density, on the same "
        f"{found.data_kind}"
    )


def _protocol_words(protocol: Protocol) -> str:
    probes = f"{protocol.probes} probes, " if protocol.probes > 1 else ""
    return f"{protocol.samples} sample(s), {probes}seed {protocol.seed}, {protocol.dtype}"


def _as_dict(found: Evaluation) -> dict[str, Any]:
    result: dict[str, Any] = {
        field.name: getattr(found, field.name)
        for field in dataclasses.fields(found)
        if field.name not in ("per_image", "protocol", "reconstruction", "verdict")
    }
    result["images_per_s"] = found.images_per_s
    result["above_entropy"] = found.above_entropy
    result["protocol"] = dataclasses.asdict(found.protocol)
    result["verdict"] = dataclasses.asdict(found.verdict)
    audit = found.reconstruction
    if audit is not None:
        result["reconstruction"] = {
            "exact": audit.exact,
            "count": audit.count,
            "worst_latent": audit.worst_latent,
        }
    return {key: _plain(value) for key, value in result.items()}


def _plain(value: Any) -> Any:
    """The value as JSON has it: a figure that is not finite is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_file(path: Path) -> None:
    """Checks, before the measurement, that a file can be written; what is there stays if it is no ordinary file.

    Raises:
        InputError: It cannot.
    """
    folder = next(parent for parent in path.resolve().parents if parent.exists())
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise InputError(f"--per-image: {path} is a link or no ordinary file; name another.")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(
            f"--per-image: {path} cannot be written: {folder} is not a directory that may be written to."
        )


def _write_csv(found: Evaluation, path: Path) -> None:
    """One row an item: its position in the split, log-likelihood in nats, and bits per dimension if it has any."""
    from flowzoo.atomic import write_text
    from flowzoo.evaluation.metrics import nats_to_bpd

    columns = {
        "index": found.per_image.indices.tolist(),
        "log_prob_nats": found.per_image.log_prob.tolist(),
        "bits_per_dim": nats_to_bpd(found.per_image.log_prob, found.dims).tolist(),
    }
    if found.unit != "bits/dim":
        del columns["bits_per_dim"]
    lines = [",".join(map(repr, row)) + "\n" for row in zip(*columns.values(), strict=True)]
    write_text(path, ",".join(columns) + "\n" + "".join(lines))
    note(f"Wrote {path}.")


def record_figure(name: str, **options: Any) -> tuple[Evaluation, Path]:
    """Measures a listed model and writes the figure into the manifest.

    Raises:
        UnknownModel: No manifest lists it.
        InputError: The name means a directory, or the figure is not finite.
        ManifestError: The measurement is not of the whole split of the entry's data.
    """
    from flowzoo.distributed import is_main_process
    from flowzoo.evaluation.measure import evaluate as run_evaluation
    from flowzoo.evaluation.record import record
    from flowzoo.manifest.raw import core_manifest_path
    from flowzoo.weights.fingerprint import take_fingerprint
    from flowzoo.weights.load import find_entry, load

    entry = find_entry(name)  # Known before the measurement rather than after it.
    found = run_evaluation(name, **options)
    if found.verdict.state in ("no entry", "not finite"):
        raise InputError(f"{name}: nothing is recorded: {found.verdict.reason}.")
    if not is_main_process():
        return found, core_manifest_path()
    return found, record(found, entry, take_fingerprint(load(name)))
