"""The plugin's metadata. Torch-free."""

from __future__ import annotations

from typing import Any

from flowzoo.api import Architecture, Citation, Preset, Published

__all__ = ["ARCHITECTURE"]

CITATION = Citation(
    key="ho2019flowpp",
    title=(
        "Flow++: Improving Flow-Based Generative Models with Variational Dequantization "
        "and Architecture Design"
    ),
    authors=("Jonathan Ho", "Xi Chen", "Aravind Srinivas", "Yan Duan", "Pieter Abbeel"),
    year=2019,
    venue="International Conference on Machine Learning",
    arxiv="1902.00275",
)

TINY: dict[str, Any] = {
    "image_shape": (1, 8, 8),
    "n_bits": 8,
    "groups": ("checkerboard:2", "squeeze", "channel:2", "columns:1"),
    "filters": 8,
    "blocks": 1,
    "heads": 2,
    "components": 4,
    "dropout": 0.1,
    "permutation": "halves",
    "dequantization_groups": ("columns:2",),
    "dequantization_filters": 8,
    "dequantization_blocks": 1,
    "dequantization_heads": 2,
    "context_channels": 8,
    "context_blocks": 1,
    "context_norm": True,
}

TOY: dict[str, Any] = {
    **TINY,
    "image_shape": (1, 2, 2),
    "n_bits": 1,
    "groups": ("checkerboard:2", "squeeze", "channel:2"),
}

MNIST: dict[str, Any] = {
    "image_shape": (1, 28, 28),
    "n_bits": 8,
    "alpha": 1e-5,
    "groups": ("squeeze", "channel:8", "factor", "squeeze", "channel:8"),
    "network": "conv",
    "filters": 64,
    "components": 4,
    "normalization": "channel",
    "permutation": "full",
    "prior": "conditional",
    "dequantization_groups": ("squeeze", "channel:4"),
    "dequantization_filters": 32,
    "context_channels": 16,
    "context_blocks": 1,
}

CIFAR10: dict[str, Any] = {
    "image_shape": (3, 32, 32),
    "n_bits": 8,
    "alpha": 0.05,
    "groups": ("columns:4", "squeeze", "channel:2", "columns:3"),
    "filters": 96,
    "blocks": 10,
    "heads": 4,
    "components": 32,
    "dropout": 0.2,
    "output_activation": False,
    "permutation": "halves",
    "dequantization_groups": ("columns:4",),
    "dequantization_filters": 96,
    "dequantization_blocks": 2,
    "dequantization_heads": 4,
    "context_channels": 32,
    "context_blocks": 3,
}

IMAGENET32: dict[str, Any] = {
    "image_shape": (3, 32, 32),
    "n_bits": 8,
    "alpha": 0.05,
    "groups": ("columns:4", "columns:3", "squeeze", "channel:3", "columns:3"),
    "filters": 128,
    "blocks": 20,
    "heads": 4,
    "components": 32,
    "weight_norm": True,
    "dequantization_groups": ("columns:4", "columns:4"),
    "dequantization_filters": 128,
    "dequantization_blocks": 8,
    "dequantization_heads": 4,
    "context_channels": 32,
    "context_blocks": 8,
    "context_heads": 4,
    "context_norm": True,
}

IMAGENET64: dict[str, Any] = {
    "image_shape": (3, 64, 64),
    "n_bits": 8,
    "alpha": 0.05,
    "groups": (
        "squeeze",
        "columns:4",
        "squeeze",
        "channel:2",
        "columns:2",
        "squeeze",
        "channel:2",
        "columns:2",
    ),
    "filters": 96,
    "blocks": 16,
    "heads": 4,
    "components": 4,
    "dequantization_groups": ("columns:4",),
    "dequantization_filters": 96,
    "dequantization_blocks": 5,
    "dequantization_heads": 0,
    "context_channels": 32,
    "context_blocks": 5,
    "context_norm": True,
}

ARCHITECTURE = Architecture(
    api_version=2,
    name="flowpp",
    summary="Flow++: variational dequantization, mixture-of-logistics couplings, gated self-attention",
    config="flowzoo_flowpp.config:FlowppConfig",
    build="flowzoo_flowpp.model:build",
    presets={
        "tiny": Preset(
            summary="8x8 images: every part of the architecture, for tests",
            config=TINY,
            recipe="flowzoo_flowpp:recipes/tiny.toml",
        ),
        "toy": Preset(summary="2x2 images of one bit: all 16 can be enumerated", config=TOY),
        "mnist": Preset(
            summary="two scales of plain convolutions and mixtures of 4 logistics, sized for one CPU core",
            config=MNIST,
            dataset="mnist",
            recipe="flowzoo_flowpp:recipes/mnist.toml",
        ),
        "cifar10": Preset(
            summary="the paper's CIFAR-10 model",
            config=CIFAR10,
            dataset="cifar10",
            recipe="flowzoo_flowpp:recipes/cifar10.toml",
            published=Published(
                bpd=3.08,
                dataset="CIFAR-10 test",
                source="Flow++ (arXiv 1902.00275), Table 1; some later tables quote 3.09",
                protocol="variational dequantization, 4096 importance samples, 10,000 images, EMA weights",
            ),
            parameters=31_443_440,
            parameters_note="Header of the official flows/run_cifar.py; equal to the last parameter.",
        ),
        "imagenet32": Preset(
            summary="the paper's ImageNet 32x32 model, weight-normalized",
            config=IMAGENET32,
            dataset="imagenet32-oord",
            recipe="flowzoo_flowpp:recipes/imagenet32.toml",
            published=Published(
                bpd=3.86,
                dataset="ImageNet 32x32 (PixelRNN release) validation",
                source="Flow++ (arXiv 1902.00275), Table 1",
                protocol="variational dequantization; the released code draws one sample, EMA weights",
                incomparable=("one-sample",),
            ),
            parameters=168_955_724,
            parameters_note="Header of the official imagenet32_official.py; equal to the last parameter.",
        ),
        "imagenet64": Preset(
            summary="the paper's ImageNet 64x64 model",
            config=IMAGENET64,
            dataset="imagenet64-oord",
            recipe="flowzoo_flowpp:recipes/imagenet64.toml",
            published=Published(
                bpd=3.69,
                dataset="ImageNet 64x64 (PixelRNN release) validation",
                source="Flow++ (arXiv 1902.00275), Table 1",
                protocol="variational dequantization; the released code draws one sample, EMA weights",
                incomparable=("one-sample",),
            ),
            parameters=73_489_960,
            parameters_note=(
                "Header of the official imagenet64_official.py; equal to the last parameter. 786,432 of "
                "them are position embeddings that the official dequantizer never reads; here they join "
                "its projected input."
            ),
        ),
        "celeba64": Preset(
            summary="the official 5-bit CelebA 64x64 model (samples only in the paper)",
            config={**IMAGENET64, "n_bits": 5},
            dataset="celeba64",
            recipe="flowzoo_flowpp:recipes/celeba64.toml",
            parameters=73_489_960,
            parameters_note=(
                "Header of the official celeba64_5bit_official.py; equal to the last parameter. No bits per "
                "dimension were published for it."
            ),
        ),
    },
    citations=(CITATION,),
)
