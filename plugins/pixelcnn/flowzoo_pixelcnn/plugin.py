"""PixelCNN's entry in the zoo: presets and citations."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset


def _recipe(name: str) -> str:
    return f"flowzoo_pixelcnn:recipes/{name}.toml"


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={"image_shape": (1, 8, 8), "features": 8, "dilations": (1, 2)},
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="2x2 images of two bits: few enough to enumerate",
        config={"image_shape": (1, 2, 2), "n_bits": 2, "features": 4, "dilations": (1,)},
    ),
    "mnist": Preset(
        summary="Eight gated blocks for one core; discrete, so that its bits are exact",
        config={"image_shape": (1, 28, 28)},
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "cifar10": Preset(
        summary="Twelve gated blocks for one core",
        config={
            "image_shape": (3, 32, 32),
            "conditional": "logistics",
            "features": 96,
            "dilations": (1, 1, 2, 1, 1, 4, 1, 1, 2, 1, 1, 1),
        },
        dataset="cifar10",
        recipe=_recipe("cifar10"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="pixelcnn",
    summary="PixelCNN as a flow: each grey level by its own distribution function, given the pixels before",
    config="flowzoo_pixelcnn.config:PixelCNNConfig",
    build="flowzoo_pixelcnn.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="oord2016pixelcnn",
            title="Conditional Image Generation with PixelCNN Decoders",
            authors=(
                "Aaron van den Oord",
                "Nal Kalchbrenner",
                "Oriol Vinyals",
                "Lasse Espeholt",
                "Alex Graves",
                "Koray Kavukcuoglu",
            ),
            year=2016,
            venue="NeurIPS 2016",
            arxiv="1606.05328",
        ),
        Citation(
            key="salimans2017pixelcnnpp",
            title="PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood "
            "and Other Modifications",
            authors=("Tim Salimans", "Andrej Karpathy", "Xi Chen", "Diederik P. Kingma"),
            year=2017,
            venue="ICLR 2017",
            arxiv="1701.05517",
        ),
    ),
)
