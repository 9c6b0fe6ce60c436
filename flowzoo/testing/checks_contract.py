"""Conformance checks of the contract: metadata, config, building, initialisation, saving."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from flowzoo.api import API_VERSION
from flowzoo.config import config_hash, config_to_dict, data_shape, parse_config
from flowzoo.errors import ConfigError
from flowzoo.factory import build_flow, resolve
from flowzoo.nets.keyed import Keys
from flowzoo.registry import get_plugin
from flowzoo.testing.randomize import random_data, random_labels
from flowzoo.testing.subject import Subject
from flowzoo.weights.checkpoint import load_weights, save_weights
from flowzoo.weights.skip_init import build_to_load

MAX_TINY_PARAMETERS = 50_000
MAX_TINY_DIMS = 8


def metadata_without_torch(subject: Subject) -> str:
    """The modules of metadata and config import without torch."""
    modules = [get_plugin(subject.architecture.name).entry_point, subject.architecture.config]
    imports = "; ".join(f"import {reference.partition(':')[0]}" for reference in modules)
    script = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, (
        f"importing the metadata imports torch, or fails: {done.stderr.strip()[-300:]}"
    )
    return f"api_version {subject.architecture.api_version} of {API_VERSION}"


def tiny_preset(subject: Subject) -> str:
    """The preset ``tiny`` is for 8x8 images, or vectors of at most 8 numbers, and has at most 50,000 parameters."""
    flow = subject.build(seed=1)
    parameters = sum(p.numel() for p in flow.parameters())
    if flow.data_kind == "images":
        assert flow.image_shape[1:] == (8, 8), f"tiny is for {flow.image_shape}; expected 8x8 images"
    else:
        assert flow.dims <= MAX_TINY_DIMS, (
            f"tiny is for vectors of {flow.dims} numbers; allowed {MAX_TINY_DIMS}"
        )
    assert parameters <= MAX_TINY_PARAMETERS, (
        f"tiny has {parameters:,} parameters; allowed {MAX_TINY_PARAMETERS:,}"
    )
    return f"{parameters:,} parameters"


def config_round_trip(subject: Subject) -> str:
    """Every preset's config survives JSON and keeps its hash; an unknown key is refused."""
    name = subject.architecture.name
    for preset in subject.architecture.presets:
        _, _, config = resolve(f"{name}-{preset}", {})
        plain = json.loads(json.dumps(config_to_dict(config)))
        again = parse_config(type(config), plain, f"{name}-{preset}")
        assert again == config, f"{name}-{preset} changes in a JSON round trip"
        assert config_hash(name, plain) == config_hash(name, config_to_dict(again)), (
            "the config's hash changes"
        )
        try:
            parse_config(type(config), {**plain, "no_such_key": 1}, name)
        except ConfigError:
            continue
        raise AssertionError(f"{name}-{preset} accepts an unknown key")
    return f"{len(subject.architecture.presets)} presets"


def meta_build(subject: Subject) -> str:
    """Every preset builds on the meta device, with the tiny one's names and shapes as on the CPU.

    Its flow is of the data that its config names, and takes the labels that the preset says.
    """
    name = subject.architecture.name
    for preset, described in subject.architecture.presets.items():
        _, _, config = resolve(f"{name}-{preset}", {})
        flow = build_flow(name, config, device="meta")
        shape, classes = data_shape(config), flow.labels.classes if flow.labels else None
        assert flow.data_shape == shape, f"{name}-{preset} is for {flow.data_shape}, its config says {shape}"
        assert classes == described.labels, (
            f"{name}-{preset} takes labels of {classes} classes, its preset says {described.labels}"
        )
        assert all(t.is_meta for t in flow.state_dict().values()), f"{name}-{preset} allocates memory on meta"
        if preset == "tiny":
            real = {key: value.shape for key, value in subject.build(seed=1).state_dict().items()}
            meta = {key: value.shape for key, value in flow.state_dict().items()}
            assert real == meta, "names or shapes differ between meta and cpu"
    return f"{len(subject.architecture.presets)} presets"


@torch.no_grad()
def save_and_load(subject: Subject) -> str:
    """Saved weights, loaded strictly into a model of another seed, give the same log_prob to the last bit.

    So do they in a model whose parameters were never drawn, as ``flowzoo.load`` builds it.
    """
    flow = subject.build(seed=9, dtype=torch.float32)
    x, y = random_data(flow, 4, seed=9), random_labels(flow, 4)
    noise, keys = flow.draw_noise(4, generator=torch.Generator().manual_seed(9)), Keys(seed=9, items=range(4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_weights(flow, path, {"architecture": subject.architecture.name})
        other = subject.build(seed=10, dtype=torch.float32, random=False)
        load_weights(other, path)
        _, _, config = resolve(f"{subject.architecture.name}-tiny", {})
        undrawn = build_to_load(subject.architecture.name, config).train(other.training)
        load_weights(undrawn, path)
    before, after, loaded = (model.log_prob(x, y, noise=noise, keys=keys) for model in (flow, other, undrawn))
    assert torch.equal(before, after), "log_prob changes"
    assert torch.equal(before, loaded), "log_prob depends on the values that parameters are first drawn with"
    return "identical log_prob"


@torch.no_grad()
def initialization_once(subject: Subject) -> str:
    """Data-dependent initialisation happens on the first batch only and survives saving."""
    flow = subject.build(seed=11, random=False).train()
    needs = not flow.is_initialized
    generator, labels = torch.Generator().manual_seed(11), random_labels(flow, 64)
    changed = flow.initialize(random_data(flow, 64, seed=11), labels, generator=generator)
    assert changed == needs, "initialize() does not say whether it initialised"
    assert flow.is_initialized, "initialize() does not initialise"
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    again = flow.initialize(random_data(flow, 64, seed=12), labels, generator=generator)
    assert not again, "a second batch initialises again"
    reloaded = subject.build(seed=13, random=False)
    reloaded.load_state_dict(before)
    third = reloaded.initialize(random_data(flow, 64, seed=14), labels, generator=generator)
    assert not third, "a reload forgets it"
    same = all(torch.equal(value, reloaded.state_dict()[key]) for key, value in before.items())
    assert same, "a second initialisation changes the weights"
    return "once" if needs else "nothing to initialise"
