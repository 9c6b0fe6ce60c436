"""The layout of chrischute/glow.

Its Glow works on logits, transforms the first half of the channels by (x + t) exp(g tanh(s)), has batch norm before
each convolution of the networks and no learned prior. It squeezes before it factors out, which in its channel order
is the same as after. Trained batch norms are affine: the first stays before the convolution with its ReLU, the other
two go into the convolutions that they follow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.bijectors import ScaleMap
from flowzoo.convert.glow_parts import GlowTarget, Step, even_number
from flowzoo.convert.layout import Converted, Layout, Options, image_shape_of
from flowzoo.convert.logits import logit_alpha
from flowzoo.convert.tensors import Tensors

NAME = "chrischute/glow"
BATCH_NORM_EPS = 1e-5


def convert(source: Tensors, options: Options) -> Converted:
    """Converts a checkpoint; the image's height and width are the user's to give."""
    levels = 1 + max((name.count("next.") for name in source.names(r"flows\.(next\.)*steps\.")), default=0)
    anchor = "flows.steps.0.norm.bias"
    squeezed = source.size(anchor, 1)
    target = GlowTarget(
        {
            "image_shape": image_shape_of(source, options, even_number(source, anchor, squeezed, 4)),
            "levels": levels,
            "depth": source.count("flows.steps."),
            "hidden_channels": source.size("flows.steps.0.coup.nn.in_conv.weight", 0),
            "scale_map": "tanh",
            "net_normalization": "none",
            "edge_bias": False,
            "learn_prior": False,
            "learn_top": "none",
            "preprocessing": "logit",
            "alpha": logit_alpha(source, "bounds"),
            "transformed_half": "first",
            "network_input": "rectified",
        }
    )
    for step in target.steps():
        _put_step(source, target, step)
    return target.finish()


def _put_step(source: Tensors, target: GlowTarget, step: Step) -> None:
    c, half = step.channels, step.channels // 2
    at = f"flows.{'next.' * step.level}steps.{step.index}"
    source.take_flag(f"{at}.norm.is_initialized")
    bias, log_scale = (source.take(f"{at}.norm.{name}", 1, c, 1, 1) for name in ("bias", "logs"))
    target.put_actnorm(step.actnorm, bias, log_scale)
    target.put(step.mixing, weight=source.take_invertible(f"{at}.conv.weight", c, c))
    (scale_map,) = target.all(ScaleMap, step.coupling)
    target.put(scale_map, bound=source.take(f"{at}.coup.scale", half, 1, 1))
    _put_network(source, target, step, f"{at}.coup.nn")


def _put_network(source: Tensors, target: GlowTarget, step: Step, at: str) -> None:
    c, half, hidden = step.channels, step.channels // 2, target.config["hidden_channels"]
    scale, shift = _batch_norm(source, f"{at}.in_norm", half)
    assert step.net.rectify is not None
    target.put(step.net.rectify, weight=scale, bias=shift)
    for layer, conv, norm, inputs, kernel in (
        (step.net.first, "in_conv", "mid_norm", half, 3),
        (step.net.second, "mid_conv", "out_norm", hidden, 1),
    ):
        weight = source.take(f"{at}.{conv}.weight", hidden, inputs, kernel, kernel)
        scale, shift = _batch_norm(source, f"{at}.{norm}", hidden)
        target.put_conv(layer, weight * scale[:, None, None, None], shift)
    # Even outputs are log-scales and odd ones shifts in the source, and the other way round here.
    swap = torch.arange(c).view(-1, 2).flip(1).flatten()
    weight = source.take(f"{at}.out_conv.weight", c, hidden, 3, 3)
    target.put_conv(step.net.last, weight[swap], source.take(f"{at}.out_conv.bias", c)[swap])


def _batch_norm(source: Tensors, at: str, channels: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of a trained batch norm."""
    weight, bias, mean, var = (
        source.take(f"{at}.{name}", channels) for name in ("weight", "bias", "running_mean", "running_var")
    )
    source.skip([f"{at}.num_batches_tracked"])
    scale = weight * torch.rsqrt(var + BATCH_NORM_EPS)
    return scale, bias - mean * scale


LAYOUT = Layout(
    name=NAME,
    example="flows.steps.0.norm.logs",
    signature=r"flows\.(next\.)*steps\.\d+\.(norm|conv|coup)\.",
    convert=convert,
)
