"""The layout of chrischute/flowplusplus.

Its Flow++ has several scales with factoring out, one 1x1 convolution over the channels of both halves together, and
couplings (y + t) exp(g tanh(s)) that transform the first half. It exchanges the halves after every coupling where ours
exchanges their roles, which is the same as long as a group has an even number of couplings or comes last. Attention
adds a fixed sinusoid of the position, which becomes the value of our learned embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from flowzoo.bijectors import ActNorm, Bijector, InvertibleConv1x1, ScaleMap
from flowzoo.bijectors.coupling import Coupling
from flowzoo.convert.flowpp_networks import put_context, put_network
from flowzoo.convert.layout import Converted, Layout, Options, image_shape_of
from flowzoo.convert.logits import logit_alpha
from flowzoo.convert.target import Target
from flowzoo.convert.tensors import Tensors
from flowzoo.convert.weight_norm import take_factors
from flowzoo.densities.dequantization import VariationalDequantization
from flowzoo.errors import InputError

NAME = "chrischute/flowplusplus"
HEADS = 4
"""Written into the source."""

PARTS = 4
"""Members of a step in the source's lists: normalization, convolution, coupling, exchange of the halves."""

DEQUANTIZATION = "dequant_flows."


@dataclass(frozen=True)
class Group:
    """A list of steps in the source: its kind in our words, its name, and its number of steps."""

    kind: str
    at: str
    steps: int


def convert(source: Tensors, options: Options) -> Converted:
    """Converts a checkpoint; the image's height and width are the user's to give."""
    scales = 1 + max((name.count("next.") for name in source.names(r"flows\.(next\.)*ch")), default=0)
    stack = [_groups(source, f"flows.{'next.' * scale}") for scale in range(scales)]
    _refuse_odd([group for groups in stack for group in groups][:-1])
    network = _network(source, stack[0][0].at)
    config: dict[str, Any] = {
        "image_shape": image_shape_of(source, options, _image_channels(source, stack[0][0])),
        "alpha": logit_alpha(source, "bounds"),
        "groups": _group_names(stack),
        **network,
        "weight_norm": True,
        "output_activation": False,
        "normalization": "channel",
        "permutation": "joined",
        "squeeze_order": "channel",
        "first_conditioner": "second",
        "affine_order": "shift-scale",
        "learned_bound": True,
        **_dequantization(source),
    }
    target = Target("flowpp", config)
    _put_steps(source, target, target.flow.bijector, [group for groups in stack for group in groups])
    dequantization = target.flow.dequantization
    if isinstance(dequantization, VariationalDequantization):
        groups = [_group(source, "checkerboard", f"{DEQUANTIZATION}flows.")]
        _put_steps(source, target, dequantization.bijector, groups)
        put_context(source, target, dequantization.context_net, f"{DEQUANTIZATION}aux_conv")
    return target.finish()


def _groups(source: Tensors, scale: str) -> list[Group]:
    kinds = [("channel", f"{scale}channels."), ("checkerboard", f"{scale}checkers.")]
    present = [(kind, at) for kind, at in kinds if source.indices(at)]
    # A scale without any is an error, which the count of its checkerboards reports.
    return [_group(source, kind, at) for kind, at in present or kinds[1:]]


def _group(source: Tensors, kind: str, at: str) -> Group:
    found = source.indices(at)
    steps = max(-(-len(found) // (PARTS - 1)), 1)
    expected = [PARTS * step + part for step in range(steps) for part in range(PARTS - 1)]
    for member in expected:
        if member not in found:
            raise InputError(
                f"the checkpoint has no tensor '{at}{member}....', which the layout {NAME} needs; is the file "
                "complete?"
            )
    return Group(kind, at, steps)


def _refuse_odd(groups: list[Group]) -> None:
    for group in groups:
        if group.steps % 2:
            raise InputError(
                f"'{group.at}...' (layout {NAME}) are {group.steps} couplings, an odd number before the end of the "
                "flow: the halves change places there, which flowzoo's Flow++ cannot express."
            )


def _image_channels(source: Tensors, group: Group) -> int:
    half = source.size(f"{group.at}2.nn.in_conv.conv.weight_v", 1)
    return half if group.kind == "checkerboard" else 2 * half


def _group_names(stack: list[list[Group]]) -> list[str]:
    names: list[str] = []
    for scale, groups in enumerate(stack):
        names += ["squeeze", "factor"] if scale else []
        names += [f"{group.kind}:{group.steps}" for group in groups]
    return names


def _network(source: Tensors, at: str) -> dict[str, int]:
    """The config of a network, from the names and shapes of a group's first one."""
    net = f"{at}2.nn"
    half = source.size(f"{net}.in_conv.conv.weight_v", 1)
    name = f"{net}.out_conv.conv.weight_v"
    parameters, rest = divmod(source.size(name, 0), max(half, 1))
    components, left = divmod(parameters - 2, 3)
    if rest or left or components < 1:
        raise InputError(
            f"{name!r} has {source.size(name, 0)} outputs; the layout {NAME} expects (2 + 3 K) {half} of them, K "
            "the logistics of a mixture."
        )
    return {
        "filters": source.size(f"{net}.in_conv.conv.weight_v", 0),
        "blocks": source.count(f"{net}.mid_convs."),
        "heads": HEADS if source.names(r".*\.attn\.") else 0,
        "components": components,
    }


def _dequantization(source: Tensors) -> dict[str, Any]:
    if not source.names(DEQUANTIZATION.replace(".", r"\.")):
        return {"dequantization": "uniform"}
    group = _group(source, "checkerboard", f"{DEQUANTIZATION}flows.")
    _refuse_odd([group])
    network = _network(source, group.at)
    return {
        "dequantization": "variational",
        "dequantization_groups": [f"checkerboard:{group.steps}"],
        **{f"dequantization_{name}": value for name, value in network.items()},
        "context_channels": source.size(f"{DEQUANTIZATION}aux_conv.0.weight", 0),
        "context_blocks": source.count(f"{DEQUANTIZATION}aux_conv.") - 1,
        "context_residual": False,
    }


def _put_steps(source: Tensors, target: Target, flow: Bijector, groups: list[Group]) -> None:
    names = [(group.at, PARTS * index) for group in groups for index in range(group.steps)]
    parts = zip(
        names,
        target.all(ActNorm, flow),
        target.all(InvertibleConv1x1, flow),
        target.all(Coupling, flow),
        strict=True,
    )
    for (at, number), actnorm, mixing, coupling in parts:
        _put_mixing(source, target, actnorm, mixing, (f"{at}{number}", f"{at}{number + 1}"))
        (scale_map,) = target.all(ScaleMap, coupling)
        net = f"{at}{number + 2}.nn"
        target.put(scale_map, bound=take_factors(source, f"{net}.rescale", scale_map.bound.numel()))
        put_network(source, target, coupling.net, net)


def _put_mixing(
    source: Tensors, target: Target, actnorm: ActNorm, mixing: InvertibleConv1x1, names: tuple[str, str]
) -> None:
    """Sets normalization and convolution; the half that changes is first in the source and second here."""
    norm, conv = names
    channels, half = mixing.channels, mixing.channels // 2
    source.take_flag(f"{norm}.is_initialized")
    mean = source.take(f"{norm}.mean", 1, channels, 1, 1).flatten()
    scale = source.take_scale(f"{norm}.inv_std", 1, channels, 1, 1).flatten()
    if bool((scale < 0).any()):
        raise InputError(
            f"'{norm}.inv_std' (layout {NAME}) is negative somewhere, where the source takes its logarithm: the "
            "model has no density. Use an earlier checkpoint."
        )
    log_scale = torch.log(scale) / actnorm.log_scale_factor
    target.put(actnorm, bias=-mean.roll(half), log_scale=log_scale.roll(half))
    weight = source.take_invertible(f"{conv}.weight", channels, channels)
    target.put(mixing, weight=weight.roll((half, half), (0, 1)))


LAYOUT = Layout(
    name=NAME,
    example="flows.checkers.0.inv_std",
    signature=r"flows\.(next\.)*(channels|checkers)\.\d+\.(mean|inv_std|weight|nn)",
    convert=convert,
)
