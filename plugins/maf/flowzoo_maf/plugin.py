"""Masked autoregressive flows' entry in the zoo: presets, published figures, citations."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset, Published

SOURCE = "Papamakarios, Pavlakou and Murray 2017 (arXiv 1705.07057), table 3 of the appendix"
PROTOCOL = (
    "logit with alpha = 1e-6; noise drawn once for every image; 50,000 images to train, 10,000 to select"
)


def _recipe(name: str) -> str:
    return f"flowzoo_maf:recipes/{name}.toml"


def _published(bpd: float, data: str) -> Published:
    return Published(
        bpd=bpd, dataset=data, source=SOURCE, protocol=PROTOCOL, incomparable=("noise-drawn-once",)
    )


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={"image_shape": (1, 8, 8), "layers": 2, "hidden": (40,), "alpha": 0.05},
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="2x2 images of two bits: few enough to enumerate",
        config={"image_shape": (1, 2, 2), "n_bits": 2, "layers": 2, "hidden": (8,), "alpha": 0.05},
    ),
    "mnist": Preset(
        summary="Two MAF layers from independent pixels on, small enough for one core",
        config={
            "image_shape": (1, 28, 28),
            "layers": 2,
            "hidden": (512,),
            "direct": 32,
            "normalization": "actnorm",
            "log_scale_clip": 6.0,
            "base": "logistic",
            "input_bound": 8.0,
            "marginals": "histogram",
        },
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "mog-mnist": Preset(
        summary="A MADE with mixtures of five normals for each pixel, from independent pixels on",
        config={
            "image_shape": (1, 28, 28),
            "layers": 1,
            "hidden": (180,),
            "direct": 32,
            "mixture": 5,
            "input_bound": 8.0,
            "marginals": "histogram",
        },
        dataset="mnist",
        recipe=_recipe("mog-mnist"),
    ),
    "paper-mnist": Preset(
        summary="The paper's MAF of five layers",
        config={"image_shape": (1, 28, 28)},
        dataset="mnist",
        recipe=_recipe("paper-mnist"),
        published=_published(1.89, "MNIST, test"),
        parameters=17_311_040,
        parameters_note="Five MADEs of two hidden layers of 1024 units, and five batch norms; counted, not published.",
    ),
    "paper-mog-mnist": Preset(
        summary="The paper's MAF of five layers on a MADE with ten normals for each pixel (MAF MoG)",
        config={"image_shape": (1, 28, 28), "layers": 6, "mixture": 10, "mixture_layers": 1},
        dataset="mnist",
        recipe=_recipe("paper-mog-mnist"),
        published=_published(1.52, "MNIST, test"),
        parameters=43_272_480,
        parameters_note="The MAF's 17,311,040, and a MADE with thirty outputs for each pixel; counted, not published.",
    ),
    "made-mnist": Preset(
        summary="The paper's single MADE with normal conditionals",
        config={"image_shape": (1, 28, 28), "layers": 1, "normalization": "none"},
        dataset="mnist",
        recipe=_recipe("made-mnist"),
        published=_published(2.04, "MNIST, test"),
        parameters=3_460_640,
        parameters_note="Two hidden layers of 1024 units; counted, not published.",
    ),
    "smiley": Preset(
        summary="Two dimensions, mixtures to the uniform square: the exercise of the Berkeley lecture",
        config={
            "dims": 2,
            "layers": 2,
            "hidden": (64, 64),
            "mixture": 8,
            "base": "uniform",
            "activation": "tanh",
        },
        dataset="points:smiley",
        recipe=_recipe("points"),
    ),
    "moons": Preset(
        summary="Two moons by eight affine layers",
        config={
            "dims": 2,
            "layers": 8,
            "hidden": (64, 64),
            "normalization": "actnorm",
            "activation": "tanh",
            "log_scale_clip": 3.0,
        },
        dataset="points:two-moons",
        recipe=_recipe("points"),
    ),
    "iaf-moons": Preset(
        summary="The same with directions exchanged: fast samples, slow densities, not for maximum likelihood",
        config={
            "dims": 2,
            "layers": 4,
            "hidden": (32,),
            "normalization": "actnorm",
            "activation": "tanh",
            "log_scale_clip": 3.0,
            "inverse": True,
        },
        dataset="points:two-moons",
        recipe=_recipe("points"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="maf",
    summary="Masked autoregressive flows: MADE, MAF, mixtures, and inverse autoregressive flows",
    config="flowzoo_maf.config:MAFConfig",
    build="flowzoo_maf.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="papamakarios2017masked",
            title="Masked Autoregressive Flow for Density Estimation",
            authors=("George Papamakarios", "Theo Pavlakou", "Iain Murray"),
            year=2017,
            venue="NeurIPS 2017",
            arxiv="1705.07057",
        ),
        Citation(
            key="germain2015made",
            title="MADE: Masked Autoencoder for Distribution Estimation",
            authors=("Mathieu Germain", "Karol Gregor", "Iain Murray", "Hugo Larochelle"),
            year=2015,
            venue="ICML 2015",
            arxiv="1502.03509",
        ),
        Citation(
            key="kingma2016improved",
            title="Improving Variational Inference with Inverse Autoregressive Flow",
            authors=(
                "Diederik P. Kingma",
                "Tim Salimans",
                "Rafal Jozefowicz",
                "Xi Chen",
                "Ilya Sutskever",
                "Max Welling",
            ),
            year=2016,
            venue="NeurIPS 2016",
            arxiv="1606.04934",
        ),
    ),
)
