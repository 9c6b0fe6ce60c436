"""A complete manifest entry as JSON values, for tests to bend."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from flowzoo.config import config_hash, config_to_dict
from flowzoo.factory import resolve

SHA256 = "0123456789abcdef" * 4
REVISION = "0123456789abcdef0123456789abcdef01234567"


def example_entry(name: str = "nice-example", version: int = 1, **changes: Any) -> dict[str, Any]:
    """A released entry of NICE's tiny preset in which every key is given; ``changes`` replace keys."""
    architecture, _, config = resolve("nice-tiny", {})
    values = config_to_dict(config)
    entry = {
        "name": name,
        "version": version,
        "status": "released",
        "architecture": architecture.name,
        "config": values,
        "config_hash": config_hash(architecture.name, values),
        "num_params": 12_736,
        "data": {
            "id": "mnist",
            "preprocessing": "mnist/1",
            "split": "test",
            "num_images": 10_000,
            "terms": "CC BY-SA 3.0",
            "release": "1998",
            "digest": SHA256,
        },
        "license": "Apache-2.0",
        "citations": [citation.key for citation in architecture.citations],
        "weights": {
            "filename": "nice-example.safetensors",
            "sha256": SHA256,
            "size": 51_234,
            "dtype": "float32",
            "repo_id": "flowzoo/nice-example",
            "revision": REVISION,
        },
        "published": {"bpd": 4.36, "dataset": "MNIST, test", "source": "Table 1", "protocol": "one sample"},
        "published_reason": None,
        "measured": {
            "bpd": 4.2512345678901234,
            "stderr": 0.0012,
            "dequantization": "uniform",
            "samples": 1,
            "seed": 0,
            "dtype": "float32",
            "num_images": 10_000,
            "tolerance": 0.0005,
            "versions": {"flowzoo": "0.1.0", "torch": "2.14.1"},
            "command": "flowzoo eval nice-example",
            "reconstruction_exact": 10_000,
            "seconds": 12.5,
            "hardware": "2 CPU cores",
        },
        "fingerprint": {"bpd": [8.1, 8.2, 8.3, 8.4], "tolerance": 1e-4},
        "training": {
            "recipe": "flowzoo_nice:recipes/tiny.toml",
            "command": "flowzoo train nice-tiny --out run",
            "steps": 100,
            "hours": 0.1,
            "hardware": "2 CPU cores",
            "seed": 0,
            "versions": {"torch": "2.14.1"},
        },
    }
    return {**copy.deepcopy(entry), **changes}


def unpublished_entry(name: str = "nice-example", version: int = 1) -> dict[str, Any]:
    """An entry that describes a model without weights, optional keys left out."""
    entry = example_entry(
        name, version, status="unpublished", published=None, published_reason="not in the paper"
    )
    for key in ("weights", "measured", "fingerprint", "training"):
        del entry[key]
    return entry


def example_reference(name: str = "independent pixels", **changes: Any) -> dict[str, Any]:
    """A baseline in which every key is given; ``changes`` replace keys."""
    reference = {
        "kind": "baseline",
        "name": name,
        "data": example_entry()["data"],
        "unit": "bits per dimension",
        "figure": 1.6889471533839415,
        "command": "python -m tools.baselines mnist",
        "versions": {"numpy": "2.4.6"},
        "stderr": 0.0036,
        "note": "counted on 50,000 training images",
    }
    return reference | changes


def manifest_text(*entries: dict[str, Any], references: Sequence[dict[str, Any]] = ()) -> str:
    """A manifest file of these entries and references; without any, the key is left out."""
    more = {"references": list(references)} if references else {}
    return json.dumps({"schema": 1, "models": list(entries), **more})
