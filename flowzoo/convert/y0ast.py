"""The layout of y0ast/Glow-PyTorch.

Its Glow is OpenAI's without the edge bias and without the factor 3 on ActNorm's log-scales; the top prior is one mean
and log-scale per channel. The last level's height and width are in the checkpoint as the shape of ``prior_h``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from flowzoo.bijectors import InvertibleConv1x1LU, Permutation
from flowzoo.convert.glow_parts import (
    NETWORK_FACTOR,
    GlowTarget,
    Step,
    chosen_label,
    even_number,
    is_affine,
    lu_matrix,
    refuse_label,
)
from flowzoo.convert.layout import Converted, Layout, Options
from flowzoo.convert.tensors import Tensors
from flowzoo.errors import InputError
from flowzoo.nets.conv import ActNormConv2d

NAME = "y0ast/Glow-PyTorch"
N_BITS = 8
"""Written into the source's data loading."""

LAYERS = "flow.layers."


def convert(source: Tensors, options: Options) -> Converted:
    """Converts a checkpoint."""
    steps = source.indices(LAYERS, ".actnorm.")
    levels = len(source.indices(LAYERS, ".conv.")) + 1
    if not steps or len(steps) % levels:
        raise InputError(
            f"the checkpoint has {len(steps)} flow steps ('{LAYERS}N.actnorm...') and {levels - 1} splits "
            f"('{LAYERS}N.conv...'); the layout {NAME} has as many steps on each of its levels."
        )
    depth = len(steps) // levels
    last = f"{LAYERS}1.block.4.conv.weight"
    anchor = f"{LAYERS}1.actnorm.bias"
    squeezed = source.size(anchor, 1)
    affine = is_affine(source, last, source.size(last, 0), squeezed)
    channels = even_number(source, anchor, squeezed, 4)
    prior = _top_prior(source, options, 2 * channels * 2**levels)
    config: dict[str, Any] = {
        "image_shape": _image_shape(source, options, channels, levels),
        "n_bits": _n_bits(options),
        "levels": levels,
        "depth": depth,
        "hidden_channels": source.size(f"{LAYERS}1.block.0.conv.weight", 0),
        "coupling": "affine" if affine else "additive",
        "permutation": _permutation(source, options),
        "edge_bias": False,
        "learn_top": "none" if prior is None else "channel",
    }
    target = GlowTarget(config)
    for step in target.steps():
        _put_step(source, target, step, f"{LAYERS}{step.level * (depth + 2) + 1 + step.index}")
    for level, net in enumerate(target.priors()):
        kept = 2 * channels * 2**level
        at = f"{LAYERS}{level * (depth + 2) + depth + 1}.conv"
        target.put_conv(net, *_zero_conv(source, at, kept, 2 * kept))
    if prior is not None:
        mean, log_scale = prior.chunk(2)
        target.put_top(mean, log_scale)
    return target.finish()


def _n_bits(options: Options) -> int:
    """Eight, which is all that the source computes rightly."""
    if options.n_bits not in (None, N_BITS):
        raise InputError(
            f"--n-bits is {options.n_bits}; checkpoints of {NAME} can only be converted with {N_BITS}. With fewer, the "
            "source still adds noise of 1/256 and subtracts 8 bits per value, so that what it trains and prints is no "
            "probability of the images; there is no model here that computes the same."
        )
    return N_BITS


def _image_shape(source: Tensors, options: Options, channels: int, levels: int) -> tuple[int, int, int]:
    top = channels * 2 ** (levels + 1)
    height, width = source.take("prior_h", 1, 2 * top, -1, -1).shape[2:]
    shape = (channels, height * 2**levels, width * 2**levels)
    if options.image_shape not in (None, shape):
        raise InputError(
            f"--image-shape is {options.image_shape}; 'prior_h' (layout {NAME}) is of a model for {shape}. "
            "Leave --image-shape out."
        )
    return shape


def _permutation(source: Tensors, options: Options) -> str:
    if f"{LAYERS}1.invconv.weight" in source:
        found = "dense"
    elif source.names(r"flow\.layers\.\d+\.invconv\."):
        found = "lu"
    elif options.permutation is None:
        raise InputError(
            f"the checkpoint has no tensor '{LAYERS}1.invconv...'. The layout {NAME} then reverses the channels, "
            "for which give --permutation reverse, or shuffles them in an order that it does not save: such a "
            "model cannot be had from its checkpoint."
        )
    else:
        return options.permutation
    if options.permutation is not None:
        raise InputError(
            f"--permutation was given, and the checkpoint of {NAME} has invertible convolutions."
        )
    return found


def _put_step(source: Tensors, target: GlowTarget, step: Step, at: str) -> None:
    c, hidden = step.channels, target.config["hidden_channels"]
    affine = target.config["coupling"] == "affine"
    target.put_actnorm(step.actnorm, *_actnorm(source, f"{at}.actnorm", c))
    _put_mixing(source, target, step, f"{at}.invconv")
    first, second = step.net.first, step.net.second
    assert isinstance(first, ActNormConv2d)
    assert isinstance(second, ActNormConv2d)
    weight = source.take(f"{at}.block.0.conv.weight", hidden, c // 2, 3, 3)
    target.put_conv(first, weight, *_actnorm(source, f"{at}.block.0.actnorm", hidden))
    weight = source.take(f"{at}.block.2.conv.weight", hidden, hidden, 1, 1)
    target.put_conv(second, weight, *_actnorm(source, f"{at}.block.2.actnorm", hidden))
    outputs = c if affine else c // 2
    target.put_conv(step.net.last, *_zero_conv(source, f"{at}.block.4", hidden, outputs))


def _put_mixing(source: Tensors, target: GlowTarget, step: Step, at: str) -> None:
    c = step.channels
    if isinstance(step.mixing, Permutation):
        target.put(step.mixing, indices=torch.arange(c - 1, -1, -1))
    elif isinstance(step.mixing, InvertibleConv1x1LU):
        p, sign = source.take_permutation(f"{at}.p", c), source.take_signs(f"{at}.sign_s", c)
        lower, upper = (source.take(f"{at}.{name}", c, c) for name in ("lower", "upper"))
        log_diagonal = source.take(f"{at}.log_s", c)
        source.check_invertible(lu_matrix(p, lower, upper, sign, log_diagonal), f"{at}.log_s")
        target.put(
            step.mixing,
            permutation=p,
            lower=torch.tril(lower, -1),
            upper=torch.triu(upper, 1),
            sign=sign,
            log_diagonal=log_diagonal,
        )
    else:
        target.put(step.mixing, weight=source.take_invertible(f"{at}.weight", c, c))


def _actnorm(source: Tensors, at: str, channels: int) -> tuple[Tensor, Tensor]:
    """Bias and log-scale."""
    bias, log_scale = (source.take(f"{at}.{name}", 1, channels, 1, 1) for name in ("bias", "logs"))
    return bias.flatten(), log_scale.flatten()


def _zero_conv(source: Tensors, at: str, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, bias and log-scale of a zero-initialized convolution."""
    weight = source.take(f"{at}.conv.weight", outputs, inputs, 3, 3)
    bias = source.take(f"{at}.conv.bias", outputs)
    return weight, bias, NETWORK_FACTOR * source.take(f"{at}.logs", outputs, 1, 1).flatten()


def _top_prior(source: Tensors, options: Options, channels: int) -> Tensor | None:
    """Means and log-scales of the last level's prior, ``(2 C,)``; None if it is standard."""
    prior = None
    if source.names("learn_top_fn"):
        # The convolution sees zeros, padded with zeros: its bias is all that it gives.
        _, bias, log_scale = _zero_conv(source, "learn_top_fn", 2 * channels, 2 * channels)
        prior = bias * torch.exp(log_scale)
    if not source.names("project_ycond"):
        refuse_label(source, options)
        return prior
    name = "project_ycond.linear.weight"
    classes = source.size(name, 1)
    label = chosen_label(source, options, name, classes)
    weight = source.take(name, 2 * channels, classes)
    bias = source.take("project_ycond.linear.bias", 2 * channels)
    scale = torch.exp(NETWORK_FACTOR * source.take("project_ycond.logs", 2 * channels))
    source.skip(source.names("project_class"))
    shift = (weight[:, label] + bias) * scale
    return shift if prior is None else prior + shift


def notes(tensors: Mapping[str, Tensor], options: Options) -> Iterator[str]:
    """The assumption that no tensor confirms."""
    yield (
        f"Taken for a model of {N_BITS} bits per value, as in the source's data loading. A model trained with fewer "
        "cannot be converted, and nothing in its checkpoint says so."
    )


LAYOUT = Layout(
    name=NAME,
    example=f"{LAYERS}1.actnorm.logs",
    signature=r"flow\.layers\.\d+\.(actnorm|invconv|block)\.",
    options=frozenset({"n_bits", "label", "permutation"}),
    convert=convert,
    notes=notes,
)
