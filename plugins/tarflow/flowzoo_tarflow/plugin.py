"""TarFlow's entry in the zoo: presets, published figures, citations."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset, Published


def _recipe(name: str) -> str:
    return f"flowzoo_tarflow:recipes/{name}.toml"


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={
            "image_shape": (1, 8, 8),
            "patch": 2,
            "channels": 16,
            "head_channels": 8,
            "blocks": 2,
            "layers": 1,
            "scale": "soft-clip",
        },
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="2x2 images of two bits: few enough to enumerate",
        config={
            "image_shape": (1, 2, 2),
            "n_bits": 2,
            "patch": 1,
            "channels": 8,
            "head_channels": 8,
            "blocks": 2,
            "layers": 1,
            "scale": "soft-clip",
        },
    ),
    "mnist": Preset(
        summary="Four blocks of two layers on patches of 4x4, from independent pixels on: 626 thousand parameters",
        config={
            "image_shape": (1, 28, 28),
            "patch": 4,
            "channels": 64,
            "head_channels": 32,
            "blocks": 4,
            "layers": 2,
            "scale": "soft-clip",
            "marginals": "histogram",
        },
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "digits": Preset(
        summary="The same by label with Gaussian noise: for pictures, a density without bits",
        config={
            "image_shape": (1, 28, 28),
            "patch": 4,
            "channels": 64,
            "head_channels": 32,
            "blocks": 4,
            "layers": 2,
            "scale": "soft-clip",
            "noise": "gaussian",
            "noise_std": 0.1,
            "classes": 10,
        },
        dataset="mnist",
        recipe=_recipe("digits"),
        labels=10,
    ),
    "cifar10": Preset(
        summary="Eight blocks of four layers on patches of 2x2",
        config={
            "image_shape": (3, 32, 32),
            "patch": 2,
            "channels": 256,
            "blocks": 8,
            "layers": 4,
            "scale": "soft-clip",
        },
        dataset="cifar10",
        recipe=_recipe("cifar10"),
    ),
    "imagenet64": Preset(
        summary="The paper's model for likelihoods: patches of 2x2, width 768, eight blocks of eight layers",
        config={"image_shape": (3, 64, 64), "patch": 2, "channels": 768, "blocks": 8, "layers": 8},
        dataset="imagenet64-oord",
        recipe=_recipe("imagenet64"),
        published=Published(
            bpd=2.99,
            dataset="ImageNet 64x64, test",
            source="Zhai et al. 2024 (arXiv 2412.06329), table 1",
            protocol="uniform noise of one bin, one sample; resized from the images themselves, another release than "
            "the one that Glow is measured on",
            incomparable=("one-sample", "other-release"),
        ),
        parameters=460_000_000,
        parameters_note="Rounded; 460,142,784 here: [2-768-8-8] in the paper's notation.",
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="tarflow",
    summary="Autoregressive flows of transformer blocks over patches of an image",
    config="flowzoo_tarflow.config:TarFlowConfig",
    build="flowzoo_tarflow.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="zhai2024normalizing",
            title="Normalizing Flows are Capable Generative Models",
            authors=(
                "Shuangfei Zhai",
                "Ruixiang Zhang",
                "Preetum Nakkiran",
                "David Berthelot",
                "Jiatao Gu",
                "Huangjie Zheng",
                "Tianrong Chen",
                "Miguel Angel Bautista",
                "Navdeep Jaitly",
                "Josh Susskind",
            ),
            year=2025,
            venue="ICML 2025",
            arxiv="2412.06329",
        ),
    ),
)
