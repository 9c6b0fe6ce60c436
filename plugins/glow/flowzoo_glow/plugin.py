"""Glow's entry in the zoo: presets, published figures, citation."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset, Published

PROTOCOL = (
    "one uniform dequantization sample, x - 1/2, weights without EMA, checkpoint chosen on the test set "
    "(official code)"
)

EDGE_BIAS = "edge bias (one more input channel in every 3x3 convolution)"
NSF_COUNT = (
    "As tabulated in Neural Spline Flows (arXiv 1906.04032); {ours} here, as in the official code. {edge} of them are "
    f"its {EDGE_BIAS}, and {{scales}} its scales behind the convolutions inside couplings; without both the model "
    "has {without} (edge_bias=False, net_normalization='none')."
)
CDFLOW_COUNT = (
    "As tabulated in the CDFlow paper; 66,777,684 here, as in the official code. 700,164 of them are its "
    f"{EDGE_BIAS}; without these, and with 1x1 convolutions in LU form, the model has 66,226,704 "
    "(edge_bias=False, permutation='lu')."
)


def _published(bpd: float, dataset: str, table: str = "Table 2") -> Published:
    return Published(
        bpd=bpd,
        dataset=dataset,
        source=f"Kingma and Dhariwal 2018 (arXiv 1807.03039), {table}",
        protocol=PROTOCOL,
        incomparable=("test-selected", "one-sample"),
    )


def _recipe(name: str) -> str:
    return f"flowzoo_glow:recipes/{name}.toml"


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={"image_shape": (3, 8, 8), "levels": 2, "depth": 2, "hidden_channels": 16},
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="2x2 images of two bits: few enough to enumerate",
        config={"image_shape": (1, 2, 2), "n_bits": 2, "levels": 1, "depth": 3, "hidden_channels": 8},
    ),
    "mnist": Preset(
        summary="28x28 digits, small enough to train on one laptop core",
        config={
            "image_shape": (1, 28, 28),
            "levels": 2,
            "depth": 8,
            "hidden_channels": 128,
            "edge_bias": False,
            "preprocessing": "logit",
            "alpha": 1e-5,
            "dequantization": "variational",
            "network_input": "clamped",
        },
        dataset="mnist",
        recipe=_recipe("mnist"),
        published=Published(
            bpd=1.05,
            dataset="MNIST, test",
            source="as tabulated in FFJORD (arXiv 1810.01367), Table 2",
            protocol="not stated there for this cell; another network and another logit alpha",
            incomparable=("not-stated", "other-model", "several-samples"),
        ),
    ),
    "digits": Preset(
        summary="28x28 digits by label, small enough for minutes on one laptop core",
        config={
            "image_shape": (1, 28, 28),
            "levels": 2,
            "depth": 4,
            "hidden_channels": 32,
            "edge_bias": False,
            "learn_top": "element",
            "preprocessing": "logit",
            "alpha": 1e-5,
            "network_input": "clamped",
            "classes": 10,
        },
        dataset="mnist",
        recipe=_recipe("digits"),
        labels=10,
    ),
    "cifar10": Preset(
        summary="The paper's CIFAR-10 model",
        config={"image_shape": (3, 32, 32), "levels": 3, "depth": 32},
        dataset="cifar10",
        recipe=_recipe("cifar10"),
        published=_published(3.35, "CIFAR-10, test"),
        parameters=44_000_000,
        parameters_note=NSF_COUNT.format(
            ours="44,519,700", edge="466,884", scales="98,304", without="43,954,512"
        ),
    ),
    "imagenet32": Preset(
        summary="The paper's ImageNet 32x32 model",
        config={"image_shape": (3, 32, 32), "levels": 3, "depth": 48},
        dataset="imagenet32-oord",
        recipe=_recipe("imagenet32"),
        published=_published(4.09, "ImageNet 32x32 (oord), validation"),
        parameters=66_200_000,
        parameters_note=CDFLOW_COUNT,
    ),
    "imagenet64": Preset(
        summary="The paper's ImageNet 64x64 model",
        config={"image_shape": (3, 64, 64), "levels": 4, "depth": 48},
        dataset="imagenet64-oord",
        recipe=_recipe("imagenet64"),
        published=_published(3.81, "ImageNet 64x64 (oord), validation"),
        parameters=110_900_000,
        parameters_note=NSF_COUNT.format(
            ours="112,043,844", edge="963,252", scales="196,608", without="110,883,984"
        ),
    ),
    "lsun64": Preset(
        summary="The paper's LSUN 64x64 model (bedroom)",
        config={"image_shape": (3, 64, 64), "levels": 4, "depth": 48},
        dataset="lsun-bedroom64",
        recipe=_recipe("lsun64"),
        published=_published(2.38, "LSUN bedroom 64x64, validation"),
    ),
    "celebahq256": Preset(
        summary="The paper's CelebA-HQ 256x256 model, 5 bits",
        config={"image_shape": (3, 256, 256), "n_bits": 5, "levels": 6, "depth": 32, "coupling": "additive"},
        recipe=_recipe("celebahq256"),
        published=_published(1.03, "CelebA-HQ 256x256, 5 bits", "appendix, Table 3"),
    ),
    "celeba64-full": Preset(
        summary="CelebA 64x64 with the paper's widths",
        config={"image_shape": (3, 64, 64), "levels": 4, "depth": 48},
        dataset="celeba64",
        recipe=_recipe("celeba64-full"),
    ),
    "celeba64": Preset(
        summary="10,000 faces of 64x64 at half resolution, small enough for hours on one laptop core",
        config={
            "image_shape": (3, 64, 64),
            "levels": 4,
            "depth": 8,
            "hidden_channels": 128,
            "edge_bias": False,
            "scale_map": "bounded-sigmoid",
            "network_input": "clamped",
            "dequantization": "variational",
        },
        dataset="celeba64-half",
        recipe=_recipe("celeba64"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="glow",
    summary="Generative flow with invertible 1x1 convolutions",
    config="flowzoo_glow.config:GlowConfig",
    build="flowzoo_glow.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="kingma2018glow",
            title="Glow: Generative Flow with Invertible 1x1 Convolutions",
            authors=("Diederik P. Kingma", "Prafulla Dhariwal"),
            year=2018,
            venue="Advances in Neural Information Processing Systems 31",
            arxiv="1807.03039",
        ),
    ),
)
