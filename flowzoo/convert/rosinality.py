"""The layout of rosinality/glow-pytorch.

Its Glow has plain convolutions with biases in the networks, zero convolutions that pad with ones, scales in place of
log-scales in the ActNorm, log-scales before shifts, and as top prior a zero convolution of an image of zeros. Padding
with ones is our edge bias with the sum of the weights over the input channels; the top prior is then one mean and
log-scale per element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from flowzoo.bijectors import InvertibleConv1x1LU
from flowzoo.convert.glow_parts import NETWORK_FACTOR, GlowTarget, Step, even_number, is_affine, lu_matrix
from flowzoo.convert.layout import Converted, Layout, Options, image_shape_of, n_bits_of
from flowzoo.convert.tensors import Tensors

NAME = "rosinality/glow-pytorch"


def convert(source: Tensors, options: Options) -> Converted:
    """Converts a checkpoint; the image's height and width and the bits are the user's to give."""
    levels = source.count("blocks.")
    depth = source.count("blocks.0.flows.")
    anchor = "blocks.0.flows.0.actnorm.loc"
    squeezed = source.size(anchor, 1)
    channels = even_number(source, anchor, squeezed, 4)
    last = "blocks.0.flows.0.coupling.net.4.conv.weight"
    affine = is_affine(source, last, source.size(last, 0), squeezed)
    # The last block of the source is LU-decomposed whatever was asked for; a mixture becomes dense.
    convolutions = source.names(r"blocks\.\d+\.flows\.\d+\.invconv\.weight$")
    target = GlowTarget(
        {
            "image_shape": image_shape_of(source, options, channels),
            "n_bits": n_bits_of(source, options),
            "levels": levels,
            "depth": depth,
            "hidden_channels": source.size("blocks.0.flows.0.coupling.net.0.weight", 0),
            "coupling": "affine" if affine else "additive",
            "layout": "halves",
            "permutation": "dense" if convolutions else "lu",
            "net_normalization": "none",
            "learn_top": "element",
        }
    )
    for step in target.steps():
        _put_step(source, target, step)
    for level, prior in enumerate(target.priors()):
        kept = 2 * channels * 2**level
        target.put_conv(prior, *_zero_conv(source, f"blocks.{level}.prior", kept, 2 * kept))
    _put_top(source, target)
    return target.finish()


def _put_step(source: Tensors, target: GlowTarget, step: Step) -> None:
    c, hidden = step.channels, target.config["hidden_channels"]
    affine = target.config["coupling"] == "affine"
    prefix = f"blocks.{step.level}.flows.{step.index}"
    if f"{prefix}.actnorm.initialized" in source:  # its first version has no flag
        source.take_flag(f"{prefix}.actnorm.initialized")
    scale = source.take_scale(f"{prefix}.actnorm.scale", 1, c, 1, 1).flatten()
    target.put_actnorm(step.actnorm, source.take(f"{prefix}.actnorm.loc", 1, c, 1, 1), torch.log(scale.abs()))
    # Our scales are positive; the convolution takes over the signs.
    _put_mixing(source, target, step, torch.sign(scale))
    net = f"{prefix}.coupling.net"
    target.put_conv(
        step.net.first,
        source.take(f"{net}.0.weight", hidden, c // 2, 3, 3),
        source.take(f"{net}.0.bias", hidden),
    )
    target.put_conv(
        step.net.second,
        source.take(f"{net}.2.weight", hidden, hidden, 1, 1),
        source.take(f"{net}.2.bias", hidden),
    )
    outputs = c if affine else c // 2
    # The source has log-scales, then shifts; ours are the other way round.
    last = _zero_conv(source, f"{net}.4", hidden, outputs)
    target.put_conv(step.net.last, *((tensor.roll(outputs // 2, 0) for tensor in last) if affine else last))


def _put_mixing(source: Tensors, target: GlowTarget, step: Step, sign: Tensor) -> None:
    c = step.channels
    prefix = f"blocks.{step.level}.flows.{step.index}.invconv"
    if f"{prefix}.weight" in source:
        weight = source.take_invertible(f"{prefix}.weight", c, c, 1, 1)
        target.put(step.mixing, weight=weight * sign)
        return
    source.skip(f"{prefix}.{name}" for name in ("u_mask", "l_mask", "l_eye"))
    p, s_sign = source.take_permutation(f"{prefix}.w_p", c), source.take_signs(f"{prefix}.s_sign", c)
    lower, upper = (source.take(f"{prefix}.{name}", c, c) for name in ("w_l", "w_u"))
    log_diagonal = source.take(f"{prefix}.w_s", c)
    matrix = source.check_invertible(lu_matrix(p, lower, upper, s_sign, log_diagonal), f"{prefix}.w_s")
    if isinstance(step.mixing, InvertibleConv1x1LU):
        target.put(
            step.mixing,
            permutation=p,
            lower=torch.tril(lower, -1),
            upper=torch.triu(upper, 1) * sign,
            sign=s_sign * sign,
            log_diagonal=log_diagonal,
        )
    else:
        target.put(step.mixing, weight=matrix * sign)


def _zero_conv(source: Tensors, prefix: str, inputs: int, outputs: int) -> tuple[Tensor, ...]:
    """Weight, bias, log-scale and edge weight of a convolution that pads with ones."""
    weight = source.take(f"{prefix}.conv.weight", outputs, inputs, 3, 3)
    bias = source.take(f"{prefix}.conv.bias", outputs)
    log_scale = NETWORK_FACTOR * source.take(f"{prefix}.scale", 1, outputs, 1, 1).flatten()
    return weight, bias, log_scale, weight.sum(dim=1, keepdim=True)


def _put_top(source: Tensors, target: GlowTarget) -> None:
    config = target.config
    image_channels, height, width = config["image_shape"]
    channels, shrink = 2 * image_channels * 2 ** config["levels"], 2 ** config["levels"]
    weight, bias, log_scale, _ = _zero_conv(
        source, f"blocks.{config['levels'] - 1}.prior", channels, 2 * channels
    )
    padded = torch.zeros(1, channels, height // shrink, width // shrink, dtype=weight.dtype)
    padded = torch.nn.functional.pad(padded, (1, 1, 1, 1), value=1.0)
    out = torch.nn.functional.conv2d(padded, weight, bias)[0] * torch.exp(log_scale)[:, None, None]
    mean, top_log_scale = out.chunk(2)
    target.put_top(mean, top_log_scale)


def notes(tensors: Mapping[str, Tensor], options: Options) -> Iterator[str]:
    """The assumption that no tensor confirms."""
    yield (
        "Taken for a model trained with the code of 2020-10-07 or later, which rounds images to their bits. The code "
        "before it added the noise to images that were not rounded; nothing in a checkpoint tells the two apart, and "
        "the density of integers computed here is not what such a model was trained for."
    )


LAYOUT = Layout(
    name=NAME,
    example="blocks.0.flows.0.actnorm.loc",
    signature=r"blocks\.\d+\.flows\.\d+\.(actnorm|invconv|coupling)\.",
    options=frozenset({"n_bits"}),
    convert=convert,
    notes=notes,
)
