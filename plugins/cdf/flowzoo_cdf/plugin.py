"""Elementwise flows' entry in the zoo: presets and citations."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset


def _recipe(name: str) -> str:
    return f"flowzoo_cdf:recipes/{name}.toml"


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={"image_shape": (1, 8, 8), "bins": 16},
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="2x2 images of two bits: few enough to enumerate",
        config={"image_shape": (1, 2, 2), "n_bits": 2, "bins": 4},
    ),
    "mnist": Preset(
        summary="One histogram for each pixel: what independent pixels are worth",
        config={"image_shape": (1, 28, 28)},
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "affine-mnist": Preset(
        summary="Scale and shift of each pixel's logit, logistic base",
        config={
            "image_shape": (1, 28, 28),
            "elementwise": "affine",
            "alpha": 1e-5,
            "base": "logistic",
        },
        dataset="mnist",
        recipe=_recipe("affine-mnist"),
    ),
    "cifar10": Preset(
        summary="One histogram for each pixel and colour",
        config={"image_shape": (3, 32, 32)},
        dataset="cifar10",
        recipe=_recipe("cifar10"),
    ),
    "points": Preset(
        summary="A mixture of three normals on a line, to a standard normal",
        config={"dims": 1, "elementwise": "normals", "components": 5, "base": "normal"},
        dataset="points:mixture-1d",
        recipe=_recipe("points"),
    ),
    "beta": Preset(
        summary="The same to Beta(5, 5), the exercise of the Berkeley lecture",
        config={"dims": 1, "elementwise": "normals", "components": 5, "base": "beta"},
        dataset="points:mixture-1d",
        recipe=_recipe("points"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="cdf",
    summary="Elementwise flows: distribution functions of histograms and mixtures, affine maps",
    config="flowzoo_cdf.config:CDFConfig",
    build="flowzoo_cdf.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="papamakarios2021normalizing",
            title="Normalizing Flows for Probabilistic Modeling and Inference",
            authors=(
                "George Papamakarios",
                "Eric Nalisnick",
                "Danilo Jimenez Rezende",
                "Shakir Mohamed",
                "Balaji Lakshminarayanan",
            ),
            year=2021,
            venue="Journal of Machine Learning Research",
            arxiv="1912.02762",
        ),
    ),
)
