"""The integer discrete flow's entry in the zoo: names, presets, citations. Torch-free."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset, Published

__all__ = ["ARCHITECTURE"]

_PRESETS = {
    "tiny": Preset(
        summary="One level on 8x8 images: for tests and documentation",
        config={
            "image_shape": (3, 8, 8),
            "levels": 1,
            "features": 6,
            "depth": 1,
            "couplings": 0,
            "coupling_depth": 0,
            "mixtures": 2,
            "top_gain": 4,
        },
        recipe="flowzoo_idf:recipes/tiny.toml",
    ),
    "mnist": Preset(
        summary="Three splits a level on MNIST: trains on a laptop core and compresses images",
        config={
            "image_shape": (1, 28, 28),
            "levels": 2,
            "split": "quarter",
            "couplings": 0,
            "features": 64,
            "depth": 2,
            "coupling_depth": 0,
            "mixtures": 5,
        },
        dataset="mnist",
        recipe="flowzoo_idf:recipes/mnist.toml",
    ),
    "cifar10": Preset(
        summary="Three splits a level on CIFAR-10, relative means: trains on a laptop core and compresses images",
        config={
            "image_shape": (3, 32, 32),
            "levels": 3,
            "split": "quarter",
            "couplings": 0,
            "features": 112,
            "depth": 2,
            "coupling_depth": 0,
            "mixtures": 3,
            "means": "relative",
        },
        dataset="cifar10",
        recipe="flowzoo_idf:recipes/cifar10.toml",
    ),
    "paper-cifar10": Preset(
        summary="Three levels of quarter splits on CIFAR-10, plain convolutions in place of DenseNets",
        config={
            "image_shape": (3, 32, 32),
            "levels": 3,
            "split": "quarter",
            "couplings": 2,
            "features": 96,
            "depth": 3,
            "mixtures": 5,
        },
        dataset="cifar10",
        recipe="flowzoo_idf:recipes/paper-cifar10.toml",
        published=Published(
            bpd=3.34,
            dataset="CIFAR-10, test",
            source="Hoogeboom et al. 2019 (arXiv 1905.07376), table 2",
            protocol="files of rANS; the paper's model has 8 couplings a level and DenseNets of width 512",
            incomparable=("other-model",),
        ),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="idf",
    summary="Translations of integers by rounded networks, mixtures of discretised logistics: compresses losslessly",
    config="flowzoo_idf.config:IDFConfig",
    build="flowzoo_idf.model:build",
    presets=_PRESETS,
    citations=(
        Citation(
            key="hoogeboom2019idf",
            title="Integer Discrete Flows and Lossless Compression",
            authors=("Emiel Hoogeboom", "Jorn W. T. Peters", "Rianne van den Berg", "Max Welling"),
            year=2019,
            venue="Advances in Neural Information Processing Systems",
            arxiv="1905.07376",
        ),
    ),
)
