"""Densities of chrischute/real-nvp and chrischute/flowplusplus from their checkpoints alone, in float64."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.convert_reference import (
    State,
    batch_norm,
    doubled,
    gaussian,
    log_abs_det,
    logits,
    pixels,
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


# --- chrischute/flowplusplus ------------------------------------------------------------------------------


def concat_elu(x: Tensor) -> Tensor:
    return F.elu(torch.cat((x, -x), 1))


def gated_conv(x: Tensor, s: State, at: str, context: Tensor | None = None) -> Tensor:
    h = convolve(concat_elu(x), s, f"{at}.conv")
    if context is not None:
        h = h + convolve(concat_elu(context), s, f"{at}.aux_conv")
    a, b = convolve(concat_elu(h), s, f"{at}.gate").chunk(2, 1)
    return a * torch.sigmoid(b)


def layer_norm(x: Tensor, s: State, at: str) -> Tensor:
    """Over the last dimension."""
    return F.layer_norm(x, x.shape[-1:], s[f"{at}.weight"], s[f"{at}.bias"])


def attention(x: Tensor, s: State, at: str, heads: int = 4) -> Tensor:
    """Of pixels ``(B, L, C)``, with sines and cosines of their numbers added first."""
    b, length, c = x.shape
    rates = torch.exp(-torch.arange(c // 2).double() * (math.log(10_000) / (c // 2 - 1)))
    angles = torch.arange(length).double()[:, None] * rates
    projected = F.linear(x + torch.cat((angles.sin(), angles.cos()), 1), weight_norm(s, f"{at}.in_proj"))
    key, value, query = (part.reshape(b, length, heads, -1).transpose(1, 2) for part in projected.chunk(3, 2))
    scores = (query * (c // heads) ** -0.5) @ key.transpose(2, 3)
    merged = (scores.softmax(3) @ value).transpose(1, 2).reshape(b, length, c)
    first, second = F.linear(merged, weight_norm(s, f"{at}.gate"), s[f"{at}.gate.bias"]).chunk(2, 2)
    return first * torch.sigmoid(second)


def coupling_network(x: Tensor, s: State, at: str, context: Tensor | None) -> Tensor:
    h = convolve(x, s, f"{at}.in_conv")
    for block in members(s, f"{at}.mid_convs."):
        h = h + gated_conv(h, s, f"{block}.conv", context)
        b, c, height, width = h.shape
        tokens = layer_norm(h.flatten(2).transpose(1, 2), s, f"{block}.norm_1")
        if f"{block}.attn.gate.bias" in s:
            tokens = layer_norm(tokens + attention(tokens, s, f"{block}.attn"), s, f"{block}.norm_2")
        h = tokens.transpose(1, 2).reshape(b, c, height, width)
    return convolve(h, s, f"{at}.out_conv")


def mixture_coupling(
    x: Tensor, seen: Tensor, s: State, at: str, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    b, c, height, width = x.shape
    out = coupling_network(seen, s, at, context).reshape(b, -1, c, height, width)
    k = (out.shape[1] - 2) // 3
    log_scale = weight_norm(s, f"{at}.rescale") * out[:, 0].tanh()
    weights, means, spreads = out[:, 2 : 2 + k].log_softmax(1), out[:, 2 + k : 2 + 2 * k], out[:, 2 + 2 * k :]
    spreads = spreads.clamp(min=-7)
    u = (x[:, None] - means) / spreads.exp()
    cdf = torch.logsumexp(weights + F.logsigmoid(u), 1).exp()
    log_pdf = torch.logsumexp(weights + u - spreads - 2 * F.softplus(u), 1)
    log_det = log_pdf - cdf.log() - (1 - cdf).log() + log_scale
    return (-(1 / cdf - 1).log() + out[:, 1]) * log_scale.exp(), total(log_det)


def halve(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    if kind == "channels":
        first, second = x.chunk(2, 1)
        return first, second
    even = (torch.arange(x.shape[2])[:, None] + torch.arange(x.shape[3])) % 2 == 0
    b, c, height, width = x.shape
    first, second = (x[:, :, mask].reshape(b, c, height, width // 2) for mask in (even, ~even))
    return first, second


def join(halves: tuple[Tensor, Tensor], kind: str) -> Tensor:
    if kind == "channels":
        return torch.cat(halves, 1)
    b, c, height, half = halves[0].shape
    even = (torch.arange(height)[:, None] + torch.arange(2 * half)) % 2 == 0
    x = halves[0].new_zeros(b, c, height, 2 * half)
    x[:, :, even], x[:, :, ~even] = halves[0].flatten(2), halves[1].flatten(2)
    return x


def steps(x: Tensor, s: State, at: str, kind: str, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Normalization, mixing, coupling, exchange of the halves, as often as the checkpoint has them."""
    log_det = torch.zeros(len(x), dtype=x.dtype)
    first, second = halve(x, kind)
    number = 0
    while f"{at}.{number}.mean" in s:
        scale, w = s[f"{at}.{number}.inv_std"], s[f"{at}.{number + 1}.weight"]
        both = (torch.cat((first, second), 1) - s[f"{at}.{number}.mean"]) * scale
        log_det = log_det + pixels(both) * (scale.log().sum() + log_abs_det(w))
        changed, seen = torch.einsum("oi,bihw->bohw", w, both).chunk(2, 1)
        changed, term = mixture_coupling(changed, seen, s, f"{at}.{number + 2}.nn", context)
        first, second, log_det, number = seen, changed, log_det + term, number + 4
    return join((first, second), kind), log_det


def chrischute_flowpp(raw: State, images: Tensor, noise: Tensor) -> Tensor:
    s, x, noise = doubled(raw), images.double(), noise.double()
    log_det = torch.zeros(len(x), dtype=x.dtype)
    if "dequant_flows.aux_conv.0.weight" in s:
        at = "dequant_flows.aux_conv"
        halves = torch.cat(halve(x / 255 - 0.5, "checkers"), 1)
        context = F.conv2d(halves, s[f"{at}.0.weight"], s[f"{at}.0.bias"], padding=1)
        for layer in members(s, f"{at}.")[1:]:
            context = gated_conv(context, s, layer)
        u, term = steps(noise, s, "dequant_flows.flows", "checkers", context)
        log_det = term - gaussian(noise) + total(F.logsigmoid(u) + F.logsigmoid(-u))
        noise = torch.sigmoid(u)
    y, term = logits((x + noise) / 256, s["bounds"])
    log_det = log_det + term

    def scale(x: Tensor, at: str) -> tuple[Tensor, Tensor]:
        log_det = torch.zeros(len(x), dtype=x.dtype)
        for kind in ("channels", "checkers"):
            if f"{at}.{kind}.0.mean" in s:
                x, term = steps(x, s, f"{at}.{kind}", kind)
                log_det = log_det + term
        if not any(name.startswith(f"{at}.next.") for name in s):
            return x.flatten(1), log_det
        on, out = squeeze(x).chunk(2, 1)
        z, term = scale(on, f"{at}.next")
        return torch.cat((z, out.flatten(1)), 1), log_det + term

    z, term = scale(y, "flows")
    return unit_normal(z, log_det + term)
