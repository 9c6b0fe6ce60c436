"""Flow: dequantization + bijector + base density = a probability of images of integers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.chain import Chain, MemoryMode
from flowzoo.densities.base import BaseDensity, StandardNormal
from flowzoo.densities.dequantization import Dequantization, NoiseKind, UniformDequantization
from flowzoo.errors import ConfigError, InputError
from flowzoo.nets.caching import Snapshot, unkept
from flowzoo.nets.folding import folded_together
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.precision import RunsNetwork
from flowzoo.nets.tree import modules_of
from flowzoo.summary import summarize

if TYPE_CHECKING:
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.external import Unlisted


class Flow(nn.Module):
    """A normalizing flow over images ``uint8 (B, C, H, W)``.

    log P(x) >= log p(f((x + u) / 2^n)) + log|det df| - D n log 2 - log q(u|x), in nats, with P a probability of
    integers, f the bijector onto R^D, p its standard base density and q the dequantization noise.

    Attributes:
        image_shape: ``(C, H, W)``.
        n_bits: Bits per grey level; with fewer than 8 the low bits of an image are dropped first.
        dims: D = C H W.
        dequantization: Integers to reals.
        bijector: ``[0, 1]^D`` as ``(B, C, H, W)`` to the latent ``(B, D)``.
        base: Standard density of the latent.
        architecture: Name of the architecture, if it was built by one.
        config: The architecture's config, if it was built by one.
        card: The manifest entry, if the weights were loaded by name.
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        bijector: Bijector,
        dequantization: Dequantization | None = None,
        base: BaseDensity | None = None,
        n_bits: int = 8,
    ) -> None:
        """Composes the three parts; dequantization is uniform and the base normal unless given."""
        super().__init__()
        if not 1 <= n_bits <= 8:
            raise ConfigError(f"n_bits is {n_bits}; expected 1 to 8.")
        self.image_shape = tuple(image_shape)
        self.n_bits = n_bits
        self.dims = math.prod(image_shape)
        self.dequantization = dequantization or UniformDequantization()
        self.bijector = bijector
        self.base = base or StandardNormal()
        self.architecture: str | None = None
        self.config: Any = None
        self.card: Entry | Unlisted | None = None
        self._snapshot = Snapshot()
        self.to(memory_format=torch.channels_last)

    @property
    def is_lower_bound(self) -> bool:
        """True if ``log_prob`` bounds log P(x) by learned noise; more ``samples`` tighten it."""
        return self.dequantization.is_lower_bound

    @property
    def noise_kind(self) -> NoiseKind:
        """The kind of noise that ``log_prob`` takes: ``"uniform"`` in [0, 1) or ``"normal"``."""
        return self.dequantization.noise

    @property
    def is_initialized(self) -> bool:
        """True if every data-dependent initialisation has happened."""
        return all(bool(module.initialized) for module in self._data_dependent())

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """The same as :meth:`log_prob`, so that wrappers of modules can train a flow."""
        return self.log_prob(x, noise=noise)

    def log_prob(
        self, x: Tensor, *, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Log-probability of images from one draw of dequantization noise.

        Args:
            x: Images ``uint8 (B, C, H, W)``.
            noise: The noise to use, ``(B, C, H, W)`` of kind :attr:`noise_kind`; drawn if not given.
            generator: Where noise is drawn from.

        Returns:
            ``(B,)`` nats.

        Raises:
            InputError: Wrong dtype, shape or device.
        """
        levels = self._levels(x)
        if noise is None:
            noise = self.draw_noise(x.shape[0], generator=generator)
        elif noise.shape != x.shape:
            raise InputError(
                f"noise has shape {tuple(noise.shape)}; expected that of the images, {tuple(x.shape)}."
            )
        with self._folded():
            u, log_q = self.dequantization(levels, noise.to(levels))
            z, log_det = self.bijector(self._unit_interval(levels + u))
        self._check_latent(z)
        log_prob: Tensor = self.base.log_prob(z) + log_det - log_q - self.dims * self.n_bits * math.log(2)
        return log_prob

    def bits_per_dim(
        self, x: Tensor, *, samples: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Bits per dimension, -log2 P(x) / D, from an importance-weighted average over the noise.

        Args:
            x: Images ``uint8 (B, C, H, W)``.
            samples: Draws of noise per image; the bound tightens with their number (Burda et al., 2016).
            generator: Where noise is drawn from.

        Returns:
            ``(B,)`` bits per dimension.
        """
        if samples < 1:
            raise InputError(f"samples is {samples}; expected at least 1.")
        total = self.log_prob(x, generator=generator)
        for _ in range(samples - 1):
            total = torch.logaddexp(total, self.log_prob(x, generator=generator))
        return self.nats_to_bits(total - math.log(samples))

    def nats_to_bits(self, log_prob: Tensor) -> Tensor:
        """Log-probability in nats to bits per dimension."""
        return -log_prob / (self.dims * math.log(2))

    def draw_noise(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws dequantization noise ``(n, C, H, W)`` of kind :attr:`noise_kind`."""
        device, dtype = self._placement()
        source = device if generator is None else generator.device
        draw = torch.rand if self.noise_kind == "uniform" else torch.randn
        return draw(n, *self.image_shape, generator=generator, device=source, dtype=dtype).to(device)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        """Draws images.

        Args:
            n: How many.
            temperature: Factor on the latent; below 1 gives more typical images.
            generator: Source of the latent noise; a CPU generator gives the same images for any batch size.
            batch_size: How many images are decoded at a time.

        Returns:
            ``uint8 (n, C, H, W)``.
        """
        counts: tuple[object, ...] = (n, batch_size)
        whole = all(isinstance(count, Integral) for count in counts)
        if not whole or n < 0 or batch_size < 1 or not 0 <= temperature < math.inf:
            raise InputError(
                f"sample got n={n}, temperature={temperature}, batch_size={batch_size}; "
                "expected whole numbers n >= 0 and batch_size >= 1, and a finite temperature >= 0."
            )
        device, dtype = self._placement()
        z = self.base.sample(n, self.dims, generator=generator, device=device, dtype=dtype)
        z = z if temperature == 1.0 else z * temperature
        batches = [self.decode(part) for part in z.split(batch_size)]
        return torch.cat(batches) if len(batches) > 1 else batches[0]

    def encode(self, x: Tensor) -> Tensor:
        """Latent of images, dequantized by the median noise: ``uint8 (B, C, H, W)`` to ``(B, D)``.

        Uniform noise has its median in the middle of each bin, learned noise where the model expects its data.
        """
        levels = self._levels(x)
        with self._folded():
            z, _ = self.bijector(self._unit_interval(levels + self.dequantization.central(levels)))
        self._check_latent(z)
        return z.contiguous()

    def decode(self, z: Tensor) -> Tensor:
        """Images of a latent: ``(B, D)`` to ``uint8 (B, C, H, W)``; values outside the range are clipped.

        The latent is taken to the model's precision.
        """
        if z.ndim != 2 or z.shape[1] != self.dims or not z.is_floating_point():
            raise InputError(
                f"decode got a {z.dtype} tensor of shape {tuple(z.shape)}; expected floating point (B, {self.dims})."
            )
        device, dtype = self._placement()
        if z.device != device:
            raise InputError(
                f"the latent is on {z.device} and the model on {device}; move one: z.to({str(device)!r})."
            )
        if not len(z):
            # Not every reshape knows what to make of nothing.
            return z.new_empty((0, *self.image_shape), dtype=torch.uint8)
        with self._folded():
            y, _ = self.bijector.inverse(z.to(dtype))
        if not bool(torch.isfinite(torch.stack(torch.aminmax(y))).all()):
            raise InputError(
                "the inverse gave NaN or infinity: this latent is far outside what the model was trained on, "
                "or the model is untrained. Lower the temperature or use flow.double()."
            )
        # Of numbers that are not negative the conversion drops the fraction.
        levels: Tensor = (y * 2**self.n_bits).clamp_(0, 2**self.n_bits - 1).to(torch.uint8)
        return (levels << (8 - self.n_bits) if self.n_bits < 8 else levels).contiguous()

    def reconstruct(self, x: Tensor) -> Tensor:
        """``decode(encode(x))``; equals ``x`` (with its low bits dropped if ``n_bits`` < 8) in a sound model."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def initialize(
        self, x: Tensor, *, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> bool:
        """Runs the data-dependent initialisation on one full batch, unless it has happened.

        Args:
            x: Images ``uint8 (B, C, H, W)``, a few hundred.
            noise: Dequantization noise to use; drawn if not given.
            generator: Where noise is drawn from.

        Returns:
            True if anything was initialised now.
        """
        pending = [module for module in self._data_dependent() if not bool(module.initialized)]
        if not pending:
            return False
        for module in pending:
            module.initializing = True
        try:
            with unkept():
                self.log_prob(x, noise=noise, generator=generator)
        finally:
            for module in pending:
                module.initializing = False
        return True

    def set_memory(self, memory: MemoryMode) -> None:
        """Chooses what the backward pass keeps: see :class:`flowzoo.bijectors.Chain`."""
        for module in self.modules():
            if isinstance(module, Chain):
                module.set_memory(memory)

    def set_network_dtype(self, dtype: torch.dtype | None) -> None:
        """Runs the networks inside couplings under autocast to ``dtype``; None restores full precision."""
        for module in self.modules():
            if isinstance(module, RunsNetwork):
                module.network_dtype = dtype

    def summary(self) -> str:
        """The stack as a table: bijectors, output shapes, parameters."""
        return summarize(self)

    def _folded(self) -> AbstractContextManager[None]:
        """Folds the parameters of all modules together where autograd records; by inversion, chains do it.

        In evaluation modules keep what they folded, and ask once for all of them whether it still holds.
        """
        if torch.compiler.is_compiling():
            return nullcontext()
        if not torch.is_grad_enabled():
            return nullcontext() if self.training else self._snapshot.taken(self)
        chains = (module for module in modules_of(self) if isinstance(module, Chain))
        rebuilt = any(chain.memory == "invertible" for chain in chains)
        return nullcontext() if rebuilt else folded_together(self)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode, as of any module."""
        self._snapshot.forget()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._snapshot.forget()
        moved: Self = super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return moved

    def _data_dependent(self) -> Iterator[DataDependentInit]:
        return (module for module in self.modules() if isinstance(module, DataDependentInit))

    def _placement(self) -> tuple[torch.device, torch.dtype]:
        for tensor in self.parameters():
            return tensor.device, tensor.dtype
        return torch.device("cpu"), torch.get_default_dtype()

    def _levels(self, x: object) -> Tensor:
        if not isinstance(x, Tensor):
            raise InputError(
                f"images are {type(x).__name__}; expected a torch.Tensor of uint8 grey levels. "
                "From a numpy array: torch.from_numpy(x)."
            )
        if x.dtype != torch.uint8:
            hint = " Images in [0, 1]: (x * 255).round().to(torch.uint8)." if x.is_floating_point() else ""
            raise InputError(f"images are {x.dtype}; expected torch.uint8 grey levels 0 to 255.{hint}")
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise InputError(
                f"images have shape {tuple(x.shape)}; this model expects (B, {', '.join(map(str, self.image_shape))})."
            )
        if not len(x):
            raise InputError(
                f"the batch is empty: images have shape {tuple(x.shape)}; expected at least one."
            )
        device, dtype = self._placement()
        if x.device != device:
            raise InputError(
                f"images are on {x.device} and the model on {device}; move one: x.to({str(device)!r})."
            )
        if self.n_bits < 8:
            x = x >> (8 - self.n_bits)
        return x.to(dtype).contiguous()

    def _unit_interval(self, levels: Tensor) -> Tensor:
        """Levels over their number, written over them."""
        return levels.mul_(2.0**-self.n_bits)

    def _check_latent(self, z: Tensor) -> None:
        if z.ndim != 2 or z.shape[1] != self.dims:
            raise InputError(
                f"the bijector gave a latent of shape {tuple(z.shape)}; expected (B, {self.dims}). "
                "End the stack with Flatten."
            )
