"""The layout of chrischute/real-nvp.

Its RealNVP differs from ours in these: the odd pixels and the second half of the channels condition first, no batch
norm follows a coupling, the networks do not see the mask, every batch norm has a scale and every convolution a length,
log-scales come before shifts, and the networks of checkerboard couplings see twice what batch norm gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowzoo.bijectors import ScaleMap
from flowzoo.bijectors.coupling import Coupling
from flowzoo.convert.layout import Converted, Layout, Options, image_shape_of
from flowzoo.convert.logits import logit_alpha
from flowzoo.convert.target import Target
from flowzoo.convert.tensors import Tensors
from flowzoo.convert.weight_norm import take_factors, take_weight_norm
from flowzoo.nets.resnet import ResidualBlock, ResidualNetwork, ShiftBatchNorm2d, WeightNormConv2d

NAME = "chrischute/real-nvp"
BATCH_NORM_EPS = 1e-5
FIRST = "flows.in_couplings.0.st_net"


def convert(source: Tensors, options: Options) -> Converted:
    """Converts a checkpoint; the image's height and width are the user's to give."""
    blocks_below = (
        name.count("next_block.") for name in source.names(r"flows\.(next_block\.)*in_couplings\.")
    )
    scales = 1 + max(blocks_below, default=0)
    channels = source.size(f"{FIRST}.in_norm.weight", 0)
    config = {
        "image_shape": image_shape_of(source, options, channels),
        "logit_alpha": logit_alpha(source, "data_constraint"),
        "scales": scales,
        "final_couplings": source.count(f"flows.{'next_block.' * (scales - 1)}in_couplings."),
        "features": source.size(f"{FIRST}.in_conv.conv.weight_v", 0),
        "residual_blocks": source.count(f"{FIRST}.blocks."),
        "normalization": "none",
        "first_conditioner": "second",
        "network_scales": True,
    }
    if scales > 1:
        config["checkerboard_couplings"] = source.count("flows.in_couplings.")
        config["channel_couplings"] = source.count("flows.out_couplings.")
    target = Target("realnvp", config)
    names = [name for scale in range(scales) for name in _couplings(source, scale)]
    for at, coupling in zip(names, target.all(Coupling), strict=True):
        _put_coupling(source, target, coupling, at)
    return target.finish()


def _couplings(source: Tensors, scale: int) -> list[str]:
    """The names of a scale's couplings, in order; each scale has those of the first, the last its own."""
    block = f"flows.{'next_block.' * scale}"
    last = not source.names(f"{block}next_block.".replace(".", r"\."))
    kinds = ["in_couplings"] if last else ["in_couplings", "out_couplings"]
    counts = {kind: source.count(f"{block if last else 'flows.'}{kind}.") for kind in kinds}
    return [f"{block}{kind}.{index}" for kind in kinds for index in range(counts[kind])]


def _put_coupling(source: Tensors, target: Target, coupling: Coupling, at: str) -> None:
    (scale_map,) = target.all(ScaleMap, coupling)
    channels = scale_map.bound.numel()
    target.put(scale_map, bound=take_factors(source, f"{at}.rescale", channels))
    norm_in = target.all(ShiftBatchNorm2d, coupling)[0]
    (net,) = target.all(ResidualNetwork, coupling)
    checkerboard = ".in_couplings." in f".{at}"
    _put_norm(source, target, norm_in, f"{at}.st_net.in_norm", 2.0 if checkerboard else 1.0)
    _put_network(source, target, net, f"{at}.st_net", channels)


def _put_network(source: Tensors, target: Target, net: ResidualNetwork, at: str, channels: int) -> None:
    features = net.conv_out.direction.shape[1]
    length, direction = take_weight_norm(source, f"{at}.in_conv.conv", features, 2 * channels, 3, 3)
    # The mask, which ours sees as the last channel where there is one, has no say in the source.
    unseen = net.conv_in.direction.shape[1] - 2 * channels
    direction = torch.cat((direction, direction.new_zeros(features, unseen, 3, 3)), dim=1)
    bias = source.take(f"{at}.in_conv.conv.bias", features)
    target.put(net.conv_in, magnitude=length, direction=direction, bias=bias)
    sources = ["in_skip", *(f"skips.{index}" for index in range(len(net.blocks)))]
    for name, skip in zip(sources, target.all(WeightNormConv2d, net.skips), strict=True):
        _put_conv(source, target, skip, f"{at}.{name}.conv")
    for index, block in enumerate(target.all(ResidualBlock, net)):
        norms, convs = target.all(ShiftBatchNorm2d, block), target.all(WeightNormConv2d, block)
        for side, norm, conv in zip(("in", "out"), norms, convs, strict=True):
            _put_norm(source, target, norm, f"{at}.blocks.{index}.{side}_norm")
            _put_conv(source, target, conv, f"{at}.blocks.{index}.{side}_conv.conv")
    assert isinstance(net.norm_out, ShiftBatchNorm2d)
    _put_norm(source, target, net.norm_out, f"{at}.out_norm")
    _put_conv(source, target, net.conv_out, f"{at}.out_conv.conv", roll=channels)


def _put_conv(source: Tensors, target: Target, conv: WeightNormConv2d, at: str, roll: int = 0) -> None:
    """Sets a convolution, its outputs rolled by so many."""
    shape = tuple(conv.direction.shape)
    length, direction = take_weight_norm(source, at, *shape)
    target.put(conv, magnitude=length.roll(roll), direction=direction.roll(roll, 0))
    if conv.bias is not None:
        target.put(conv, bias=source.take(f"{at}.bias", shape[0]).roll(roll))


def _put_norm(source: Tensors, target: Target, norm: ShiftBatchNorm2d, at: str, factor: float = 1.0) -> None:
    """Sets a batch norm whose result is multiplied by a factor."""
    channels = norm.running_mean.numel()
    values: dict[str, Tensor] = {
        name: source.take(f"{at}.{name}", channels)
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    source.skip([f"{at}.num_batches_tracked"])
    # The two codes add different numbers to the variance; the scale makes up for it.
    ratio = torch.sqrt((values["running_var"] + norm.eps) / (values["running_var"] + BATCH_NORM_EPS))
    values["weight"] = factor * values["weight"] * ratio
    values["bias"] = factor * values["bias"]
    target.put(norm, **values)


LAYOUT = Layout(
    name=NAME,
    example="flows.in_couplings.0.st_net.in_norm.weight",
    signature=r"flows\.(next_block\.)*(in|out)_couplings\.\d+\.(st_net|rescale)\.",
    convert=convert,
)
