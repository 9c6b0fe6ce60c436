"""A model's card: everything the manifest says of it, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from flowzoo.api import Architecture
from flowzoo.manifest.read import Entry, Measured
from flowzoo.publishing.card import accuracy, file_size, passes, several_samples
from flowzoo.publishing.quantities import duration, file_length
from flowzoo.publishing.several import no_several_of
from tools.beside import Beside, Divergence
from tools.card_inverse import inverse
from tools.cells import (
    count,
    finite,
    measured,
    noun,
    one_sample,
    published,
    shape,
    table,
    true_entropy,
    versions,
)

GENERATED = "<!-- generated from weights_manifest.json by `make docs`; edit that, not this -->"


def card(
    entry: Entry, architecture: Architecture, pictures: Mapping[str, str], beside: Beside | None = None
) -> str:
    """The page ``docs/models/NAME.md``.

    Args:
        entry: The model.
        architecture: What its plugin says: papers, of which those that the entry names are printed, and the
            number of parameters that the model's preset found tabulated.
        pictures: Names of the files in ``docs/images``, each with the temperature that it states; ``NAME.png`` is the
            grid of samples, ``NAME-curve.png`` the training curve and ``picture-NAME.png`` what points look like.
        beside: What is known of the models beside the manifest; nothing if not given.
    """
    beside = beside or Beside()
    sections = [
        [GENERATED, f"# {entry.name}", *_opening(entry)],
        _figures(entry, beside),
        _labels(entry),
        _points(entry, pictures),
        _samples(entry, pictures),
        inverse(entry, beside),
        _model(entry, architecture),
        _data(entry),
        _training(entry, pictures, beside),
        _terms(entry),
        _papers(entry, architecture),
    ]
    return "\n\n".join(part for section in sections for part in section) + "\n"


def _opening(entry: Entry) -> Iterator[str]:
    yield (
        f"Version {entry.version}, {entry.status}. Architecture `{entry.architecture}`, "
        f"{count(entry.num_params)} trainable parameters, {_items(entry)} {shape(entry)}."
    )
    if entry.note is not None:
        yield entry.note
    if entry.weights is None:
        yield (
            "There are no weights for this configuration yet. `flowzoo.create` builds it untrained, and\n\n"
            f"```sh\nflowzoo train {entry.name} --out run\n```\n\ntrains it."
        )
        return
    yield f'```python\nflow = flowzoo.load("{entry.name}")\n```'


def _items(entry: Entry) -> str:
    return f"{noun(entry)} of" if noun(entry) == "vectors" else noun(entry)


def _other_figures(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """Figures of another number of samples, of another noise, and of a file."""
    if entry.one_sample_bpd is not None:
        yield "measured, one sample", one_sample(entry), "the same with one noise sample an image"
    if entry.several_samples is not None:
        yield several_samples(entry.several_samples)
    if entry.compressed is not None:
        yield "as a file", f"{entry.compressed.bpd:.4f}", file_size(entry)
    if (uniform := entry.uniform_noise) is not None:
        how = "uniform noise in place of the learned one, one sample an image"
        yield "measured, uniform noise", f"{uniform.bpd:.4f} ± {uniform.stderr:.4f}", how


def _figures(entry: Entry, beside: Beside) -> Iterator[str]:
    yield "## Bits per dimension" if entry.valid_bpd else "## Density in nats"
    rows = []
    if entry.measured is not None:
        rows.append((f"measured{_of_labels(entry)}", measured(entry), _protocol(entry)))
        rows.extend(_without_labels(entry))
        rows.extend(_truth(entry, beside.divergences.get(entry.name)))
    rows.extend(_other_figures(entry))
    if entry.published is not None:
        source = f"{entry.published.source}; {entry.published.dataset}; {entry.published.protocol}"
        codes = ", ".join(entry.published.incomparable)
        source += f"; not comparable: {codes}" if codes else ""
        rows.append(("published", published(entry), source))
    if rows:
        yield table(("", "bits/dim" if entry.valid_bpd else "nats", "how"), rows)
    if entry.published is None:
        yield f"Published: none; {entry.published_reason}."
    if entry.measured is not None:
        yield from _around(entry, entry.measured, beside)


def _around(entry: Entry, found: Measured, beside: Beside) -> Iterator[str]:
    """What has to be said of the figures: how to read them and how to measure them again."""
    if entry.published is not None:
        difference = found.value - entry.published.bpd
        yield (
            f"Measured minus published: {difference:+.4f}, with a standard error of "
            f"{found.stderr:.4f} from the {noun(entry)} alone. The published figure is a reference; the "
            "verdict of `flowzoo eval` does not depend on it."
        )
    if true_entropy(entry) is not None and entry.name in beside.divergences:
        yield (
            "The divergence is the mean of log p(x) - log q(x) over the test points, p the truth and q the model. The "
            "distance from the entropy estimates the same and has the sampling error of the test points in it, most "
            "of which the divergence is free of."
        )
    if reason := no_several_of(entry):
        yield f"No figure of several noise samples: {reason}."
    if entry.compressed is not None:
        yield (
            f"Make the file: `{entry.compressed.command}`. It has the same bytes on any machine; "
            "[compression](../compression.md) tells how, and how other formats compare."
        )
    yield (
        f"Measure it again: `{found.command}`. It is verified if the result is within "
        f"{found.tolerance:g} of the figure above. Measured with "
        f"{versions(found.versions.items())}"
        f"{_where(found)}."
    )


def _of_labels(entry: Entry) -> str:
    """Which density of a model of labels the figure is of."""
    if entry.labels is None:
        return ""
    return ", p(x given y)" if entry.labels.figure == "x|y" else ", p(x)"


def _without_labels(entry: Entry) -> Iterator[tuple[str, str, str]]:
    """The other density of a model of labels."""
    if entry.labels is None or entry.labels.other is None:
        return
    if entry.labels.figure == "x|y":
        yield "measured, p(x)", f"{entry.labels.other:.4f}", "the same without the labels"
    else:
        yield "measured, p(x given y)", f"{entry.labels.other:.4f}", "the same with the labels of the data"


def _truth(entry: Entry, divergence: Divergence | None) -> Iterator[tuple[str, str, str]]:
    """The entropy of the data where it is known, which no density can be below, and the distance from the truth."""
    known = true_entropy(entry)
    if known is None or entry.measured is None or entry.measured.nats is None:
        return
    distance = f"the model is {entry.measured.nats - known:+.4f} ± {entry.measured.stderr:.4f} from it"
    yield "entropy of the data", f"{known:.4f}", f"no density has less in expectation; {distance}"
    if divergence is not None:
        how = "Kullback-Leibler divergence of the model from it, on the same vectors"
        yield "from the true density", f"{divergence.value:.4f} ± {divergence.stderr:.4f}", how


def _labels(entry: Entry) -> Iterator[str]:
    """The labels that the model takes, and how well it tells them."""
    if entry.labels is None:
        return
    yield "## Labels"
    yield " ".join(filter(None, (f"Conditioned on labels 0 to {entry.labels.classes - 1}.", accuracy(entry))))


def _protocol(entry: Entry) -> str:
    found = entry.measured
    assert found is not None
    samples = f"{found.samples} sample{'s' if found.samples > 1 else ''} an image"
    bound = "; a bound" if entry.figure_kind == "bound" else ""
    noise = f" {found.dequantization} dequantization, {samples}," if found.bpd is not None else ""
    probes = f" {found.probes} probes," if found.probes > 1 else ""
    return (
        f"{count(found.num_images)} {noun(entry)} of {entry.data.id}/{entry.data.split};{noise}{probes} "
        f"seed {found.seed}, {found.dtype}; ± is the standard error{bound}"
    )


def _where(found: Measured) -> str:
    """Hardware, time and day of a measurement, as far as they are known."""
    parts = [f" on {found.hardware}"] if found.hardware else []
    parts += [f" in {found.seconds:.0f} s"] if found.seconds is not None else []
    return "".join(parts + ([f", {found.date}"] if found.date else []))


def _samples(entry: Entry, pictures: Mapping[str, str]) -> Iterator[str]:
    if f"{entry.name}.png" in pictures:
        yield "## Samples"
        # Next to the grid at the recommended temperature, if that is another, the one of the density as it is.
        files = [file for file in (f"{entry.name}.png", f"{entry.name}-at-1.png") if file in pictures]
        images = [f"![Samples of {entry.name}](../images/{file})" for file in files]
        captions = [f"temperature {pictures[file] or 'not recorded'}" for file in files]
        yield table(captions, [images])
        yield "*The first that were drawn.*"
    if entry.sampling is not None:
        recommended = entry.recommended_temperature
        advice = f" Recommended temperature: {recommended:g}." if recommended is not None else ""
        yield (
            f"{finite(entry)} samples at temperature {entry.sampling.temperature:g} are finite in float32 (seed "
            f"{entry.sampling.seed}).{advice}"
        )


def _points(entry: Entry, pictures: Mapping[str, str]) -> Iterator[str]:
    """The picture of a model of points."""
    picture = f"picture-{entry.name}.png"
    if noun(entry) == "vectors" and picture in pictures:
        yield "## Picture"
        yield f"![Density and layers of {entry.name}](../images/{picture})"
        yield (
            "*Above: the data, the true density, the model's and its samples. Below: the data on their way through the "
            f"model. Drawn by `flowzoo picture {entry.name} -o docs/images/{picture}`.*"
        )


def _model(entry: Entry, architecture: Architecture) -> Iterator[str]:
    yield "## Model"
    yield f"{architecture.summary.rstrip('.')}. {count(entry.num_params)} trainable parameters."
    preset = architecture.presets.get(entry.name.removeprefix(f"{architecture.name}-"))
    if preset is not None and preset.parameters is not None:
        note = f" {preset.parameters_note}" if preset.parameters_note else ""
        yield f"Published: {count(preset.parameters)} parameters.{note}"
    if said := _kinds(entry):
        yield said
    if entry.weights is not None:
        rows = [
            ("file", f"`{entry.weights.filename}`, {file_length(entry.weights.size)}, {entry.weights.dtype}"),
            ("sha256", f"`{entry.weights.sha256}`"),
            ("on the Hub", _hub(entry)),
        ]
        yield table(("weights", ""), rows)
    fields = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entry.config.items())
    yield f"```json\n{{\n{fields}\n}}\n```"


def _kinds(entry: Entry) -> str:
    """How densities and samples are computed."""
    said = [passes(entry)]
    if entry.kind in ("unbiased", "biased"):
        said.append(f"Its log-determinant is estimated, {entry.kind}.")
    return " ".join(filter(None, said))


def _hub(entry: Entry) -> str:
    assert entry.weights is not None
    if entry.weights.revision is None:
        return "not yet; the file ships inside the plugin"
    return f"`{entry.weights.repo_id}` at `{entry.weights.revision}`"


def _data(entry: Entry) -> Iterator[str]:
    yield "## Data"
    items = _items(entry).split()[0]
    release = f" ({entry.data.release})" if entry.data.release else ""
    yield (
        f"`{entry.data.id}`{release}, preprocessing `{entry.data.preprocessing}`; the figure is for the "
        f"{count(entry.data.num_images)} {items} of the split `{entry.data.split}`."
    )
    if entry.data.digest:
        yield f"SHA-256 of these {items} after preprocessing: `{entry.data.digest}`."


def _training(entry: Entry, pictures: Mapping[str, str], beside: Beside) -> Iterator[str]:
    curve = f"{entry.name}-curve.png"
    if entry.training is None and curve not in pictures:
        return
    yield "## Training"
    if entry.training is not None:
        cost = entry.training
        rows = [
            ("recipe", f"`{cost.recipe}`"),
            ("command", f"`{cost.command}`"),
            ("steps", count(cost.steps)),
            *([(f"{noun(entry)} seen", count(cost.images))] if cost.images else []),
            ("cost", f"{duration(cost.hours)} on {cost.hardware}"),
            ("seed", str(cost.seed)),
        ]
        if cost.weights:
            rows.append(("weights", cost.weights))
        rows.append(("versions", versions(cost.versions.items()) or "not recorded"))
        yield table(("training", ""), rows)
    if curve in pictures:
        yield f"![Training curve of {entry.name}](../images/{curve})"
        if entry.name in beside.captions:
            yield f"*{beside.captions[entry.name]}*"
    else:
        yield "No training curve of it was kept."


def _terms(entry: Entry) -> Iterator[str]:
    yield "## Terms"
    yield f"Weights: {entry.license}. Data: {entry.data.terms.rstrip('.')}."


def _papers(entry: Entry, architecture: Architecture) -> Iterator[str]:
    papers = [citation for citation in architecture.citations if citation.key in entry.citations]
    if papers:
        yield "## Papers"
    for paper in papers:
        link = f" <{paper.url}>" if paper.url else ""
        yield f"{', '.join(paper.authors)}. *{paper.title}.* {paper.place}.{link}"
