"""Random checkpoints in the layouts of chrischute/real-nvp and chrischute/flowplusplus."""

from __future__ import annotations

import torch

from tests.convert_synthetic import Draw, State, batch_norm


def weight_norm(draw: Draw, at: str, *shape: int, std: float = 0.5) -> State:
    lengths = draw.normal(shape[0], *(1,) * (len(shape) - 1), std=std)
    return {f"{at}.weight_g": lengths, f"{at}.weight_v": draw.normal(*shape, std=1.0)}


def convolution(draw: Draw, at: str, outputs: int, inputs: int, kernel: int, bias: bool = True) -> State:
    s = weight_norm(draw, f"{at}.conv", outputs, inputs, kernel, kernel)
    return s | ({f"{at}.conv.bias": draw.normal(outputs)} if bias else {})


def residual_network(draw: Draw, at: str, channels: int, features: int, blocks: int) -> State:
    s = batch_norm(draw, f"{at}.in_norm", channels)
    s |= convolution(draw, f"{at}.in_conv", features, 2 * channels, 3)
    s |= convolution(draw, f"{at}.in_skip", features, features, 1)
    for block in range(blocks):
        here = f"{at}.blocks.{block}"
        s |= batch_norm(draw, f"{here}.in_norm", features)
        s |= convolution(draw, f"{here}.in_conv", features, features, 3, bias=False)
        s |= batch_norm(draw, f"{here}.out_norm", features)
        s |= convolution(draw, f"{here}.out_conv", features, features, 3)
        s |= convolution(draw, f"{at}.skips.{block}", features, features, 1)
    s |= batch_norm(draw, f"{at}.out_norm", features)
    return s | convolution(draw, f"{at}.out_conv", 2 * channels, features, 1)


def chrischute_realnvp(*, scales: int = 2, channels: int = 3, blocks: int = 2) -> State:
    """The state dict of ``RealNVP(scales, channels, mid_channels=4, num_blocks=blocks)``."""
    draw, features = Draw(), 4
    s = {"data_constraint": torch.tensor([0.9])}

    def coupling(at: str, half: int, width: int) -> State:
        rescale = weight_norm(draw, f"{at}.rescale", half, 1, 1, std=0.7)
        return residual_network(draw, f"{at}.st_net", half, width, blocks) | rescale

    for scale in range(scales):
        block, last = f"flows.{'next_block.' * scale}", scale == scales - 1
        for index in range(4 if last else 3):
            s |= coupling(f"{block}in_couplings.{index}", channels, features)
        if not last:
            for index in range(3):
                s |= coupling(f"{block}out_couplings.{index}", 2 * channels, 2 * features)
        channels, features = 2 * channels, 2 * features
    return s


def gated_conv(draw: Draw, at: str, channels: int, context: int = 0) -> State:
    s = convolution(draw, f"{at}.conv", channels, 2 * channels, 3)
    s |= convolution(draw, f"{at}.gate", 2 * channels, 2 * channels, 1)
    return s | (convolution(draw, f"{at}.aux_conv", channels, 2 * context, 1) if context else {})


def layer_norm(draw: Draw, at: str, channels: int) -> State:
    return {f"{at}.weight": draw.positive(channels), f"{at}.bias": draw.normal(channels)}


def flowpp_step(
    draw: Draw,
    at: str,
    number: int,
    half: int,
    *,
    components: int,
    blocks: int,
    attends: bool,
    context: int = 0,
) -> State:
    """Normalization, convolution and coupling of width 8."""
    width = 8
    s = {f"{at}.{number}.is_initialized": torch.ones(1)}
    s[f"{at}.{number}.mean"] = draw.normal(1, 2 * half, 1, 1)
    s[f"{at}.{number}.inv_std"] = draw.positive(1, 2 * half, 1, 1)
    s[f"{at}.{number + 1}.weight"] = draw.matrix(2 * half)
    net = f"{at}.{number + 2}.nn"
    s |= convolution(draw, f"{net}.in_conv", width, half, 3)
    for block in range(blocks):
        here = f"{net}.mid_convs.{block}"
        s |= gated_conv(draw, f"{here}.conv", width, context)
        s |= layer_norm(draw, f"{here}.norm_1", width)
        if attends:
            s |= weight_norm(draw, f"{here}.attn.in_proj", 3 * width, width, std=1.0)
            s |= weight_norm(draw, f"{here}.attn.gate", 2 * width, width)
            s[f"{here}.attn.gate.bias"] = draw.normal(2 * width)
            s |= layer_norm(draw, f"{here}.norm_2", width)
    s |= convolution(draw, f"{net}.out_conv", half * (2 + 3 * components), width, 3)
    return s | weight_norm(draw, f"{net}.rescale", half, 1, 1, std=0.7)


def chrischute_flowpp(
    *,
    scales: tuple[tuple[int, int], ...] = ((0, 2), (2, 3)),
    dequantization_blocks: int = 1,
    attends: bool = True,
    channels: int = 3,
) -> State:
    """The state dict of a ``FlowPlusPlus`` of these scales, width 8, 2 blocks and 3 logistics."""
    draw = Draw()
    s = {"bounds": torch.tensor([0.9])}
    if dequantization_blocks:
        at, width = "dequant_flows.aux_conv", 4
        s[f"{at}.0.weight"], s[f"{at}.0.bias"] = draw.weight(width, 2 * channels, 3), draw.normal(width)
        for layer in (1, 2, 3):
            s |= gated_conv(draw, f"{at}.{layer}", width)
        for step in range(4):
            s |= flowpp_step(
                draw,
                "dequant_flows.flows",
                4 * step,
                channels,
                components=2,
                blocks=dequantization_blocks,
                attends=attends,
                context=width,
            )
    for scale, (channelwise, checkerboards) in enumerate(scales):
        block = f"flows.{'next.' * scale}"
        for kind, number, half in (
            ("channels", channelwise, channels // 2),
            ("checkers", checkerboards, channels),
        ):
            for step in range(number):
                s |= flowpp_step(
                    draw, f"{block}{kind}", 4 * step, half, components=3, blocks=2, attends=attends
                )
        channels *= 2
    return s
