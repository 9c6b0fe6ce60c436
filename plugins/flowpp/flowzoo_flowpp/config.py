"""The configuration of a Flow++ model. Torch-free.

A stack is written as a sequence of groups:

| group | meaning |
|---|---|
| ``"columns:4"`` | 4 couplings between even and odd columns: what the official code calls a checkerboard |
| ``"checkerboard:4"`` | 4 couplings between the two colours of a true checkerboard |
| ``"channel:2"`` | 2 couplings between the two halves of the channels |
| ``"squeeze"`` | each 2x2 block of pixels becomes 4 times the channels |
| ``"factor"`` | half of the channels are finished; the groups that follow see the other half |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowzoo.config import extension
from flowzoo.errors import ConfigError

__all__ = ["FlowppConfig", "Group", "parse_groups"]

COUPLINGS = ("columns", "checkerboard", "channel")
RESHAPES = ("squeeze", "factor")


@dataclass(frozen=True, slots=True)
class Group:
    """One group of a stack and the shape that enters it.

    Attributes:
        kind: ``"columns"``, ``"checkerboard"``, ``"channel"``, ``"squeeze"`` or ``"factor"``.
        couplings: Number of couplings; 0 for ``"squeeze"`` and ``"factor"``.
        shape: (C, H, W) of what enters.
    """

    kind: str
    couplings: int
    shape: tuple[int, int, int]

    @property
    def half(self) -> tuple[int, int, int]:
        """(C, H, W) of either half: of a coupling's partition, or of what a factor keeps."""
        channels, height, width = self.shape
        if self.kind in ("columns", "checkerboard"):
            return channels, height, width // 2
        return channels // 2, height, width


def parse_groups(groups: tuple[str, ...], image_shape: tuple[int, int, int], where: str) -> tuple[Group, ...]:
    """Reads a stack's groups and follows the shape through them.

    Args:
        groups: Groups as in the table at the top of this module.
        image_shape: (C, H, W) of what enters the first group.
        where: What is being read, for the error message.

    Raises:
        ConfigError: A group is not understood or does not fit the shape that reaches it.
    """
    parsed: list[Group] = []
    shape = image_shape
    for text in groups:
        group = _parse_group(text, shape, where)
        parsed.append(group)
        channels, height, width = shape
        if group.kind == "squeeze":
            shape = (4 * channels, height // 2, width // 2)
        elif group.kind == "factor":
            shape = (channels // 2, height, width)
    return tuple(parsed)


def _parse_group(text: str, shape: tuple[int, int, int], where: str) -> Group:
    kind, _, number = text.partition(":")
    if kind in COUPLINGS and number.isdecimal() and int(number) > 0:
        group = Group(kind, int(number), shape)
    elif text in RESHAPES:
        group = Group(kind, 0, shape)
    else:
        raise ConfigError(
            f"{where}: group {text!r} is not understood; write 'columns:N', 'checkerboard:N' or 'channel:N' "
            "with N couplings, 'squeeze' or 'factor'."
        )
    channels, height, width = shape
    halved, need = {
        "squeeze": ((height, width), "even height and width"),
        "channel": ((channels,), "an even number of channels"),
        "factor": ((channels,), "an even number of channels"),
    }.get(kind, ((width,), "an even width"))
    if any(size % 2 for size in halved):
        raise ConfigError(
            f"{where}: group {text!r} needs {need}, and {channels}x{height}x{width} (CxHxW) reaches it; "
            "change image_shape or the groups before it."
        )
    return group


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowppConfig:
    """Everything that decides the shape of a Flow++ model.

    Attributes:
        image_shape: (C, H, W).
        n_bits: Bits of each value; the model sees ``2**n_bits`` levels.
        alpha: Margin of the logit: data in [0, 1] is mapped to [alpha, 1 - alpha] first.
        groups: The stack, see the module's table.
        network: ``"gated"``: the paper's gated convolutions, attention and layer norm; ``"conv"``: plain
            conv3x3-conv1x1-conv3x3 with ReLU, the most likelihood per second on a CPU.
        filters: Channels inside the coupling networks.
        blocks: Gated blocks in each coupling network (unused by ``"conv"``).
        heads: Heads of self-attention in each block; 0 for none.
        components: Logistics in each mixture.
        dropout: Dropout probability while training.
        weight_norm: Weight-normalized convolutions (the official ImageNet 32 model).
        output_activation: Whether a concatenated ELU precedes the gated network's last convolution (the
            official ImageNet and CelebA models) or not (the official CIFAR-10 model).
        normalization: Activation normalization before each coupling with one scale and shift for each
            ``"pixel"`` (as in the official code) or for each ``"channel"``.
        permutation: Invertible 1x1 convolution before each coupling: ``"halves"``: one for each half of the
            partition (the official CIFAR-10 model); ``"full"``: one over all channels, as in Glow;
            ``"joined"``: one over the channels of both halves together, after which a normalization by
            channel also has a scale and shift for each channel of each half; ``"none"``.
        prior: What becomes of the half that ``"factor"`` splits off: left as it is (``"standard"``) or
            normalized by mean and scale that the other half predicts (``"conditional"``).
        dequantization: ``"uniform"`` or ``"variational"``.
        dequantization_groups: Groups of the dequantization flow: squeezes first, then couplings.
        dequantization_filters: Channels inside its coupling networks.
        dequantization_blocks: Gated blocks in each of them.
        dequantization_heads: Heads of self-attention in each of these blocks; 0 for none.
        context_channels: Channels of the context, the features of the image that condition it.
        context_blocks: Gated blocks of the network that computes the context.
        context_heads: Heads of self-attention in each of these; 0 for none.
        context_norm: Whether layer norm follows each of these.
        squeeze_order: Channel order of the squeezes; see :class:`flowzoo.bijectors.Squeeze`.
        first_conditioner: The half that conditions the first coupling of each group: ``"first"`` is the even
            columns, the even colour, the first half of the channels.
        affine_order: What follows a coupling's mixture: y s + t as in the paper, or (y + t) s.
        learned_bound: Whether the tanh that bounds a coupling's log-scale has a learned factor per channel.
        dequantization_components: Logistics in each mixture of the dequantization flow; None for as many as
            in the main flow.
        context_residual: Whether the context's gated blocks add to their input, or take its place.
    """

    image_shape: tuple[int, int, int]
    n_bits: int = 8
    alpha: float = 0.05
    groups: tuple[str, ...]
    network: Literal["gated", "conv"] = "gated"
    filters: int
    blocks: int = 1
    heads: int = 4
    components: int = 32
    dropout: float = 0.0
    weight_norm: bool = False
    output_activation: bool = True
    normalization: Literal["pixel", "channel"] = "pixel"
    permutation: Literal["halves", "full", "joined", "none"] = "none"
    prior: Literal["standard", "conditional"] = "standard"
    dequantization: Literal["uniform", "variational"] = "variational"
    dequantization_groups: tuple[str, ...] = ("columns:4",)
    dequantization_filters: int = 32
    dequantization_blocks: int = 2
    dequantization_heads: int = 0
    context_channels: int = 32
    context_blocks: int = 3
    context_heads: int = 0
    context_norm: bool = False
    squeeze_order: Literal["offset", "channel", "checkerboard"] = extension("offset")
    first_conditioner: Literal["first", "second"] = extension("first")
    affine_order: Literal["scale-shift", "shift-scale"] = extension("scale-shift")
    learned_bound: bool = extension(False)
    dequantization_components: int | None = extension(None)
    context_residual: bool = extension(True)

    def __post_init__(self) -> None:
        """Refuses values that no model can have."""
        self._check_ranges()
        self._check_heads()
        if not any(group.couplings for group in self.stack):
            raise ConfigError(f"groups {self.groups!r} hold no coupling; add one such as 'channel:2'.")
        if self.dequantization == "variational":
            self._check_dequantization()

    @property
    def stack(self) -> tuple[Group, ...]:
        """The groups with the shape that enters each."""
        return parse_groups(self.groups, self.image_shape, "groups")

    @property
    def dequantization_stack(self) -> tuple[Group, ...]:
        """The groups of the dequantization flow with the shape that enters each."""
        return parse_groups(self.dequantization_groups, self.image_shape, "dequantization_groups")

    def _check_ranges(self) -> None:
        positive = ("filters", "blocks", "components", "dequantization_filters", "context_channels")
        bad = [name for name in positive if getattr(self, name) < 1]
        if self.dequantization_components is not None and self.dequantization_components < 1:
            bad.append("dequantization_components")
        bad += [name for name in ("dequantization_blocks", "context_blocks") if getattr(self, name) < 0]
        if bad or min(self.image_shape) < 1:
            names = ", ".join(bad) or "image_shape"
            raise ConfigError(f"{names} must be positive; give at least 1.")
        if not 1 <= self.n_bits <= 8:
            raise ConfigError(f"n_bits is {self.n_bits}; images have 1 to 8 bits.")
        if not 0 < self.alpha < 0.5:
            raise ConfigError(f"alpha is {self.alpha}; the logit needs 0 < alpha < 0.5.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; give a probability in [0, 1).")

    def _check_heads(self) -> None:
        gated, variational = self.network == "gated", self.dequantization == "variational"
        for heads, channels, used in (
            ("heads", "filters", gated),
            ("dequantization_heads", "dequantization_filters", gated and variational),
            ("context_heads", "context_channels", variational),
        ):
            number, width = getattr(self, heads), getattr(self, channels)
            if used and (number < 0 or (number and width % number)):
                raise ConfigError(
                    f"{heads} is {number}; it must divide {channels} ({width}), or be 0 for none."
                )

    def _check_dequantization(self) -> None:
        couplings = [group for group in self.dequantization_stack if group.couplings]
        kinds = [group.kind for group in self.dequantization_stack]
        if "factor" in kinds or not couplings or "squeeze" in kinds[kinds.index(couplings[0].kind) :]:
            raise ConfigError(
                f"dequantization_groups are {self.dequantization_groups!r}; write squeezes first, "
                "then at least one group of couplings, and no 'factor'."
            )
        if len({group.half[1:] for group in couplings}) > 1:
            raise ConfigError(
                f"dequantization_groups {self.dequantization_groups!r} mix channel couplings with spatial "
                "ones; their networks share one context, so the halves must have one height and width."
            )
