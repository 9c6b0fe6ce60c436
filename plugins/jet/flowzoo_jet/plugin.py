"""Jet's entry in the zoo: presets, published figures, citation."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset, Published


def _recipe(name: str) -> str:
    return f"flowzoo_jet:recipes/{name}.toml"


def _published(bpd: float, model: str) -> Published:
    return Published(
        bpd=bpd,
        dataset="downsampled ImageNet 64x64, validation",
        source=f"Kolesnikov, Pinto and Tschannen 2024 (arXiv 2412.15129); the authors' configuration: {model}",
        protocol="uniform noise of one bin; the release of the TensorFlow data sets, a third one beside those that "
        "Glow and TarFlow are measured on",
        incomparable=("other-release",),
    )


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={
            "image_shape": (1, 8, 8),
            "patch": 2,
            "couplings": 3,
            "kinds": ("channels", "spatial"),
            "layers": 1,
            "channels": 16,
            "heads": 2,
        },
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="2x2 images of two bits: few enough to enumerate",
        config={
            "image_shape": (1, 2, 2),
            "n_bits": 2,
            "patch": 2,
            "couplings": 3,
            "kinds": ("channels",),
            "layers": 1,
            "channels": 8,
            "heads": 2,
        },
    ),
    "mnist": Preset(
        summary="Sixteen couplings on patches of 4x4 behind histograms of the pixels, for one core",
        config={
            "image_shape": (1, 28, 28),
            "couplings": 16,
            "kinds": ("channels",),
            "layers": 1,
            "channels": 64,
            "heads": 4,
            "marginals": "histogram",
        },
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "cifar10": Preset(
        summary="32 couplings of two layers, width 256",
        config={"image_shape": (3, 32, 32), "channels": 256, "heads": 8},
        dataset="cifar10",
        recipe=_recipe("cifar10"),
    ),
    "imagenet64": Preset(
        summary="The authors' model of 32 couplings of two layers",
        config={"image_shape": (3, 64, 64)},
        dataset="imagenet64-oord",
        recipe=_recipe("imagenet64"),
        published=_published(3.72, "32 couplings, depth 2"),
    ),
    "imagenet64-large": Preset(
        summary="The authors' model of 64 couplings of five layers",
        config={"image_shape": (3, 64, 64), "couplings": 64, "layers": 5},
        dataset="imagenet64-oord",
        recipe=_recipe("imagenet64"),
        published=_published(3.66, "64 couplings, depth 5"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="jet",
    summary="Couplings whose conditioners are vision transformers, and nothing else",
    config="flowzoo_jet.config:JetConfig",
    build="flowzoo_jet.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="kolesnikov2024jet",
            title="Jet: A Modern Transformer-Based Normalizing Flow",
            authors=("Alexander Kolesnikov", "André Susano Pinto", "Michael Tschannen"),
            year=2024,
            venue="arXiv",
            arxiv="2412.15129",
        ),
    ),
)
