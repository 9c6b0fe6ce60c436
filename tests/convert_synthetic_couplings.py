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
