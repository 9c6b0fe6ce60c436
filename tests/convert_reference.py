"""Other implementations' densities, evaluated from their checkpoints alone: what a conversion must agree with.

Each evaluator takes a state dict, images and dequantization noise, and computes in float64 what that implementation's
own program computes, in plain functions that share nothing with flowzoo.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def doubled(state: State) -> State:
    return {name: tensor.double() for name, tensor in state.items()}


def total(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


def gaussian(x: Tensor, mean: Tensor | float = 0.0, log_sd: Tensor | None = None) -> Tensor:
    """Log-density of independent normals, summed over each item."""
    spread = torch.zeros_like(x) if log_sd is None else log_sd
    return total(-0.5 * math.log(2 * math.pi) - spread - 0.5 * ((x - mean) / spread.exp()) ** 2)


def centred(images: Tensor, noise: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Glow's preprocessing: levels in [-1/2, 1/2), noise one bin wide; and minus the logarithm of the bins."""
    bins = 2**bits
    x = torch.floor(images.double() / 2 ** (8 - bits)) / bins - 0.5 + noise.double() / bins
    return x, torch.full((len(x),), -math.log(bins) * x[0].numel(), dtype=torch.float64)


def squeeze(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    cells = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return cells.reshape(b, 4 * c, h // 2, w // 2)


def pixels(x: Tensor) -> int:
    return x.shape[2] * x.shape[3]


def log_abs_det(w: Tensor) -> Tensor:
    return torch.linalg.slogdet(w).logabsdet


def lu_product(p: Tensor, lower: Tensor, upper: Tensor, sign: Tensor, log_s: Tensor) -> Tensor:
    eye = torch.eye(len(p), dtype=p.dtype)
    return p @ (lower.tril(-1) + eye) @ (upper.triu(1) + torch.diag(sign * log_s.exp()))


# --- rosinality/glow-pytorch ------------------------------------------------------------------------------


def rosinality(raw: State, images: Tensor, noise: Tensor, bits: int) -> Tensor:
    s = doubled(raw)
    x, log_p = centred(images, noise, bits)
    levels = 1 + max(int(name.split(".")[1]) for name in s)

    def zero_conv(h: Tensor, name: str) -> Tensor:
        out = F.conv2d(F.pad(h, (1, 1, 1, 1), value=1.0), s[f"{name}.conv.weight"], s[f"{name}.conv.bias"])
        return out * torch.exp(3 * s[f"{name}.scale"])

    for level in range(levels):
        x = squeeze(x)
        depth = 1 + max(int(name.split(".")[3]) for name in s if name.startswith(f"blocks.{level}.flows"))
        for step in range(depth):
            at = f"blocks.{level}.flows.{step}"
            x = s[f"{at}.actnorm.scale"] * (x + s[f"{at}.actnorm.loc"])
            log_p = log_p + pixels(x) * s[f"{at}.actnorm.scale"].abs().log().sum()
            if f"{at}.invconv.weight" in s:
                w = s[f"{at}.invconv.weight"][:, :, 0, 0]
                log_p = log_p + pixels(x) * log_abs_det(w)
            else:
                p, lower, upper, sign, log_s = (
                    s[f"{at}.invconv.{n}"] for n in ("w_p", "w_l", "w_u", "s_sign", "w_s")
                )
                w = lu_product(p, lower, upper, sign, log_s)
                log_p = log_p + pixels(x) * log_s.sum()
            a, b = torch.einsum("oi,bihw->bohw", w, x).chunk(2, 1)
            net = f"{at}.coupling.net"
            h = F.relu(F.conv2d(a, s[f"{net}.0.weight"], s[f"{net}.0.bias"], padding=1))
            h = F.relu(F.conv2d(h, s[f"{net}.2.weight"], s[f"{net}.2.bias"]))
            h = zero_conv(h, f"{net}.4")
            if h.shape[1] == x.shape[1]:
                raw_scale, shift = h.chunk(2, 1)
                b = (b + shift) * torch.sigmoid(raw_scale + 2)
                log_p = log_p + total(F.logsigmoid(raw_scale + 2))
            else:
                b = b + h
            x = torch.cat((a, b), 1)
        if level < levels - 1:
            x, out = x.chunk(2, 1)
            log_p = log_p + gaussian(out, *zero_conv(x, f"blocks.{level}.prior").chunk(2, 1))
        else:
            log_p = log_p + gaussian(x, *zero_conv(torch.zeros_like(x), f"blocks.{level}.prior").chunk(2, 1))
    return log_p


# --- y0ast/Glow-PyTorch -----------------------------------------------------------------------------------


def y0ast(raw: State, images: Tensor, noise: Tensor, label: int | None = None) -> Tensor:
    s = doubled(raw)
    x, log_p = centred(images, noise, 8)

    def zero_conv(h: Tensor, name: str) -> Tensor:
        out = F.conv2d(h, s[f"{name}.conv.weight"], s[f"{name}.conv.bias"], padding=1)
        return out * torch.exp(3 * s[f"{name}.logs"])

    def actnorm(h: Tensor, name: str) -> Tensor:
        return (h + s[f"{name}.bias"]) * s[f"{name}.logs"].exp()

    layers = 1 + max(int(name.split(".")[2]) for name in s if name.startswith("flow.layers"))
    for layer in range(layers):
        at = f"flow.layers.{layer}"
        mine = [name for name in s if name.startswith(f"{at}.")]
        if not mine:
            x = squeeze(x)
        elif f"{at}.conv.logs" in s:
            x, out = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
            h = zero_conv(x, f"{at}.conv")
            log_p = log_p + gaussian(out, h[:, 0::2], h[:, 1::2])
            # The next layer is the squeeze of the next level.
        else:
            x = actnorm(x, f"{at}.actnorm")
            log_p = log_p + pixels(x) * s[f"{at}.actnorm.logs"].sum()
            if f"{at}.invconv.weight" in s:
                w = s[f"{at}.invconv.weight"]
                log_p = log_p + pixels(x) * log_abs_det(w)
                x = torch.einsum("oi,bihw->bohw", w, x)
            elif f"{at}.invconv.p" in s:
                w = lu_product(*(s[f"{at}.invconv.{n}"] for n in ("p", "lower", "upper", "sign_s", "log_s")))
                log_p = log_p + pixels(x) * s[f"{at}.invconv.log_s"].sum()
                x = torch.einsum("oi,bihw->bohw", w, x)
            else:
                x = x.flip(1)
            a, b = x.chunk(2, 1)
            h = F.conv2d(a, s[f"{at}.block.0.conv.weight"], padding=1)
            h = F.relu(actnorm(h, f"{at}.block.0.actnorm"))
            h = F.conv2d(h, s[f"{at}.block.2.conv.weight"])
            h = zero_conv(F.relu(actnorm(h, f"{at}.block.2.actnorm")), f"{at}.block.4")
            if h.shape[1] == x.shape[1]:
                b = (b + h[:, 0::2]) * torch.sigmoid(h[:, 1::2] + 2)
                log_p = log_p + total(F.logsigmoid(h[:, 1::2] + 2))
            else:
                b = b + h
            x = torch.cat((a, b), 1)
    prior = s["prior_h"].expand(len(x), -1, -1, -1)
    if "learn_top_fn.logs" in s:
        prior = zero_conv(prior, "learn_top_fn")
    if label is not None:
        onehot = F.one_hot(torch.tensor(label), s["project_ycond.linear.weight"].shape[1]).double()
        shift = F.linear(onehot, s["project_ycond.linear.weight"], s["project_ycond.linear.bias"])
        prior = prior + (shift * torch.exp(3 * s["project_ycond.logs"]))[None, :, None, None]
    return log_p + gaussian(x, *prior.chunk(2, 1))


# --- chrischute -------------------------------------------------------------------------------------------


def logits(x: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of values in [0, 1] drawn in to a share of it, and the log-determinant."""
    y = ((2 * x - 1) * share + 1) / 2
    y = y.log() - (1 - y).log()
    term = F.softplus(y) + F.softplus(-y) - F.softplus((1 - share).log() - share.log())
    return y, total(term)


def batch_norm(x: Tensor, s: State, at: str) -> Tensor:
    parts = (s[f"{at}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, training=False, eps=1e-5)


def unit_normal(z: Tensor, log_det: Tensor) -> Tensor:
    return gaussian(z) + log_det - math.log(256) * z[0].numel()


def chrischute_glow(raw: State, images: Tensor, noise: Tensor) -> Tensor:
    s = doubled(raw)
    y, log_det = logits((images.double() + noise.double()) / 256, s["bounds"])

    def level(x: Tensor, at: str) -> tuple[Tensor, Tensor]:
        log_det = torch.zeros(len(x), dtype=x.dtype)
        depth = 1 + max(
            int(name.removeprefix(f"{at}.steps.").split(".")[0])
            for name in s
            if name.startswith(f"{at}.steps.")
        )
        for step in range(depth):
            here = f"{at}.steps.{step}"
            x = (x + s[f"{here}.norm.bias"]) * s[f"{here}.norm.logs"].exp()
            w = s[f"{here}.conv.weight"]
            log_det = log_det + pixels(x) * (s[f"{here}.norm.logs"].sum() + log_abs_det(w))
            changed, kept = torch.einsum("oi,bihw->bohw", w, x).chunk(2, 1)
            net = f"{here}.coup.nn"
            h = F.relu(batch_norm(kept, s, f"{net}.in_norm"))
            h = F.conv2d(h, s[f"{net}.in_conv.weight"], padding=1)
            h = F.relu(batch_norm(h, s, f"{net}.mid_norm"))
            h = F.conv2d(h, s[f"{net}.mid_conv.weight"])
            h = F.relu(batch_norm(h, s, f"{net}.out_norm"))
            h = F.conv2d(h, s[f"{net}.out_conv.weight"], s[f"{net}.out_conv.bias"], padding=1)
            log_scale = s[f"{here}.coup.scale"] * torch.tanh(h[:, 0::2])
            x = torch.cat(((changed + h[:, 1::2]) * log_scale.exp(), kept), 1)
            log_det = log_det + total(log_scale)
        if any(name.startswith(f"{at}.next.") for name in s):
            on, out = squeeze(x).chunk(2, 1)
            on, term = level(on, f"{at}.next")
            x, log_det = F.pixel_shuffle(torch.cat((on, out), 1), 2), log_det + term
        return x, log_det

    z, term = level(squeeze(y), "flows")
    return unit_normal(z, log_det + term)


# --- openai/glow ------------------------------------------------------------------------------------------


def openai_glow(  # noqa: C901 - one program, in one place
    raw: State, images: Tensor, noise: Tensor, bits: int, levels: int, label: int | None = None
) -> Tensor:
    """Channels last, as TensorFlow has them; ``raw`` by variable name."""
    s = doubled(raw)
    x, log_p = centred(images, noise, bits)
    x = x.permute(0, 2, 3, 1)
    edged = s["model/0/0/f1/l_1/W"].shape[2] > x.shape[3] * 2

    def conv(h: Tensor, w: Tensor) -> Tensor:
        if w.shape[0] == 3 and edged:
            inside = torch.zeros_like(h[..., :1])
            h, edge = F.pad(h, (0, 0, 1, 1, 1, 1)), F.pad(inside, (0, 0, 1, 1, 1, 1), value=1.0)
            h = torch.cat((h, edge), 3)
        elif w.shape[0] == 3:
            h = F.pad(h, (0, 0, 1, 1, 1, 1))
        return F.conv2d(h.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1)).permute(0, 2, 3, 1)

    def zero_conv(h: Tensor, at: str) -> Tensor:
        return (conv(h, s[f"{at}/W"]) + s[f"{at}/b"]) * torch.exp(3 * s[f"{at}/logs"])

    def actnorm(h: Tensor, at: str) -> Tensor:
        return (h + s[f"{at}_center/b"]) * torch.exp(3 * s[f"{at}_scale/logs"])

    for level in range(levels):
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, 4 * c)
        area, step = x.shape[1] * x.shape[2], 0
        while f"model/{level}/{step}/actnorm_center/b" in s:
            at = f"model/{level}/{step}"
            x = actnorm(x, f"{at}/actnorm")
            log_p = log_p + area * 3 * s[f"{at}/actnorm_scale/logs"].sum()
            if f"{at}/invconv/W" in s:
                matrix = s[f"{at}/invconv/W"]
                log_p, x = log_p + area * log_abs_det(matrix), x @ matrix
            elif f"{at}/invconv/P" in s:
                names = ("P", "L", "U", "sign_S", "log_S")
                x = x @ lu_product(*(s[f"{at}/invconv/{n}"] for n in names))
                log_p = log_p + area * s[f"{at}/invconv/log_S"].sum()
            elif f"{at}/shuffle/indices" in s:
                x = x[..., s[f"{at}/shuffle/indices"].long()]
            else:
                x = x.flip(3)
            first, second = x.chunk(2, 3)
            out = F.relu(actnorm(conv(first, s[f"{at}/f1/l_1/W"]), f"{at}/f1/l_1/actnorm"))
            out = F.relu(actnorm(conv(out, s[f"{at}/f1/l_2/W"]), f"{at}/f1/l_2/actnorm"))
            out = zero_conv(out, f"{at}/f1/l_last")
            if out.shape[3] == x.shape[3]:
                second = (second + out[..., 0::2]) * torch.sigmoid(out[..., 1::2] + 2)
                log_p = log_p + total(F.logsigmoid(out[..., 1::2] + 2))
            else:
                second = second + out
            x, step = torch.cat((first, second), 3), step + 1
        if level < levels - 1:
            x, gone = x.chunk(2, 3)
            out = zero_conv(x, f"model/pool{level}/conv")
            log_p = log_p + gaussian(gone, out[..., 0::2], out[..., 1::2])
    prior = torch.cat((torch.zeros_like(x), torch.zeros_like(x)), 3)
    if "model/prior/p/W" in s:
        prior = zero_conv(prior, "model/prior/p")
    if label is not None:
        row = s["model/prior/y_emb/W"][label : label + 1] + s["model/prior/y_emb/b"]
        prior = prior + row * torch.exp(3 * s["model/prior/y_emb/logs"])
    return log_p + gaussian(x, *prior.chunk(2, 3))
