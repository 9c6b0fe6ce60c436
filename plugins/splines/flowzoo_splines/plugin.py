"""Spline flows' entry in the zoo: presets and citations. Torch-free."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset, Published

__all__ = ["ARCHITECTURE"]


def _recipe(name: str) -> str:
    return f"flowzoo_splines:recipes/{name}.toml"


_NIS = {
    "space": "cube",
    "bins": 32,
    "steps": 4,
    "vector_network": "unet",
    "features": 256,
    "hidden_layers": 3,
    "one_blob": 32,
}

_CUBE_MNIST = {
    "image_shape": (1, 28, 28),
    "space": "cube",
    "histogram": True,
    "bins": 8,
    "levels": 2,
    "steps": 4,
    "pixel_couplings": 4,
    "features": 64,
}

_PRESETS = {
    "tiny": Preset(
        summary="Rational-quadratic splines on 8x8 images: for tests and documentation",
        config={"image_shape": (1, 8, 8), "features": 8, "bins": 4, "steps": 2},
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="Piecewise-quadratic splines on 2x2 images of one bit, in the unit cube: few enough to enumerate",
        config={
            "image_shape": (1, 2, 2),
            "n_bits": 1,
            "space": "cube",
            "spline": "quadratic",
            "histogram": True,
            "features": 6,
            "bins": 4,
            "levels": 1,
            "steps": 2,
            "pixel_couplings": 1,
        },
    ),
    "mnist": Preset(
        summary="Rational-quadratic splines in the unit cube on MNIST, plain convolutions: trains on a laptop core",
        config={"spline": "rational-quadratic", **_CUBE_MNIST},
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "quadratic-mnist": Preset(
        summary="The same with neural importance sampling's piecewise-quadratic splines",
        config={"spline": "quadratic", **_CUBE_MNIST},
        dataset="mnist",
        recipe=_recipe("quadratic-mnist"),
    ),
    "line-mnist": Preset(
        summary="Rational-quadratic splines on the line after a logit, the layout of NSF's image models",
        config={
            "image_shape": (1, 28, 28),
            "logit_alpha": 1e-5,
            "tail_bound": 12.0,
            "bins": 8,
            "levels": 2,
            "steps": 6,
            "features": 64,
        },
        dataset="mnist",
        recipe=_recipe("line-mnist"),
    ),
    "cifar10": Preset(
        summary="RQ-NSF (C), the paper's CIFAR-10 model: three levels of seven steps, four bins",
        config={
            "image_shape": (3, 32, 32),
            "spline": "rational-quadratic",
            "bins": 4,
            "tail_bound": 3.0,
            "levels": 3,
            "steps": 7,
            "factor_out": False,
            "network": "resnet",
            "features": 96,
            "residual_blocks": 3,
            "dropout": 0.2,
        },
        dataset="cifar10",
        recipe=_recipe("cifar10"),
        published=Published(
            bpd=3.38,
            dataset="CIFAR-10, test",
            source="Durkan et al. 2019 (arXiv 1906.04032), RQ-NSF (C); affine couplings in the same model 3.41",
            protocol="uniform dequantization, one noise sample, horizontal flips in training, model of the last step",
            incomparable=("one-sample",),
        ),
        parameters=11_800_000,
        parameters_note=(
            "As tabulated in the paper. The released configuration, without factoring out, has 11,835,054; 11,833,038 "
            "here, 2,016 fewer: the biases of its 1x1 convolutions, 8 (12 + 48 + 192), all but the last of which an "
            "ActNorm or another convolution follows."
        ),
    ),
    "points": Preset(
        summary="Rational-quadratic splines on two moons",
        config={"dims": 2, "bins": 8, "steps": 6, "features": 64, "tail_bound": 3.0},
        dataset="points:two-moons",
        recipe=_recipe("points"),
    ),
    "quadratic-points": Preset(
        summary="Neural importance sampling's piecewise-quadratic couplings of 32 bins on a checkerboard",
        config={"dims": 2, "spline": "quadratic", **_NIS},
        dataset="points:checkerboard",
        recipe=_recipe("quadratic-points"),
    ),
    "linear-points": Preset(
        summary="Neural importance sampling's piecewise-linear couplings of 32 bins on a checkerboard",
        config={"dims": 2, "spline": "linear", **_NIS},
        dataset="points:checkerboard",
        recipe=_recipe("linear-points"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="splines",
    summary="Couplings by piecewise-linear, piecewise-quadratic and rational-quadratic splines",
    config="flowzoo_splines.config:SplinesConfig",
    build="flowzoo_splines.model:build",
    presets=_PRESETS,
    citations=(
        Citation(
            key="durkan2019neural",
            title="Neural Spline Flows",
            authors=("Conor Durkan", "Artur Bekasov", "Iain Murray", "George Papamakarios"),
            year=2019,
            venue="Advances in Neural Information Processing Systems",
            arxiv="1906.04032",
        ),
        Citation(
            key="mueller2019neural",
            title="Neural Importance Sampling",
            authors=(
                "Thomas Mueller",
                "Brian McWilliams",
                "Fabrice Rousselle",
                "Markus Gross",
                "Jan Novak",
            ),
            year=2019,
            venue="ACM Transactions on Graphics",
            arxiv="1808.03856",
        ),
    ),
)
