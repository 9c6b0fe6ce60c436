"""The layout of openai/glow: TensorFlow variables by name, from an .npz with one array a variable.

Our Glow is modelled on it. Left to do: kernels are (height, width, in, out), images are channels last, a matrix
multiplies from the right, the padding's indicator is the last input channel, and the top prior is a convolution that
sees nothing but that indicator, hence one mean and log-scale per element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from flowzoo.bijectors import Permutation
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
from flowzoo.convert.layout import Converted, Layout, Options, image_shape_of, n_bits_of
from flowzoo.convert.tensors import Tensors, mapped
from flowzoo.errors import InputError

NAME = "openai/glow"
AVERAGE = "/ExponentialMovingAverage"


def prepare(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The model's own variables, without ``:0``.

    The optimizer's are left out, and so are the averages, unless only these are there.
    """
    plain = {name.removesuffix(":0"): tensor for name, tensor in tensors.items()}
    model = {name: tensor for name, tensor in plain.items() if name.startswith("model/")}
    trained = {name: tensor for name, tensor in model.items() if AVERAGE not in name}
    if any(name.endswith("/logs") for name in trained):
        return trained
    return trained | mapped(
        model, lambda name: name.removesuffix(AVERAGE) if name.endswith(AVERAGE) else None
    )


def convert(source: Tensors, options: Options) -> Converted:
    """Converts a checkpoint; the image's height and width and the bits are the user's to give."""
    levels, depth = source.count("model/", "/"), source.count("model/0/", "/")
    anchor = "model/0/0/actnorm_center/b"
    squeezed = source.size(anchor, 3)
    channels = even_number(source, anchor, squeezed, 4)
    first, last = "model/0/0/f1/l_1/W", "model/0/0/f1/l_last/W"
    image_shape = image_shape_of(source, options, channels)
    edge_bias = _edge_bias(source, first, squeezed // 2)
    config = {
        "image_shape": image_shape,
        "n_bits": n_bits_of(source, options),
        "levels": levels,
        "depth": depth,
        "hidden_channels": source.size(first, 3),
        "coupling": "affine" if is_affine(source, last, source.size(last, 3), squeezed) else "additive",
        "permutation": _permutation(source),
        "edge_bias": edge_bias,
    }
    top = _top_prior(source, options, image_shape, levels, edge_bias)
    target = GlowTarget(config | {"learn_top": "none" if top is None else "element"})
    for step in target.steps():
        _put_step(source, target, step)
    for level, net in enumerate(target.priors()):
        kept = 2 * channels * 2**level
        target.put_conv(net, *_zero_conv(source, f"model/pool{level}/conv", kept, 2 * kept, target))
    if top is not None:
        mean, log_scale = top.chunk(2)
        target.put_top(mean, log_scale)
    return target.finish()


def _permutation(source: Tensors) -> str:
    if source.names("model/0/0/invconv/"):
        return "dense"
    return "shuffle" if source.names("model/0/0/shuffle/") else "reverse"


def _edge_bias(source: Tensors, name: str, channels: int) -> bool:
    inputs = source.size(name, 2)
    if inputs not in (channels, channels + 1):
        raise InputError(
            f"{name!r} has {inputs} input channels; the layout {NAME} expects {channels + 1} here, the padding's "
            f"indicator among them, or {channels} without it."
        )
    return inputs == channels + 1


def _put_step(source: Tensors, target: GlowTarget, step: Step) -> None:
    c, hidden = step.channels, target.config["hidden_channels"]
    affine = target.config["coupling"] == "affine"
    at = f"model/{step.level}/{step.index}"
    target.put_actnorm(step.actnorm, *_actnorm(source, f"{at}/actnorm", c))
    _put_mixing(source, target, step, at)
    weight, edge = _kernel(source, f"{at}/f1/l_1/W", c // 2, hidden, target)
    bias, log_scale = _actnorm(source, f"{at}/f1/l_1/actnorm", hidden)
    target.put_conv(step.net.first, weight, bias, log_scale, edge)
    weight = source.take(f"{at}/f1/l_2/W", 1, 1, hidden, hidden).permute(3, 2, 0, 1)
    target.put_conv(step.net.second, weight, *_actnorm(source, f"{at}/f1/l_2/actnorm", hidden))
    outputs = c if affine else c // 2
    target.put_conv(step.net.last, *_zero_conv(source, f"{at}/f1/l_last", hidden, outputs, target))


def _put_mixing(source: Tensors, target: GlowTarget, step: Step, at: str) -> None:
    c = step.channels
    if isinstance(step.mixing, Permutation):
        if target.config["permutation"] == "reverse":
            target.put(step.mixing, indices=torch.arange(c - 1, -1, -1))
            return
        name = f"{at}/shuffle/indices"
        indices = source.take(name, c).long()
        if sorted(indices.tolist()) != list(range(c)):
            raise InputError(f"{name!r} is no permutation of {c} channels, as the layout {NAME} has here.")
        source.skip([f"{at}/shuffle/indices_inverse"])
        target.put(step.mixing, indices=indices)
        return
    if f"{at}/invconv/P" in source:
        p, sign = source.take_permutation(f"{at}/invconv/P", c), source.take_signs(f"{at}/invconv/sign_S", c)
        lower, upper = (source.take(f"{at}/invconv/{name}", c, c) for name in ("L", "U"))
        matrix = lu_matrix(p, lower, upper, sign, source.take(f"{at}/invconv/log_S", c))
        source.check_invertible(matrix, f"{at}/invconv/log_S")
    else:
        matrix = source.take_invertible(f"{at}/invconv/W", c, c)
    target.put(step.mixing, weight=matrix.t())


def _actnorm(source: Tensors, at: str, channels: int) -> tuple[Tensor, Tensor]:
    """Bias and log-scale."""
    bias = source.take(f"{at}_center/b", 1, 1, 1, channels)
    return bias.flatten(), NETWORK_FACTOR * source.take(f"{at}_scale/logs", 1, 1, 1, channels).flatten()


def _kernel(
    source: Tensors, name: str, inputs: int, outputs: int, target: GlowTarget
) -> tuple[Tensor, Tensor | None]:
    """Weights of a 3x3 convolution, and those of the padding's indicator."""
    edge = target.config["edge_bias"]
    weight = source.take(name, 3, 3, inputs + edge, outputs).permute(3, 2, 0, 1)
    return weight[:, :inputs], weight[:, inputs:] if edge else None


def _zero_conv(
    source: Tensors, at: str, inputs: int, outputs: int, target: GlowTarget
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Weight, bias, log-scale and edge weight of a zero-initialized convolution."""
    weight, edge = _kernel(source, f"{at}/W", inputs, outputs, target)
    bias = source.take(f"{at}/b", 1, 1, 1, outputs).flatten()
    return weight, bias, NETWORK_FACTOR * source.take(f"{at}/logs", 1, outputs).flatten(), edge


def _top_prior(
    source: Tensors, options: Options, image_shape: tuple[int, int, int], levels: int, edge_bias: bool
) -> Tensor | None:
    """Means and log-scales of the last level's prior, ``(2 C, H, W)``; None if it is standard."""
    channels, height, width = image_shape
    n, size = channels * 2 ** (levels + 2), (height // 2**levels, width // 2**levels)
    prior = None
    if source.names("model/prior/p/"):
        inside = torch.zeros(1, 1, *size, dtype=torch.float64)
        indicator = torch.nn.functional.pad(inside, (1, 1, 1, 1), value=1.0)
        weight = source.take("model/prior/p/W", 3, 3, n + edge_bias, n).permute(3, 2, 0, 1)
        bias = source.take("model/prior/p/b", 1, 1, 1, n).flatten()[:, None, None]
        scale = torch.exp(NETWORK_FACTOR * source.take("model/prior/p/logs", 1, n).flatten())
        seen = torch.nn.functional.conv2d(indicator, weight[:, n:])[0] if edge_bias else 0.0
        prior = (seen + bias).expand(n, *size) * scale[:, None, None]
    if not source.names("model/prior/y_emb/"):
        refuse_label(source, options)
        return prior
    name = "model/prior/y_emb/W"
    classes = source.size(name, 0)
    label = chosen_label(source, options, name, classes)
    weight = source.take(name, classes, n)
    bias, log_scale = (source.take(f"model/prior/y_emb/{part}", 1, n).flatten() for part in ("b", "logs"))
    source.skip(source.names("model/classifier/"))
    shift = ((weight[label] + bias) * torch.exp(NETWORK_FACTOR * log_scale))[:, None, None].expand(n, *size)
    return shift if prior is None else prior + shift


def notes(tensors: Mapping[str, Tensor], options: Options) -> Iterator[str]:
    """The choice between the weights and their averages, if both are there."""
    model = [name.removesuffix(":0") for name in tensors if name.startswith("model/")]
    if any(AVERAGE in name for name in model) and any(name.endswith("/logs") for name in model):
        yield (
            "The file holds moving averages beside the weights; the weights were taken. For the averages, save an "
            ".npz of these alone."
        )


LAYOUT = Layout(
    name=NAME,
    example="model/0/0/actnorm_scale/logs",
    signature=r"model/\d+/\d+/(actnorm|invconv|f1)",
    options=frozenset({"n_bits", "label"}),
    convert=convert,
    notes=notes,
    prepare=prepare,
)
