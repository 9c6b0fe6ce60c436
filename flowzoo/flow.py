"""Flow: dequantization + bijector + base density = a probability of images of integers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowzoo.arguments import describe, require_count, require_generator
from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.chain import Chain, MemoryMode
from flowzoo.densities.base import BaseDensity, StandardNormal
from flowzoo.densities.dequantization import Dequantization, NoiseKind, UniformDequantization
from flowzoo.engine import Engine
from flowzoo.errors import ConfigError, InputError
from flowzoo.inference import Inference
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.precision import RunsNetwork
from flowzoo.summary import summarize

if TYPE_CHECKING:
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.external import Unlisted


LEAST_INIT_IMAGES = 2
"""Images that the data-dependent initialisation needs at least."""

ABSURD_BITS = 100.0
"""Bits per dimension after initialisation above which scales are absurd; uniform guessing has 8."""


class Flow(Inference):
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
        engine: The plans by which it is computed faster; see :mod:`flowzoo.engine`.

    ``log_prob`` and ``forward`` follow the mode that ``train()`` and ``eval()`` set and record gradients. ``encode``,
    ``decode``, ``reconstruct``, ``sample`` and ``bits_per_dim`` always compute as in eval mode, a batch at a time,
    and record gradients only where that is asked for.
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
        self.engine = Engine()

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
        self,
        x: Tensor,
        *,
        samples: int = 1,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Log-probability of images.

        Args:
            x: Images ``uint8 (B, C, H, W)``.
            samples: Draws of dequantization noise for each image, of which the importance-weighted average is taken;
                a bound tightens with their number (Burda et al., 2016).
            noise: The noise to use instead, ``(B, C, H, W)`` of kind :attr:`noise_kind`.
            generator: Where noise is drawn from.

        Returns:
            ``(B,)`` nats.

        Raises:
            InputError: Wrong type, dtype, shape or device.
        """
        levels = self._levels(x)
        require_count("samples", samples)
        require_generator(generator)
        if noise is not None:
            if samples != 1:
                raise InputError(f"log_prob got noise and samples={samples}; give one of them.")
            return self._log_prob(levels, self._noise_like(levels, noise))
        terms = [
            self._log_prob(levels, self.draw_noise(len(levels), generator=generator)) for _ in range(samples)
        ]
        return terms[0] if samples == 1 else torch.logsumexp(torch.stack(terms), 0) - math.log(samples)

    def _log_prob(self, levels: Tensor, noise: Tensor) -> Tensor:
        """Log-probability in nats ``(B,)`` of grey levels under one draw of noise."""
        u, log_q = self.dequantization(levels, noise, self.engine.run)
        z, log_det = self.engine.run(self.bijector, self._unit_interval(levels + u))
        self._check_latent(z)
        log_prob: Tensor = self.base.log_prob(z) + log_det - log_q - self.dims * self.n_bits * math.log(2)
        return log_prob

    def frozen(self) -> AbstractContextManager[None]:
        """A context that promises that no weight changes, so that values made of weights are kept between calls.

        Kernels are folded and laid out once, inverse matrices computed once. Gradients are computed as ever. Outside
        of it every call reads the weights as they are.
        """
        return self.engine.frozen()

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

        Raises:
            InputError: There are too few images, or the model gives NaN or infinity after it.
        """
        if len(self._levels(x)) < LEAST_INIT_IMAGES:
            raise InputError(
                f"initialize got {len(x)} image(s); expected at least {LEAST_INIT_IMAGES}, better a few hundred: "
                "scales are set from the variation among them."
            )
        pending = [module for module in self._data_dependent() if not bool(module.initialized)]
        if not pending:
            return False
        for module in pending:
            module.initializing = True
        try:
            log_prob = self.log_prob(x, noise=noise, generator=generator)
        finally:
            for module in pending:
                module.initializing = False
        bits = float(self.nats_to_bits(log_prob).mean())
        if not math.isfinite(bits):
            raise InputError(
                f"after initialisation from {len(x)} images the model gives {bits} bits/dim: give more, and "
                "more varied, images. Create the model anew, its scales are spoilt."
            )
        if bits > ABSURD_BITS:
            warnings.warn(
                f"after initialisation from {len(x)} images the model gives {bits:,.0f} bits/dim: some scales are "
                "absurd, as where pixels hardly vary. Give more, and more varied, images.",
                stacklevel=3,
            )
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

    def _data_dependent(self) -> Iterator[DataDependentInit]:
        return (module for module in self.modules() if isinstance(module, DataDependentInit))

    def _placement(self) -> tuple[torch.device, torch.dtype]:
        for module in self.modules():
            # The replicas of nn.DataParallel hold tensors where parameters were.
            for tensor in (*module._parameters.values(), *module.__dict__.values()):
                if isinstance(tensor, Tensor) and tensor.is_floating_point():
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

    def _noise_like(self, levels: Tensor, noise: object) -> Tensor:
        if not isinstance(noise, Tensor) or noise.shape != levels.shape or not noise.is_floating_point():
            raise InputError(
                f"noise is {describe(noise)}; expected a floating-point tensor of the images' shape, "
                f"{tuple(levels.shape)}."
            )
        return noise.to(levels)

    def _check_latent(self, z: Tensor) -> None:
        if z.ndim != 2 or z.shape[1] != self.dims:
            raise InputError(
                f"the bijector gave a latent of shape {tuple(z.shape)}; expected (B, {self.dims}). "
                "End the stack with Flatten."
            )
