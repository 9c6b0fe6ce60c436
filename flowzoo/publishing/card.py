"""The model card: front matter that the Hub indexes, and a page that a reader can act on."""

from __future__ import annotations

import json
from typing import Any

from flowzoo.api import Citation
from flowzoo.errors import InputError
from flowzoo.manifest.schema import Entry, Measured
from flowzoo.registry import get_architecture, get_plugin

__all__ = ["SAMPLES_FILENAME", "check_model_card", "model_card"]

SAMPLES_FILENAME = "samples.png"
_TASK = "unconditional-image-generation"
_METRIC = "bits-per-dimension"


def model_card(entry: Entry, dataset_title: str, revision: str | None = None) -> str:
    """Writes the model card of an entry.

    Args:
        entry: The entry, with weights and measured figure.
        dataset_title: The data set's name in words.
        revision: Commit to name in the example; None for a placeholder, since a commit cannot name itself.

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
        _opening(entry, dataset_title),
        entry.note or "",
        _usage(entry, revision),
        _figures(entry, entry.measured, dataset_title),
        _sampling(entry),
        _training(entry),
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
    found = [r.metric_value for r in results if r.metric_type == _METRIC and r.dataset_type == entry.data.id]
    expected = entry.measured.bpd if entry.measured else None
    if found != [expected] or not data.license or data.library_name != "flowzoo":
        raise InputError(
            f"The model card of {entry.key} states bpd {found}; expected [{expected}] and a license."
        )


def _front_matter(entry: Entry, measured: Measured, dataset_title: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    result = EvalResult(
        task_type=_TASK,
        task_name="Density estimation",
        dataset_type=entry.data.id,
        dataset_name=dataset_title,
        dataset_split=entry.data.split,
        metric_type=_METRIC,
        metric_name="Bits per dimension (lower is better)",
        metric_value=measured.bpd,
        metric_args={
            "dequantization": measured.dequantization,
            "samples": measured.samples,
            "seed": measured.seed,
            "dtype": measured.dtype,
            "images": measured.num_images,
            "standard_error": measured.stderr,
        },
    )
    data = ModelCardData(
        license=entry.license.lower(),
        library_name="flowzoo",
        pipeline_tag=_TASK,
        tags=["normalizing-flow", "density-estimation", "image-generation", entry.architecture],
        model_name=entry.name,
        eval_results=[result],
    )
    return str(data.to_yaml()).strip()


def _opening(entry: Entry, dataset_title: str) -> str:
    summary = get_architecture(entry.architecture).summary.rstrip(".")
    return (
        f"# {entry.name}\n\n{summary}. A normalizing flow trained on {dataset_title}; "
        f"{entry.num_params:,} parameters, {_size(entry)} as safetensors. "
        f"Loaded by [flowzoo](https://pypi.org/project/flowzoo/), which checks every byte.\n\n"
        f"![Samples of {entry.name}]({SAMPLES_FILENAME})\n\n"
        f"*Samples at temperature {entry.recommended_temperature or 1:g}, the first that were drawn.*"
    )


def _size(entry: Entry) -> str:
    assert entry.weights is not None
    return f"{entry.weights.size / 1e6:.1f} MB in {entry.weights.dtype}"


def _usage(entry: Entry, revision: str | None) -> str:
    assert entry.weights is not None
    pinned = f"hf:{entry.weights.repo_id or 'ORG/NAME'}@{revision or '<40 hex digits of a commit>'}"
    shape = ", ".join(map(str, entry.config.get("image_shape", ())))
    return f"""## Usage

```bash
pip install flowzoo {get_plugin(entry.architecture).distribution}
```

```python
import flowzoo

flow = flowzoo.load("{entry.key}")
images = flow.sample(16, temperature={entry.recommended_temperature or 1.0:g})  # uint8 (16, {shape})
bpd = flow.bits_per_dim(images)  # bits per dimension, (16,)
z = flow.encode(images)  # latent, (16, D); flow.decode(z) gives the images back
```

`flowzoo verify {entry.key}` proves code and weights in seconds, without data. A flowzoo that does not list the model
yet loads it from this repository at a commit: `flowzoo.load("{pinned}")`."""


def _figures(entry: Entry, measured: Measured, dataset_title: str) -> str:
    rows = [
        "## Figures",
        "",
        "| | bits per dimension | protocol |",
        "|---|---|---|",
        f"| measured | **{measured.bpd:.4f}** ± {measured.stderr:.4f} | {dataset_title}, {entry.data.split} split, "
        f"{measured.num_images:,} images; {measured.dequantization} dequantization, {measured.samples} "
        f"sample{'s' if measured.samples > 1 else ''}, seed {measured.seed}, {measured.dtype} |",
    ]
    if entry.one_sample_bpd is not None:
        rows.append(
            f"| measured, one sample | {entry.one_sample_bpd:.4f} | the same with one noise sample an image |"
        )
    if entry.published:
        rows.append(
            f"| published | {entry.published.bpd:g} | {entry.published.source}; {entry.published.dataset}; "
            f"{entry.published.protocol} |"
        )
    else:
        rows.append(f"| published | none | {entry.published_reason} |")
    bound = " The figure is an upper bound." if measured.dequantization == "variational" else ""
    rows += ["", f"`{measured.command}` measures it again, to within {measured.tolerance:g}.{bound}"]
    if measured.reconstruction_exact is not None:
        rows[-1] += (
            f" `decode(encode(x))` gave x back exactly for {measured.reconstruction_exact:,} of "
            f"{measured.num_images:,} images."
        )
    return "\n".join(rows)


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


def _training(entry: Entry) -> str:
    if entry.training is None:
        return ""
    cost = entry.training
    seen = f" ({cost.images:,} images)" if cost.images else ""
    which = f"; {cost.weights}" if cost.weights else ""
    versions = (
        ", ".join(f"{name} {version}" for name, version in cost.versions.items()) or "versions not recorded"
    )
    return (
        f"## Training\n\n{cost.steps:,} steps{seen} in {cost.hours:.2g} hours on {cost.hardware}, seed {cost.seed}"
        f"{which}; {versions}. What was done, with the recipes beside the weights "
        f"({cost.recipe}):\n\n```bash\n{cost.command}\n```\n\nThe full config:\n\n"
        f"```json\n{json.dumps(entry.config, indent=2)}\n```"
    )


def _data(entry: Entry, dataset_title: str) -> str:
    return f"""## Data and intended use

Trained on {dataset_title} (`{entry.data.id}`, preprocessing `{entry.data.preprocessing}`). Terms of the data:
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
