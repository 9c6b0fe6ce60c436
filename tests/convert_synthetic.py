"""Checkpoints of other implementations' layouts with random parameters: right names, right shapes, nothing at zero."""

from __future__ import annotations

import torch
from torch import Tensor

State = dict[str, Tensor]


class Draw:
    """Random tensors from one generator."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, std: float = 0.1) -> Tensor:
        return std * torch.randn(shape, generator=self.generator)

    def weight(self, outputs: int, inputs: int, kernel: int, gain: float = 1.0) -> Tensor:
        return self.normal(outputs, inputs, kernel, kernel, std=gain / (inputs * kernel**2) ** 0.5)

    def positive(self, *shape: int) -> Tensor:
        return torch.exp(self.normal(*shape, std=0.2))

    def matrix(self, size: int) -> Tensor:
        return torch.linalg.qr(torch.randn(size, size, generator=self.generator))[0] + self.normal(size, size)

    def lu(self, size: int) -> tuple[Tensor, ...]:
        """P, L, U, and sign and log-size of U's diagonal."""
        p, lower, upper = torch.linalg.lu(self.matrix(size))
        diagonal = upper.diagonal()
        return p, lower, upper.triu(1), diagonal.sign(), diagonal.abs().log()


def rosinality(*, affine: bool = True, lu: bool = True, levels: int = 2, depth: int = 2, c: int = 3) -> State:
    """The state dict of ``Glow(c, depth, levels, affine, conv_lu)`` with networks of width 6."""
    draw, s, hidden = Draw(), State(), 6

    def zero_conv(name: str, inputs: int, outputs: int) -> None:
        s[f"{name}.scale"] = draw.normal(1, outputs, 1, 1)
        s[f"{name}.conv.weight"] = draw.weight(outputs, inputs, 3, 0.3)
        s[f"{name}.conv.bias"] = draw.normal(outputs)

    for level in range(levels):
        c, last = 4 * c, level == levels - 1
        for step in range(depth):
            at = f"blocks.{level}.flows.{step}"
            s[f"{at}.actnorm.loc"] = draw.normal(1, c, 1, 1)
            s[f"{at}.actnorm.scale"] = draw.positive(1, c, 1, 1)
            # Training may carry a scale across zero.
            s[f"{at}.actnorm.scale"][:, ::5] *= -1
            s[f"{at}.actnorm.initialized"] = torch.tensor(1, dtype=torch.uint8)
            if lu or last:
                p, lower, upper, sign, log_s = draw.lu(c)
                s |= {f"{at}.invconv.{n}": t for n, t in zip(("w_l", "w_s", "w_u"), (lower, log_s, upper))}  # noqa: B905
                s[f"{at}.invconv.w_p"] = p
                s[f"{at}.invconv.u_mask"] = torch.ones(c, c).triu(1)
                s[f"{at}.invconv.l_mask"] = torch.ones(c, c).tril(-1)
                s[f"{at}.invconv.s_sign"] = sign
                s[f"{at}.invconv.l_eye"] = torch.eye(c)
            else:
                s[f"{at}.invconv.weight"] = draw.matrix(c)[:, :, None, None]
            net = f"{at}.coupling.net"
            s[f"{net}.0.weight"], s[f"{net}.0.bias"] = draw.weight(hidden, c // 2, 3), draw.normal(hidden)
            s[f"{net}.2.weight"], s[f"{net}.2.bias"] = draw.weight(hidden, hidden, 1), draw.normal(hidden)
            zero_conv(f"{net}.4", hidden, c if affine else c // 2)
        c = c if last else c // 2
        zero_conv(f"blocks.{level}.prior", c, 2 * c)
    return s


def y0ast(
    *, permutation: str = "lu", affine: bool = True, learn_top: bool = True, classes: int = 0, size: int = 8
) -> State:
    """The state dict of ``Glow((size, size, 3), 6, K=2, L=2, ...)``."""
    draw, s, hidden, c, layer = Draw(), State(), 6, 3, 0

    def zero_conv(name: str, inputs: int, outputs: int) -> None:
        s[f"{name}.logs"] = draw.normal(outputs, 1, 1)
        s[f"{name}.conv.weight"] = draw.weight(outputs, inputs, 3, 0.3)
        s[f"{name}.conv.bias"] = draw.normal(outputs)

    def actnorm(name: str, channels: int) -> None:
        s[f"{name}.bias"], s[f"{name}.logs"] = draw.normal(1, channels, 1, 1), draw.normal(1, channels, 1, 1)

    for level in range(2):
        c *= 4
        for _ in range(2):
            layer += 1
            at = f"flow.layers.{layer}"
            actnorm(f"{at}.actnorm", c)
            if permutation == "dense":
                s[f"{at}.invconv.weight"] = draw.matrix(c)
            elif permutation == "lu":
                p, lower, upper, sign, log_s = draw.lu(c)
                s |= {f"{at}.invconv.p": p, f"{at}.invconv.sign_s": sign, f"{at}.invconv.lower": lower}
                s |= {f"{at}.invconv.log_s": log_s, f"{at}.invconv.upper": upper}
            s[f"{at}.block.0.conv.weight"] = draw.weight(hidden, c // 2, 3)
            actnorm(f"{at}.block.0.actnorm", hidden)
            s[f"{at}.block.2.conv.weight"] = draw.weight(hidden, hidden, 1)
            actnorm(f"{at}.block.2.actnorm", hidden)
            zero_conv(f"{at}.block.4", hidden, c if affine else c // 2)
        if level == 0:
            layer += 1
            zero_conv(f"flow.layers.{layer}.conv", c // 2, c)
            c //= 2
            layer += 1
    if learn_top:
        zero_conv("learn_top_fn", 2 * c, 2 * c)
    if classes:
        s["project_ycond.linear.weight"] = draw.normal(2 * c, classes)
        s["project_ycond.linear.bias"] = draw.normal(2 * c)
        s["project_ycond.logs"] = draw.normal(2 * c)
        s["project_class.linear.weight"] = draw.normal(classes, c)
        s["project_class.linear.bias"] = draw.normal(classes)
        s["project_class.logs"] = draw.normal(classes)
    s["prior_h"] = torch.zeros(1, 2 * c, size // 4, size // 4)
    return s


def batch_norm(draw: Draw, name: str, channels: int) -> State:
    return {
        f"{name}.weight": draw.normal(channels, std=1.0),
        f"{name}.bias": draw.normal(channels),
        f"{name}.running_mean": draw.normal(channels),
        f"{name}.running_var": draw.positive(channels),
        f"{name}.num_batches_tracked": torch.tensor(100),
    }


def chrischute_glow(*, levels: int = 2, depth: int = 2) -> State:
    """The state dict of ``Glow(6, levels, depth)``."""
    draw, s, hidden, c = Draw(), State(), 6, 12
    s["bounds"] = torch.tensor([0.9])
    for level in range(levels):
        half = c // 2
        for step in range(depth):
            at = f"flows.{'next.' * level}steps.{step}"
            s[f"{at}.norm.is_initialized"] = torch.ones(1)
            s[f"{at}.norm.bias"], s[f"{at}.norm.logs"] = draw.normal(1, c, 1, 1), draw.normal(1, c, 1, 1)
            s[f"{at}.conv.weight"] = draw.matrix(c)
            s[f"{at}.coup.scale"] = draw.normal(half, 1, 1, std=1.0)
            net = f"{at}.coup.nn"
            s |= batch_norm(draw, f"{net}.in_norm", half)
            s |= batch_norm(draw, f"{net}.mid_norm", hidden)
            s |= batch_norm(draw, f"{net}.out_norm", hidden)
            s[f"{net}.in_conv.weight"] = draw.weight(hidden, half, 3)
            s[f"{net}.mid_conv.weight"] = draw.weight(hidden, hidden, 1)
            s[f"{net}.out_conv.weight"] = draw.weight(c, hidden, 3)
            s[f"{net}.out_conv.bias"] = draw.normal(c)
        c *= 2
    return s


def openai_glow(
    *, permutation: str = "dense", affine: bool = True, edge: bool = True, top: bool = True, classes: int = 0
) -> State:
    """The variables of a model of 2 levels, depth 2 and width 6, by name."""
    draw, s, hidden, c = Draw(), State(), 6, 3

    def kernel(inputs: int, outputs: int, gain: float = 1.0) -> Tensor:
        return draw.weight(outputs, inputs + edge, 3, gain).permute(2, 3, 1, 0)

    def zero_conv(name: str, inputs: int, outputs: int) -> None:
        s[f"{name}/W"] = kernel(inputs, outputs, 0.3)
        s[f"{name}/b"], s[f"{name}/logs"] = draw.normal(1, 1, 1, outputs), draw.normal(1, outputs)

    def actnorm(name: str, channels: int) -> None:
        s[f"{name}_center/b"] = draw.normal(1, 1, 1, channels)
        s[f"{name}_scale/logs"] = draw.normal(1, 1, 1, channels)

    for level in range(2):
        c *= 4
        for step in range(2):
            at = f"model/{level}/{step}"
            actnorm(f"{at}/actnorm", c)
            if permutation == "dense":
                s[f"{at}/invconv/W"] = draw.matrix(c)
            elif permutation == "lu":
                names = ("P", "L", "U", "sign_S", "log_S")
                s |= {f"{at}/invconv/{n}": t for n, t in zip(names, draw.lu(c), strict=True)}
            elif permutation == "shuffle":
                indices = torch.randperm(c, generator=draw.generator)
                s[f"{at}/shuffle/indices"] = indices.int()
                s[f"{at}/shuffle/indices_inverse"] = indices.argsort().int()
            s[f"{at}/f1/l_1/W"] = kernel(c // 2, hidden)
            actnorm(f"{at}/f1/l_1/actnorm", hidden)
            s[f"{at}/f1/l_2/W"] = draw.weight(hidden, hidden, 1).permute(2, 3, 1, 0)
            actnorm(f"{at}/f1/l_2/actnorm", hidden)
            zero_conv(f"{at}/f1/l_last", hidden, c if affine else c // 2)
        if level == 0:
            zero_conv("model/pool0/conv", c // 2, c)
            c //= 2
    if top:
        zero_conv("model/prior/p", 2 * c, 2 * c)
    if classes:
        s["model/prior/y_emb/W"] = draw.normal(classes, 2 * c)
        s["model/prior/y_emb/b"], s["model/prior/y_emb/logs"] = draw.normal(1, 2 * c), draw.normal(1, 2 * c)
        s["model/classifier/W"] = draw.normal(c, classes)
    return s
