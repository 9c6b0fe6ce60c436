"""The model card: front matter that the Hub indexes, and a page that a reader can act on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flowzoo.api import Citation
from flowzoo.config import data_shape
from flowzoo.errors import InputError
from flowzoo.manifest.schema import Entry, Measured, SeveralSamples
from flowzoo.publishing.quantities import duration, file_length
from flowzoo.publishing.several import no_several_of
from flowzoo.registry import get_architecture, get_plugin

__all__ = [
    "CURVE_FILENAME",
    "SAMPLES_FILENAME",
    "UNKNOWN_COMMIT",
    "accuracy",
    "check_model_card",
    "model_card",
    "passes",
    "repository",
]

SAMPLES_FILENAME = "samples.png"
CURVE_FILENAME = "curve.png"
UNKNOWN_COMMIT = "<40 hex digits of a commit>"
"""Stands for the commit in a card that is not on the Hub yet, since no commit can name itself."""
_TASK = "unconditional-image-generation"
_METRICS = {
    "bits per dimension": ("bits-per-dimension", "Bits per dimension (lower is better)"),
    "nats": ("negative-log-density-nats", "Minus the log-density in nats (lower is better)"),
}
_KINDS = {
    "exact": "",
    "bound": " The figure is an upper bound.",
    "unbiased": " The figure is the mean of unbiased estimates.",
    "biased": " The figure is the mean of biased estimates, and not comparable with exact ones.",
}


def model_card(
    entry: Entry,
    dataset_title: str,
    revision: str | None = None,
    *,
    listed: bool = True,
    curve: bool = False,
) -> str:
    """Writes the model card of an entry.

    Args:
        entry: The entry, with weights and measured figure.
        dataset_title: The data set's name in words.
        revision: Commit to name in the example; None for a placeholder, since a commit cannot name itself.
        listed: Whether a manifest lists the model; otherwise it is loaded from its repository.
        curve: Whether a picture of the training curve lies beside the card.

    Returns:
        Markdown with a YAML front matter.

    Raises:
        InputError: The entry has no weights or no measured figure.
    """
    if entry.weights is None or entry.measured is None:
        raise InputError(
            f"{entry.key} has no weights or no measured figure; a card without them says nothing."
        )
    parts = [
        f"---\n{_front_matter(entry, entry.measured, dataset_title)}\n---",
        _opening(entry, dataset_title, revision),
        entry.note or "",
        _usage(entry, revision, listed),
        _figures(entry, entry.measured, dataset_title),
        _sampling(entry),
        _training(entry, curve=curve),
        _data(entry, dataset_title),
        _citations(entry),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def check_model_card(text: str, entry: Entry) -> None:
    """Reads a card with the Hub client's own parser and compares it with the entry.

    Raises:
        InputError: The front matter or its model-index does not say what the entry says.
    """
    from huggingface_hub import ModelCard

    try:
        data: Any = ModelCard(text).data
    except (ValueError, TypeError) as error:
        raise InputError(f"The model card of {entry.key} has no valid front matter: {error}") from error
    results = data.eval_results or []
    metric = _METRICS[entry.measured.unit][0] if entry.measured else ""
    found = [r.metric_value for r in results if r.metric_type == metric and r.dataset_type == entry.data.id]
    expected = entry.measured.value if entry.measured else None
    unit = "nats" if entry.measured and entry.measured.bpd is None else "bpd"
    if found != [expected] or not data.license or data.library_name != "flowzoo":
        raise InputError(
            f"The model card of {entry.key} states {unit} {found}; expected [{expected}] and a license."
        )


def _front_matter(entry: Entry, measured: Measured, dataset_title: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    images = _of_images(entry)
    metric, metric_name = _METRICS[measured.unit]
    result = EvalResult(
        task_type=_TASK if images else "other",
        task_name="Density estimation",
        dataset_type=entry.data.id,
        dataset_name=dataset_title,
        dataset_split=entry.data.split,
        metric_type=metric,
        metric_name=metric_name,
        metric_value=measured.value,
        metric_args={
            "dequantization": measured.dequantization,
            "samples": measured.samples,
            "seed": measured.seed,
            "dtype": measured.dtype,
            "images" if images else "vectors": measured.num_images,
            "standard_error": measured.stderr,
        },
    )
    data = ModelCardData(
        license=entry.license.lower(),
        library_name="flowzoo",
        pipeline_tag=_TASK if images else None,
        tags=[
            "normalizing-flow",
            "density-estimation",
            *(["image-generation"] if images else []),
            entry.architecture,
        ],
        model_name=entry.name,
        eval_results=[result],
    )
    return str(data.to_yaml()).strip()


def _opening(entry: Entry, dataset_title: str, revision: str | None) -> str:
    summary = get_architecture(entry.architecture).summary.rstrip(".")
    return (
        f"# {entry.name}\n\n```python\nimport flowzoo  # pip install flowzoo {_distribution(entry)}\n\n"
        f'flow = flowzoo.load("{repository(entry, revision)}")\n```\n\n'
        f"{summary}. A normalizing flow trained on {dataset_title}; "
        f"{entry.num_params:,} parameters, {_size(entry)} as safetensors. "
        f"Loaded by [flowzoo](https://pypi.org/project/flowzoo/), which checks every byte.\n\n"
        f"![Samples of {entry.name}]({SAMPLES_FILENAME})\n\n"
        f"*Samples at temperature {entry.recommended_temperature or 1:g}, the first that were drawn.*"
    )


def _distribution(entry: Entry) -> str:
    return str(get_plugin(entry.architecture).distribution)


def _size(entry: Entry) -> str:
    assert entry.weights is not None
    return f"{file_length(entry.weights.size)} in {entry.weights.dtype}"


def repository(entry: Entry, revision: str | None = None) -> str:
    """The name by which the model loads from its repository at a commit; placeholders for what is not known."""
    place = entry.weights.repo_id if entry.weights else None
    return f"hf:{place or 'ORG/NAME'}@{revision or UNKNOWN_COMMIT}"


def _usage(entry: Entry, revision: str | None, listed: bool) -> str:
    name, pinned = entry.key, repository(entry, revision)
    quoted = f"`flowzoo verify {name if listed else repr(pinned)}` proves code and weights in seconds, without data."
    last = (
        f"{quoted} A flowzoo that does not list the model\nyet loads it from this repository at a commit: "
        f'`flowzoo.load("{pinned}")`.'
        if listed
        else f"{quoted} The commit\nis that of this repository: its newest is shown beside the files."
    )
    return f"""## Usage

```bash
pip install flowzoo {_distribution(entry)}
```

```python
import flowzoo

flow = flowzoo.load("{name if listed else pinned}")
{_example(entry)}
```

{last}"""


def _of_images(entry: Entry) -> bool:
    return entry.config.get("image_shape") is not None


def _items(entry: Entry) -> str:
    return "images" if _of_images(entry) else "vectors"


def _example(entry: Entry) -> str:
    """Samples, their density and their latents, in Python."""
    shape, temperature = ", ".join(map(str, data_shape(entry.config))), entry.recommended_temperature or 1.0
    labels = ", y=torch.arange(16) % " + str(entry.labels.classes) if entry.labels else ""
    given = ["import torch", ""] if labels else []
    if not _of_images(entry):
        return "\n".join(
            [
                *given,
                f"points = flow.sample(16{labels}, temperature={temperature:g})  # float (16, {shape})",
                f"nats = flow.log_prob(points{labels})  # log-density, (16,)",
                f"z = flow.encode(points{labels})  # latent, (16, D); flow.decode(z) gives the points back",
            ]
        )
    return "\n".join(
        [
            *given,
            f"images = flow.sample(16{labels}, temperature={temperature:g})  # uint8 (16, {shape})",
            f"bpd = flow.bits_per_dim(images{labels})  # bits per dimension, (16,)",
            f"z = flow.encode(images{labels})  # latent, (16, D); flow.decode(z) gives the images back",
        ]
    )


def _figures(entry: Entry, measured: Measured, dataset_title: str) -> str:
    rows = ["## Figures", "", f"| | {measured.unit} | protocol |", "|---|---|---|"]
    rows += [
        f"| {name} | {figure} | {protocol} |"
        for name, figure, protocol in _rows(entry, measured, dataset_title)
    ]
    kind = _KINDS[entry.figure_kind or "exact"]
    rows += ["", f"`{measured.command}` measures it again, to within {measured.tolerance:g}.{kind}"]
    if measured.reconstruction_exact is not None:
        rows[-1] += (
            f" `decode(encode(x))` gave x back exactly for {measured.reconstruction_exact:,} of "
            f"{measured.num_images:,} {_items(entry)}."
        )
    if reason := no_several_of(entry):
        rows[-1] += f" No figure of several noise samples: {reason}."
    if said := " ".join(filter(None, (passes(entry), accuracy(entry)))):
        rows += ["", said]
    return "\n".join(rows)


def _rows(entry: Entry, measured: Measured, dataset_title: str) -> Iterator[tuple[str, str, str]]:
    """Name, figure and protocol of everything that is known of the density."""
    of = f" of p({entry.labels.figure})" if entry.labels else ""
    noise = (
        ""
        if measured.bpd is None
        else f" {measured.dequantization} dequantization, {measured.samples} "
        f"sample{'s' if measured.samples > 1 else ''},"
    )
    probes = f" {measured.probes} probes," if measured.probes > 1 else ""
    yield (
        f"measured{of}".replace("|", "\\|"),
        f"**{measured.value:.4f}** ± {measured.stderr:.4f}",
        f"{dataset_title}, {entry.data.split} split, {measured.num_images:,} "
        f"{_items(entry)};{noise}{probes} seed {measured.seed}, {measured.dtype}",
    )
    if entry.one_sample_bpd is not None:
        yield "measured, one sample", f"{entry.one_sample_bpd:.4f}", "the same with one noise sample an image"
    if entry.several_samples is not None:
        yield several_samples(entry.several_samples)
    if entry.compressed is not None:
        yield "as a file", f"{entry.compressed.bpd:.4f}", f"{file_size(entry)}: `{entry.compressed.command}`"
    if (uniform := entry.uniform_noise) is not None:
        how = "uniform noise in place of the learned one, one sample an image"
        yield "measured, uniform noise", f"{uniform.bpd:.4f} ± {uniform.stderr:.4f}", how
    if entry.labels is not None and entry.labels.other is not None:
        other = "x|y" if entry.labels.figure == "x" else "x"
        yield f"measured of p({other})".replace("|", "\\|"), f"{entry.labels.other:.4f}", "the same protocol"
    if entry.published:
        found = entry.published
        yield "published", f"{found.bpd:g}", f"{found.source}; {found.dataset}; {found.protocol}"
    else:
        yield "published", "none", str(entry.published_reason)


def several_samples(found: SeveralSamples) -> tuple[str, str, str]:
    """Name, figure and protocol of the figure with several noise samples."""
    how = f"the same with {found.samples} noise samples an image, their densities averaged"
    return f"measured, {found.samples} samples", f"{found.bpd:.4f} ± {found.stderr:.4f}", how


def file_size(entry: Entry) -> str:
    """Where a figure that is a file's size comes from, and what the integer model behind it gives."""
    found = entry.compressed
    assert found is not None
    return (
        f"{found.size:,} bytes of `flowzoo compress` for {found.num_images:,} images, everything in the file counted; "
        f"the model in integers: {found.integers:.4f}"
    )


def passes(entry: Entry) -> str:
    """How a density and a sample are computed."""
    if entry.density_passes is None or entry.sampling_passes is None:
        return ""
    inverse = f"; the inverse is {entry.inverse_kind}" if entry.inverse_kind else ""
    return (
        f"Passes through the networks: {entry.density_passes:,} for a density, {entry.sampling_passes:,} for a "
        f"sample{inverse}."
    )


def accuracy(entry: Entry) -> str:
    """How well the labels are told from the data."""
    if entry.labels is None or entry.labels.accuracy is None:
        return ""
    return f"Accuracy of the label by Bayes' rule: {entry.labels.accuracy:.4f} on the same items."


def _sampling(entry: Entry) -> str:
    """The share of finite samples, and the temperature to sample at."""
    if entry.sampling is None:
        return ""
    found = entry.sampling
    recommended = entry.recommended_temperature
    advice = f" Recommended temperature: {recommended:g}." if recommended is not None else ""
    return (
        f"## Sampling\n\n{found.finite:,} of {found.drawn:,} samples at temperature {found.temperature:g} are finite "
        f"in float32 (seed {found.seed}).{advice}"
    )


def _training(entry: Entry, *, curve: bool) -> str:
    picture = f"![Training curve of {entry.name}]({CURVE_FILENAME})" if curve else ""
    if entry.training is None:
        return f"## Training\n\n{picture}" if curve else ""
    cost = entry.training
    seen = f" ({cost.images:,} {_items(entry)})" if cost.images else ""
    which = f"; {cost.weights}" if cost.weights else ""
    versions = (
        ", ".join(f"{name} {version}" for name, version in cost.versions.items()) or "versions not recorded"
    )
    return (
        f"## Training\n\n{cost.steps:,} steps{seen} in {duration(cost.hours)} on {cost.hardware}, seed {cost.seed}"
        f"{which}; {versions}. What was done, with the recipes beside the weights "
        f"({cost.recipe}):\n\n```bash\n{cost.command}\n```\n\nThe full config:\n\n"
        f"```json\n{json.dumps(entry.config, indent=2)}\n```" + (f"\n\n{picture}" if curve else "")
    )


def _data(entry: Entry, dataset_title: str) -> str:
    digest = f" The {entry.data.split} split has SHA-256 `{entry.data.digest}`." if entry.data.digest else ""
    return f"""## Data and intended use

Trained on {dataset_title} (`{entry.data.id}`, preprocessing `{entry.data.preprocessing}`).{digest} Terms of the data:
{entry.data.terms.rstrip(".")}.

For research on likelihood-based models: density estimation, sampling, representation. Samples and
likelihoods reflect the training data and its biases; a high likelihood does not mean that an image is real,
typical or safe. The weights are under {entry.license}."""


def _citations(entry: Entry) -> str:
    known: dict[str, Any] = {c.key: c for c in get_architecture(entry.architecture).citations}
    found: list[Citation] = [known[key] for key in entry.citations if key in known]
    if not found:
        return ""
    return "## Citation\n\n```bibtex\n" + "\n".join(citation.bibtex() for citation in found) + "\n```"
