"""The parts of a flow: what it is composed of, what kind of model that makes it, and the checks of its data."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flowzoo.arguments import describe
from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.kinds import DirectionKind, LogDetKind
from flowzoo.densities.augmentation import Augmentation
from flowzoo.densities.base import BaseDensity, StandardNormal, drawn
from flowzoo.densities.dequantization import (
    Dequantization,
    NoDequantization,
    NoiseKind,
    UniformDequantization,
)
from flowzoo.engine import Engine
from flowzoo.errors import ConfigError, InputError
from flowzoo.labels import Labels
from flowzoo.nets.keyed import Keys, number_layers
from flowzoo.ops.autograd import is_traced, transforms_active
from flowzoo.spaces import DataKind, DataSpace, Images, Vectors, require_finite

if TYPE_CHECKING:
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.external import Unlisted


class FlowParts(nn.Module):
    """Base of :class:`flowzoo.flow.Flow`: composition, description, and checks of data and labels.

    Attributes:
        space: The data: images or vectors, their shape and their checks.
        image_shape: ``(C, H, W)``; empty for vectors.
        n_bits: Bits per grey level; with fewer than 8 the low bits of an image are dropped first. 0 for vectors.
        dims: D, the number of values in an item.
        dequantization: Integers to reals.
        augmentation: From D reals to more, or None.
        bijector: Reals (images in ``[0, 1]^D`` as ``(B, C, H, W)``) to the latent ``(B, D)``.
        base: Standard density of the latent.
        labels: The classes that it is conditioned on, or None.
        architecture: Name of the architecture, if it was built by one.
        config: The architecture's config, if it was built by one.
        card: The manifest entry, if the weights were loaded by name.
        engine: The plans by which it is computed faster; see :mod:`flowzoo.engine`.
    """

    def __init__(
        self,
        *,
        bijector: Bijector,
        image_shape: tuple[int, int, int] | None = None,
        dims: int | None = None,
        dequantization: Dequantization | None = None,
        augmentation: Augmentation | None = None,
        base: BaseDensity | None = None,
        n_bits: int = 8,
        classes: int | None = None,
        label_dropout: bool = False,
    ) -> None:
        """Composes the parts.

        Args:
            bijector: Reals to the latent.
            image_shape: ``(C, H, W)`` of a flow over images.
            dims: D of a flow over vectors.
            dequantization: Of images; uniform unless given.
            augmentation: If given, the bijector takes ``(B, D + d)``.
            base: Density of the latent; standard normal unless given.
            n_bits: Bits per grey level of images.
            classes: Number of classes of a conditional flow; bijectors get one-hot rows ``(B, K)`` as context.
            label_dropout: Whether it also models items without a label; their context is the row 1 / K. Otherwise
                the probability of an item without a label is the average over all labels.

        Raises:
            ConfigError: The parts do not fit each other.
        """
        super().__init__()
        self.space = _space(image_shape, dims, n_bits, dequantization)
        self.image_shape: tuple[int, ...] = tuple(image_shape or ())
        self.n_bits = n_bits if image_shape is not None else 0
        self.dims = self.space.dims
        uniform_or_none = UniformDequantization if self.space.kind == "images" else NoDequantization
        self.dequantization = dequantization or uniform_or_none()
        self.augmentation = augmentation
        self.bijector = bijector
        self.base = base or StandardNormal()
        self.labels = None if classes is None else Labels(classes, dropout=label_dropout)
        self.architecture: str | None = None
        self.config: Any = None
        self.card: Entry | Unlisted | None = None
        self.engine = Engine()
        number_layers(self)

    @property
    def data_kind(self) -> DataKind:
        """``"images"`` or ``"vectors"``."""
        return self.space.kind

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Of one item: ``(C, H, W)`` or ``(D,)``."""
        return self.space.shape

    @property
    def latent_dims(self) -> int:
        """D, and the extra dimensions of an augmentation."""
        return self.dims + (self.augmentation.extra_dims if self.augmentation is not None else 0)

    @property
    def is_lower_bound(self) -> bool:
        """True if ``log_prob`` bounds log P(x) by learned noise or an augmentation; more ``samples`` tighten it."""
        return self.dequantization.is_lower_bound or self.augmentation is not None

    @property
    def valid_bpd(self) -> bool:
        """True if ``log_prob`` is of a probability of integers, so that bits per dimension mean something."""
        return self.data_kind == "images" and (self.dequantization.fills_bins or self.base.discrete)

    @property
    def unit(self) -> str:
        """The unit of :meth:`per_dim`: ``"bits/dim"`` of images, ``"nats/dim"`` of a density."""
        return "bits/dim" if self.valid_bpd else "nats/dim"

    @property
    def log_det_kind(self) -> LogDetKind:
        """``"exact"``, ``"unbiased"`` or ``"biased"``: how the log-determinant is had."""
        return self.bijector.log_det_kind

    @property
    def inverse_kind(self) -> DirectionKind:
        """``"analytic"``, ``"sequential"`` or ``"numeric"``: how samples are had."""
        return self.bijector.inverse_kind

    @property
    def density_passes(self) -> int:
        """Evaluations of a network, one after the other, that a density takes."""
        return self.bijector.forward_passes

    @property
    def sampling_passes(self) -> int:
        """Evaluations of a network, one after the other, that a sample takes."""
        return self.bijector.inverse_passes

    @property
    def noise_kind(self) -> NoiseKind:
        """The kind of noise that ``log_prob`` takes: ``"uniform"`` in [0, 1), ``"normal"``, or ``"none"``."""
        return self.dequantization.noise

    def frozen(self) -> AbstractContextManager[None]:
        """A context that promises that no weight changes, so that values made of weights are kept between calls.

        Kernels are folded and laid out once, inverse matrices computed once. Gradients are computed as ever. Outside
        of it every call reads the weights as they are.
        """
        return self.engine.frozen()

    def nats_to_bits(self, log_prob: Tensor) -> Tensor:
        """Log-probability in nats to bits per dimension."""
        return -log_prob / (self.dims * math.log(2))

    def per_dim(self, log_prob: Tensor) -> Tensor:
        """Log-probability in nats to what is minimised and reported, in :attr:`unit`: -log2 P / D, or -log p / D."""
        return self.nats_to_bits(log_prob) if self.valid_bpd else -log_prob / self.dims

    def draw_noise(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws dequantization noise ``(n, C, H, W)`` of kind :attr:`noise_kind`; zeros where there is none."""
        device, dtype = self._placement()
        if self.noise_kind == "none":
            return torch.zeros(n, *self.data_shape, device=device, dtype=dtype)
        draw = torch.rand if self.noise_kind == "uniform" else torch.randn
        return drawn(draw, (n, *self.data_shape), generator, device, dtype)

    def _placement(self) -> tuple[torch.device, torch.dtype]:
        for module in self.modules():
            # The replicas of nn.DataParallel hold tensors where parameters were.
            for tensor in (*module.parameters(recurse=False), *vars(module).values()):
                if isinstance(tensor, Tensor) and tensor.is_floating_point():
                    return tensor.device, tensor.dtype
        for buffer in self.buffers():
            if buffer.is_floating_point():
                return buffer.device, buffer.dtype
        return torch.device("cpu"), torch.get_default_dtype()

    def _values(self, x: object) -> Tensor:
        """Data as floats of the model's dtype, checked."""
        checked = self.space.require(x)
        device, dtype = self._placement()
        if checked.device != device:
            raise InputError(
                f"{self.data_kind} are on {checked.device} and the model on {device}; move one: "
                f"x.to({str(device)!r})."
            )
        values = self.space.values(checked, dtype)
        if self.data_kind == "vectors" and self._may_look(values):
            require_finite(values)
        return values

    def context_of(self, y: object, n: int) -> Tensor | None:
        """The context of bijectors for labels ``(n,)``; None of a flow without labels, or for the average over them.

        Raises:
            InputError: These are no labels of this flow.
        """
        if self.labels is None:
            if y is not None:
                raise InputError(
                    "labels were given to a flow that has none; leave y out, or build one with classes=K."
                )
            return None
        if y is None and not self.labels.dropout:
            return None
        labels = self.labels.require(-1 if y is None else y, n)
        if self._may_look(labels):
            self.labels.check_values(labels)
        return self.labels.context(labels, *self._placement())

    @staticmethod
    def _may_look(x: Tensor) -> bool:
        """Whether values may be read here: not inside transforms and compilers, nor where a GPU would have to wait."""
        if transforms_active() or torch.compiler.is_compiling() or is_traced():
            return False
        return x.device.type == "cpu" or not torch.is_grad_enabled()

    def _keys(self, n: int, generator: torch.Generator | None) -> Keys | None:
        """Keys drawn from a generator for what bijectors and augmentation draw, if they draw anything."""
        draws = self.augmentation is not None or self.bijector.log_det_kind != "exact"
        if generator is None or not draws:
            return None
        seed = torch.randint(2**62, (), generator=generator, device=generator.device)
        return Keys(seed=int(seed), items=range(n))

    def _noise_like(self, values: Tensor, noise: object) -> Tensor:
        if not isinstance(noise, Tensor) or noise.shape != values.shape or not noise.is_floating_point():
            raise InputError(
                f"noise is {describe(noise)}; expected a floating-point tensor of the data's shape, "
                f"{tuple(values.shape)}."
            )
        return noise.to(values)

    def _check_latent(self, z: Tensor) -> None:
        if z.ndim != 2 or z.shape[1] != self.latent_dims:
            raise InputError(
                f"the bijector gave a latent of shape {tuple(z.shape)}; expected (B, {self.latent_dims}). "
                "End the stack with Flatten."
            )


def _space(
    image_shape: tuple[int, int, int] | None,
    dims: int | None,
    n_bits: int,
    dequantization: Dequantization | None,
) -> DataSpace:
    if (image_shape is None) == (dims is None):
        raise ConfigError(
            f"image_shape is {image_shape} and dims {dims}; give image_shape of a flow over images, or dims of "
            "one over vectors."
        )
    if image_shape is not None:
        return Images(image_shape, n_bits)
    assert dims is not None
    if dequantization is not None and dequantization.noise != "none":
        raise ConfigError("a flow over real vectors has no dequantization; leave it out.")
    return Vectors(dims)
