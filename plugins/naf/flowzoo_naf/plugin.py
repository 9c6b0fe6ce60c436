"""Neural autoregressive flows' entry in the zoo: presets and citations. Torch-free."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset

__all__ = ["ARCHITECTURE"]


def _recipe(name: str) -> str:
    return f"flowzoo_naf:recipes/{name}.toml"


_PRESETS = {
    "tiny": Preset(
        summary="Couplings on 8x8 images: for tests and documentation",
        config={"image_shape": (1, 8, 8), "units": 4, "steps": 2, "levels": 2, "features": 8},
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="2x2 images of one bit: few enough to enumerate",
        config={
            "image_shape": (1, 2, 2),
            "n_bits": 1,
            "logit_alpha": 0.05,
            "units": 2,
            "steps": 2,
            "levels": 1,
            "features": 6,
        },
    ),
    "mnist": Preset(
        summary="Couplings of 16 sigmoids on MNIST, plain convolutions: trains on a laptop core",
        config={
            "image_shape": (1, 28, 28),
            "units": 16,
            "steps": 4,
            "levels": 2,
            "features": 64,
            "marginals": "histogram",
        },
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "points": Preset(
        summary="Autoregressive maps of 16 sigmoids, the paper's networks, on eight Gaussians",
        config={
            "dims": 2,
            "conditioner": "autoregressive",
            "units": 16,
            "steps": 5,
            "features": 100,
        },
        dataset="points:eight-gaussians",
        recipe=_recipe("points"),
    ),
    "coupling-points": Preset(
        summary="The same maps in couplings, which sample in one pass",
        config={"dims": 2, "units": 16, "steps": 6, "features": 100},
        dataset="points:eight-gaussians",
        recipe=_recipe("coupling-points"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="naf",
    summary="Deep sigmoidal flows, increasing networks of one value: in couplings and autoregressive",
    config="flowzoo_naf.config:NAFConfig",
    build="flowzoo_naf.model:build",
    presets=_PRESETS,
    citations=(
        Citation(
            key="huang2018neural",
            title="Neural Autoregressive Flows",
            authors=("Chin-Wei Huang", "David Krueger", "Alexandre Lacoste", "Aaron Courville"),
            year=2018,
            venue="International Conference on Machine Learning",
            arxiv="1804.00779",
        ),
    ),
)
