"""Densities of chrischute/real-nvp and chrischute/flowplusplus from their checkpoints alone, in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.convert_reference import (
    State,
    batch_norm,
    doubled,
    logits,
    squeeze,
    total,
    unit_normal,
)


def weight_norm(s: State, at: str) -> Tensor:
    v = s[f"{at}.weight_v"]
    return s[f"{at}.weight_g"] * v / v.flatten(1).norm(dim=1).view(-1, *(1,) * (v.ndim - 1))


def convolve(x: Tensor, s: State, at: str) -> Tensor:
    w = weight_norm(s, f"{at}.conv")
    return F.conv2d(x, w, s.get(f"{at}.conv.bias"), padding=w.shape[-1] // 2)


def members(s: State, prefix: str) -> list[str]:
    """The names of a list's members: prefix and number, in order."""
    numbers = {int(name.removeprefix(prefix).split(".")[0]) for name in s if name.startswith(prefix)}
    return [f"{prefix}{number}" for number in sorted(numbers)]


# --- chrischute/real-nvp ----------------------------------------------------------------------------------


def residual_network(x: Tensor, s: State, at: str, doubled_input: bool) -> Tensor:
    x = batch_norm(x, s, f"{at}.in_norm") * (2 if doubled_input else 1)
    x = convolve(F.relu(torch.cat((x, -x), 1)), s, f"{at}.in_conv")
    skip = convolve(x, s, f"{at}.in_skip")
    for block, shortcut in zip(members(s, f"{at}.blocks."), members(s, f"{at}.skips."), strict=True):
        h = convolve(F.relu(batch_norm(x, s, f"{block}.in_norm")), s, f"{block}.in_conv")
        x = x + convolve(F.relu(batch_norm(h, s, f"{block}.out_norm")), s, f"{block}.out_conv")
        skip = skip + convolve(x, s, shortcut)
    return convolve(F.relu(batch_norm(skip, s, f"{at}.out_norm")), s, f"{at}.out_conv")


def alternative_squeeze(x: Tensor) -> Tensor:
    """All channels of the top left pixels, then of the bottom right, top right and bottom left ones."""
    corners = (x[:, :, 0::2, 0::2], x[:, :, 1::2, 1::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 0::2])
    return torch.cat(corners, 1)


def chrischute_realnvp(raw: State, images: Tensor, noise: Tensor) -> Tensor:
    s = doubled(raw)
    y, log_det = logits((images.double() + noise.double()) / 256, s["data_constraint"])

    def scale(x: Tensor, at: str) -> tuple[Tensor, Tensor]:
        log_det = torch.zeros(len(x), dtype=x.dtype)
        rows, columns = torch.arange(x.shape[2])[:, None], torch.arange(x.shape[3])
        for number, coupling in enumerate(members(s, f"{at}.in_couplings.")):
            seen = ((rows + columns + number + 1) % 2 == 0).double()
            raw_scale, shift = residual_network(x * seen, s, f"{coupling}.st_net", True).chunk(2, 1)
            log_scale = weight_norm(s, f"{coupling}.rescale") * raw_scale.tanh() * (1 - seen)
            x = (x + shift * (1 - seen)) * log_scale.exp()
            log_det = log_det + total(log_scale)
        if not any(name.startswith(f"{at}.next_block.") for name in s):
            return x.flatten(1), log_det
        x = squeeze(x)
        for number, coupling in enumerate(members(s, f"{at}.out_couplings.")):
            halves = list(x.chunk(2, 1))
            changed, seen = halves[number % 2], halves[1 - number % 2]
            raw_scale, shift = residual_network(seen, s, f"{coupling}.st_net", False).chunk(2, 1)
            log_scale = weight_norm(s, f"{coupling}.rescale") * raw_scale.tanh()
            halves[number % 2] = (changed + shift) * log_scale.exp()
            x, log_det = torch.cat(halves, 1), log_det + total(log_scale)
        on, out = alternative_squeeze(F.pixel_shuffle(x, 2)).chunk(2, 1)
        z, term = scale(on, f"{at}.next_block")
        return torch.cat((z, out.flatten(1)), 1), log_det + term

    z, term = scale(y, "flows")
    return unit_normal(z, log_det + term)
