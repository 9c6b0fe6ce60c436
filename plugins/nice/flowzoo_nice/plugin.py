"""NICE's entry in the zoo: presets, published figures, citation."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset, Published

SOURCE = "Dinh, Krueger and Bengio 2015 (arXiv 1410.8516), figures 3 and 4"


def _recipe(name: str) -> str:
    return f"flowzoo_nice:recipes/{name}.toml"


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={
            "image_shape": (1, 8, 8),
            "couplings": 4,
            "hidden_layers": 2,
            "hidden_units": 32,
        },
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="2x2 images of two bits: few enough to enumerate",
        config={"image_shape": (1, 2, 2), "n_bits": 2, "hidden_layers": 1, "hidden_units": 8},
    ),
    "mnist": Preset(
        summary="The paper's MNIST model",
        config={"image_shape": (1, 28, 28), "init_range": 0.0},
        dataset="mnist",
        recipe=_recipe("mnist"),
        published=Published(
            bpd=4.36,
            dataset="MNIST, test",
            source=SOURCE + ": 1980.50 nats on [0, 1]",
            protocol="uniform noise of one bin, selected on 10,000 held-out training images; "
            "8 - 1980.50 / (784 ln 2)",
        ),
        parameters=19_200_000,
        parameters_note="Rounded from 19,158,352: four MLPs of five hidden layers of 1000 units, and the scaling.",
    ),
    "cdf-mnist": Preset(
        summary="Histograms of each pixel first: what additive couplings are worth on top of independent pixels",
        config={
            "image_shape": (1, 28, 28),
            "marginals": "histogram",
            "couplings": 4,
            "hidden_layers": 2,
            "hidden_units": 512,
            "init_range": 0.0,
        },
        dataset="mnist",
        recipe=_recipe("cdf-mnist"),
    ),
    "cifar10": Preset(
        summary="The paper's CIFAR-10 model",
        config={
            "image_shape": (3, 32, 32),
            "hidden_layers": 4,
            "hidden_units": 2000,
            "input_range": "symmetric",
            "whitening": "zca",
        },
        dataset="cifar10",
        recipe=_recipe("cifar10"),
        published=Published(
            bpd=4.48,
            dataset="CIFAR-10, test",
            source=SOURCE + ": 5371.78 nats on [-1, 1]",
            protocol="uniform noise of one bin, ZCA whitening; 7 - 5371.78 / (3072 ln 2)",
        ),
    ),
    "svhn": Preset(
        summary="The paper's SVHN model",
        config={
            "image_shape": (3, 32, 32),
            "hidden_layers": 4,
            "hidden_units": 2000,
            "whitening": "zca",
        },
        recipe=_recipe("svhn"),
    ),
    "tfd": Preset(
        summary="The paper's Toronto Face Database model",
        config={
            "image_shape": (1, 48, 48),
            "hidden_layers": 4,
            "hidden_units": 5000,
            "base": "normal",
            "whitening": "zca",
        },
        recipe=_recipe("tfd"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="nice",
    summary="Non-linear independent components estimation: additive couplings and one diagonal scaling",
    config="flowzoo_nice.config:NICEConfig",
    build="flowzoo_nice.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="dinh2015nice",
            title="NICE: Non-linear Independent Components Estimation",
            authors=("Laurent Dinh", "David Krueger", "Yoshua Bengio"),
            year=2015,
            venue="ICLR 2015 Workshop Track",
            arxiv="1410.8516",
        ),
    ),
)
