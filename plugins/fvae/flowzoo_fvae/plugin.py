"""f-VAE's entry in the zoo: presets and citations."""

from __future__ import annotations

from flowzoo.api import Architecture, Citation, Preset


def _recipe(name: str) -> str:
    return f"flowzoo_fvae:recipes/{name}.toml"


PRESETS = {
    "tiny": Preset(
        summary="8x8 images, for tests and documentation",
        config={
            "image_shape": (1, 8, 8),
            "encoder_levels": 2,
            "blocks": 1,
            "widths": (4, 8),
            "latent_channels": 4,
            "levels": 2,
            "depth": 1,
            "hidden_channels": 8,
        },
        recipe=_recipe("tiny"),
    ),
    "toy": Preset(
        summary="2x2 images of two bits: few enough to enumerate",
        config={
            "image_shape": (1, 2, 2),
            "n_bits": 2,
            "encoder_levels": 1,
            "blocks": 1,
            "latent_channels": 2,
            "levels": 1,
            "depth": 2,
            "hidden_channels": 8,
        },
    ),
    "mnist": Preset(
        summary="A latent of 196 numbers and a mixture of logistics for each pixel, for one core",
        config={
            "image_shape": (1, 28, 28),
            "encoder_levels": 2,
            "blocks": 2,
            "widths": (32, 64),
            "latent_channels": 4,
            "normalization": "none",
            "encoder_scale": "element",
            "decoder": "mixture",
            "levels": 1,
            "depth": 8,
            "hidden_channels": 64,
            "coupling": "affine",
            "permutation": "dense",
            "preprocessing": "logit",
            "dequantization": "variational",
        },
        dataset="mnist",
        recipe=_recipe("mnist"),
    ),
    "celebahq128": Preset(
        summary="The authors' model of faces, with uniform noise; theirs has none, so its density gives no bits/dim",
        config={"image_shape": (3, 128, 128)},
        recipe=_recipe("celebahq128"),
    ),
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="fvae",
    summary="A variational autoencoder as an augmented flow: encoder, decoder, and a Glow as the prior of its latent",
    config="flowzoo_fvae.config:FVAEConfig",
    build="flowzoo_fvae.model:build",
    presets=PRESETS,
    citations=(
        Citation(
            key="su2018fvaes",
            title="f-VAEs: Improve VAEs with Conditional Flows",
            authors=("Jianlin Su", "Guang Wu"),
            year=2018,
            venue="arXiv",
            arxiv="1809.05861",
        ),
        Citation(
            key="huang2020augmented",
            title="Augmented Normalizing Flows: Bridging the Gap Between Generative Flows and Latent Variable Models",
            authors=("Chin-Wei Huang", "Laurent Dinh", "Aaron Courville"),
            year=2020,
            venue="arXiv",
            arxiv="2002.07101",
        ),
    ),
)
