"""Residual flows' entry in the zoo: presets, published figures, citations."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset, Published

RESFLOW = "Chen, Behrmann, Duvenaud and Jacobsen 2019 (arXiv 1906.02735), table 2"
IRESNET = "Behrmann et al. 2019 (arXiv 1811.00995), table 4"
IRESNET_CONFIG = {
    "activation": "elu",
    "coefficient": 0.9,
    "estimator": "truncated",
    "exact_terms": 5,
    "gradient": "series",
    "normalization": "before",
    "initial_squeeze": True,
    "factor_out": True,
    "fc_blocks": 0,
    "preprocessing": "center",
    "learned_base": True,
}
COUNTED = "Counted from the layers of the authors' code, not published."


def _recipe(name: str) -> str:
    return f"flowzoo_residual:recipes/{name}.toml"


def _resflow(bpd: float, dataset: str, alpha: str) -> Published:
    return Published(
        bpd=bpd,
        dataset=dataset,
        source=RESFLOW,
        protocol=f"logit with alpha = {alpha}, uniform noise, one draw; 20 exact terms and a Poisson number of further "
        "ones, one number for a whole batch; average of weights 0.999; the best epoch on the test images",
        incomparable=("test-selected", "one-sample"),
    )


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={
            "image_shape": (1, 8, 8),
            "blocks": (1, 1),
            "channels": 6,
            "fc_blocks": 1,
            "fc_hidden": 16,
            "exact_terms": 1,
            "eval_terms": 2,
            "rate": 1.0,
            "probe": "rademacher",
            "coefficient": 0.7,
        },
        recipe=_recipe("tiny"),
    ),
    "mnist": Preset(
        summary="Residual Flow squeezed first, 4 blocks of 64 channels on each of two scales, for a laptop core",
        config={
            "image_shape": (1, 28, 28),
            "blocks": (4, 4),
            "channels": 64,
            "initial_squeeze": True,
            "probe": "rademacher",
            "marginals": "histogram",
        },
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "paper-mnist": Preset(
        summary="The Residual Flow of the paper",
        config={"image_shape": (1, 28, 28), "alpha": 1e-6},
        dataset="mnist",
        recipe=_recipe("paper-mnist"),
        published=_resflow(0.970, "MNIST, test", "1e-6"),
        parameters=16_608_589,
        parameters_note=COUNTED,
    ),
    "cifar10": Preset(
        summary="The Residual Flow of the paper",
        config={"image_shape": (3, 32, 32)},
        dataset="cifar10",
        recipe=_recipe("cifar10"),
        published=_resflow(3.280, "CIFAR-10, test", "0.05"),
        parameters=25_174_129,
        parameters_note=COUNTED,
    ),
    "imagenet32": Preset(
        summary="The Residual Flow of the paper, 32 blocks on each scale",
        config={"image_shape": (3, 32, 32), "blocks": (32, 32, 32)},
        dataset="imagenet32-oord",
        recipe=_recipe("imagenet32"),
        published=_resflow(4.010, "ImageNet 32x32, validation", "0.05"),
        parameters=47_099_089,
        parameters_note=COUNTED,
    ),
    "iresnet-mnist": Preset(
        summary="i-ResNet on two scales, as often as 28 can be halved: a biased figure, no claim to bits/dim",
        config={"image_shape": (1, 28, 28), "blocks": (16, 16), **IRESNET_CONFIG},
        dataset="mnist",
        recipe=_recipe("iresnet-mnist"),
        published=Published(
            bpd=1.06,
            dataset="MNIST, test, padded to 32x32 and repeated to three channels",
            source=IRESNET,
            incomparable=("3x32x32", "biased-logdet"),
            protocol="images are padded with black, repeated to 3x32x32, with "
            "independent noise in each channel, and bits are divided by 3072; three scales; five terms of the "
            "power series",
        ),
    ),
    "iresnet-cifar10": Preset(
        summary="The i-ResNet of the paper: five terms of the series, a biased figure, no claim to bits/dim",
        config={"image_shape": (3, 32, 32), **IRESNET_CONFIG},
        dataset="cifar10",
        recipe=_recipe("iresnet-cifar10"),
        published=Published(
            bpd=3.45,
            dataset="CIFAR-10, test",
            source=IRESNET,
            incomparable=("biased-logdet",),
            protocol="five terms of the power series, one normal probe; x - 1/2, no logit",
        ),
        parameters=25_028_544,
        parameters_note=COUNTED,
    ),
    "moons": Preset(
        summary="Two moons by eight blocks, with exact determinants",
        config={
            "dims": 2,
            "blocks": (8,),
            "channels": 64,
            "estimator": "exact",
            "coefficient": 0.97,
        },
        dataset="points:two-moons",
        recipe=_recipe("moons"),
    ),
    "checkerboard": Preset(
        summary="A checkerboard by twelve blocks, with unbiased determinants in training and evaluation",
        config={
            "dims": 2,
            "blocks": (12,),
            "channels": 64,
            "probe": "rademacher",
        },
        dataset="points:checkerboard",
        recipe=_recipe("checkerboard"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="residual",
    summary="Residual flows: i-ResNet and Residual Flow, blocks x + g(x) with a contracting g",
    config="flowzoo_residual.config:ResidualConfig",
    build="flowzoo_residual.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="behrmann2019invertible",
            title="Invertible Residual Networks",
            authors=(
                "Jens Behrmann",
                "Will Grathwohl",
                "Ricky T. Q. Chen",
                "David Duvenaud",
                "Jörn-Henrik Jacobsen",
            ),
            year=2019,
            venue="ICML 2019",
            arxiv="1811.00995",
        ),
        Citation(
            key="chen2019residual",
            title="Residual Flows for Invertible Generative Modeling",
            authors=("Ricky T. Q. Chen", "Jens Behrmann", "David Duvenaud", "Jörn-Henrik Jacobsen"),
            year=2019,
            venue="NeurIPS 2019",
            arxiv="1906.02735",
        ),
    ),
)
