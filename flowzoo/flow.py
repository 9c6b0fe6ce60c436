"""Flow: dequantization + bijector + base density = a probability of images of integers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector
from flowzoo.bijectors.chain import Chain, MemoryMode
from flowzoo.bijectors.replicas import in_eval_mode
from flowzoo.densities.base import BaseDensity, StandardNormal
from flowzoo.densities.dequantization import Dequantization, NoiseKind, UniformDequantization
from flowzoo.engine import Engine
from flowzoo.errors import ConfigError, InputError
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.precision import RunsNetwork
from flowzoo.summary import summarize

if TYPE_CHECKING:
    from flowzoo.manifest.schema import Entry
    from flowzoo.weights.external import Unlisted


MOST_REDRAWS = 100
"""How often :meth:`Flow.sample` draws latents again before it gives up."""

LEAST_INIT_IMAGES = 2
"""Images that the data-dependent initialisation needs at least."""

ABSURD_BITS = 100.0
"""Bits per dimension after initialisation above which scales are absurd; uniform guessing has 8."""


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
        _require_count("samples", samples)
        _require_generator(generator)
        if noise is not None:
            if samples != 1:
                raise InputError(f"log_prob got noise and samples={samples}; give one of them.")
            return self._log_prob(levels, self._noise_like(levels, noise))
        terms = [
            self._log_prob(levels, self.draw_noise(len(levels), generator=generator)) for _ in range(samples)
        ]
        return terms[0] if samples == 1 else torch.logsumexp(torch.stack(terms), 0) - math.log(samples)

    def _log_prob(self, levels: Tensor, noise: Tensor, bijector: Bijector | None = None) -> Tensor:
        """Log-probability in nats ``(B,)`` of grey levels under one draw of noise."""
        u, log_q = self.dequantization(levels, noise, self.engine.run)
        z, log_det = self.engine.run(bijector or self.bijector, self._unit_interval(levels + u))
        self._check_latent(z)
        log_prob: Tensor = self.base.log_prob(z) + log_det - log_q - self.dims * self.n_bits * math.log(2)
        return log_prob

    def frozen(self) -> AbstractContextManager[None]:
        """A context that promises that no weight changes, so that values made of weights are kept between calls.

        Kernels are folded and laid out once, inverse matrices computed once. Gradients are computed as ever. Outside
        of it every call reads the weights as they are.
        """
        return self.engine.frozen()

    def bits_per_dim(
        self,
        x: Tensor,
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        batch_size: int = 64,
        grad: bool = False,
    ) -> Tensor:
        """Bits per dimension, -log2 P(x) / D, from an importance-weighted average over the noise.

        Args:
            x: Images ``uint8 (B, C, H, W)``.
            samples: Draws of noise per image; the bound tightens with their number (Burda et al., 2016).
            generator: Where noise is drawn from; the same for any batch size.
            seed: Of a generator, instead of one.
            batch_size: How many images are evaluated at a time.
            grad: Whether gradients are recorded.

        Returns:
            ``(B,)`` bits per dimension.
        """
        levels = self._levels(x)
        _require_count("samples", samples)
        _require_count("batch_size", batch_size)
        generator = _generator(generator, seed)
        model = self._evaluated()
        with torch.set_grad_enabled(grad), nullcontext() if grad else model.frozen():
            total: Tensor | None = None
            for _ in range(samples):
                noise = self.draw_noise(len(levels), generator=generator)
                parts = zip(levels.split(batch_size), noise.split(batch_size), strict=True)
                term = torch.cat([model._log_prob(*part) for part in parts])
                total = term if total is None else torch.logaddexp(total, term)
        assert total is not None
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
        seed: int | None = None,
        batch_size: int = 64,
        on_nonfinite: Literal["redraw", "raise"] = "redraw",
    ) -> Tensor:
        """Draws images.

        Args:
            n: How many.
            temperature: Factor on the latent; below 1 gives more typical images.
            generator: Source of the latent noise; a CPU generator gives the same latents for any batch size and
                device. Their images differ by a grey level at most, where a value lies on the border of two.
            seed: Of a generator, instead of one.
            batch_size: How many images are decoded at a time.
            on_nonfinite: What happens where the inverse of a latent is NaN or infinite in the model's precision:
                ``"redraw"`` draws those latents again and warns how many, ``"raise"`` raises an error.

        Returns:
            ``uint8 (n, C, H, W)``.

        Raises:
            InputError: Wrong arguments, or latents that cannot be inverted.
        """
        _require_count("n", n, least=0)
        _require_count("batch_size", batch_size)
        if not _is_finite(temperature):
            raise InputError(f"temperature is {temperature!r}; expected a finite number of at least 0.")
        if on_nonfinite not in ("redraw", "raise"):
            raise InputError(f"on_nonfinite is {on_nonfinite!r}; expected 'redraw' or 'raise'.")
        generator = _generator(generator, seed)
        model = self._evaluated()
        with model.frozen():
            images, finite = model._decode_many(self._draw_latents(n, temperature, generator), batch_size)
            wrong = n - int(finite.sum())
            again = 0
            for _ in range(MOST_REDRAWS if on_nonfinite == "redraw" else 0):
                left = (~finite).nonzero().flatten()
                if not len(left):
                    break
                again += len(left)
                z = self._draw_latents(len(left), temperature, generator)
                images[left], finite[left] = model._decode_many(z, batch_size)
        if not bool(finite.all()):
            raise InputError(
                f"{wrong} of {n} latents drawn at temperature {temperature:g} have an inverse that is NaN or infinite: "
                "the model is untrained, or unstable off its data. Lower the temperature or use flow.double()."
            )
        if again:
            warnings.warn(
                f"{wrong} of {n} samples at temperature {temperature:g} were NaN or infinite and were drawn again.",
                stacklevel=3,
            )
        return images

    def _draw_latents(self, n: int, temperature: float, generator: torch.Generator | None) -> Tensor:
        device, dtype = self._placement()
        z = self.base.sample(n, self.dims, generator=generator, device=device, dtype=dtype)
        return z if temperature == 1.0 else z * temperature

    def _decode_many(self, z: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        """Images of latents, and which of them are finite."""
        if not len(z):
            # Not every reshape knows what to make of nothing.
            empty = torch.empty((0, *self.image_shape), dtype=torch.uint8, device=z.device)
            return empty, torch.ones(0, dtype=torch.bool, device=z.device)
        found = [self.engine.run(self.bijector, part, inverse=True)[0] for part in z.split(batch_size)]
        finite = torch.cat([torch.isfinite(y).flatten(1).all(1) for y in found])
        return torch.cat([self._images(y) for y in found]), finite

    def _images(self, y: Tensor) -> Tensor:
        """Grey levels of ``[0, 1]^D``; values outside are clipped."""
        # Of numbers that are not negative the conversion drops the fraction.
        scaled = torch.nan_to_num(y * 2**self.n_bits).clamp_(0, 2**self.n_bits - 1)
        levels: Tensor = scaled.to(torch.uint8)
        return (levels << (8 - self.n_bits) if self.n_bits < 8 else levels).contiguous()

    def encode(self, x: Tensor, *, batch_size: int = 64, grad: bool = False) -> Tensor:
        """Latent of images, dequantized by the median noise: ``uint8 (B, C, H, W)`` to ``(B, D)``.

        Uniform noise has its median in the middle of each bin, learned noise where the model expects its data.

        Args:
            x: Images.
            batch_size: How many images are encoded at a time.
            grad: Whether gradients are recorded.
        """
        levels = self._levels(x)
        _require_count("batch_size", batch_size)
        model = self._evaluated()
        with torch.set_grad_enabled(grad), nullcontext() if grad else model.frozen():
            parts = []
            for part in levels.split(batch_size):
                u = model.dequantization.central(part, model.engine.run)
                parts.append(model.engine.run(model.bijector, self._unit_interval(part + u))[0])
        for part in parts:
            self._check_latent(part)
        return torch.cat(parts).contiguous()

    @torch.no_grad()
    def decode(self, z: Tensor, *, batch_size: int = 64) -> Tensor:
        """Images of a latent: ``(B, D)`` to ``uint8 (B, C, H, W)``; values outside the range are clipped.

        The latent is taken to the model's precision. For gradients at images use ``flow.bijector.inverse``.

        Raises:
            InputError: ``z`` is no such latent, or its inverse is NaN or infinite.
        """
        if not self._is_latent(z):
            raise InputError(f"decode got {_describe(z)}; expected a floating-point tensor (B, {self.dims}).")
        _require_count("batch_size", batch_size)
        device, dtype = self._placement()
        if z.device != device:
            raise InputError(
                f"the latent is on {z.device} and the model on {device}; move one: z.to({str(device)!r})."
            )
        model = self._evaluated()
        with model.frozen():
            images, finite = model._decode_many(z.to(dtype), batch_size)
        if not bool(finite.all()):
            wrong = (~finite).nonzero().flatten().tolist()
            raise InputError(
                f"the inverse of {len(wrong)} of {len(z)} latents is NaN or infinite (rows {_few(wrong)}): they "
                "are far outside what the model was trained on, or it is untrained. Lower the temperature or use "
                "flow.double()."
            )
        return images

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

    def _evaluated(self) -> Flow:
        """This flow in eval mode: itself, or, of one in train mode, a copy that holds the same tensors."""
        return in_eval_mode(self) if self.training else self

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
                f"noise is {_describe(noise)}; expected a floating-point tensor of the images' shape, "
                f"{tuple(levels.shape)}."
            )
        return noise.to(levels)

    def _is_latent(self, z: object) -> bool:
        return isinstance(z, Tensor) and z.ndim == 2 and z.shape[1] == self.dims and z.is_floating_point()

    def _check_latent(self, z: Tensor) -> None:
        if z.ndim != 2 or z.shape[1] != self.dims:
            raise InputError(
                f"the bijector gave a latent of shape {tuple(z.shape)}; expected (B, {self.dims}). "
                "End the stack with Flatten."
            )


def _require_count(name: str, value: object, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InputError(f"{name} is {value!r}; expected a whole number of at least {least}.")


def _require_generator(generator: object) -> None:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator is {generator!r}; expected None or a torch.Generator, as torch.Generator().manual_seed(0)."
        )


def _generator(generator: torch.Generator | None, seed: int | None) -> torch.Generator | None:
    """The generator, or one of this seed."""
    _require_generator(generator)
    if seed is None:
        return generator
    if generator is not None:
        raise InputError("both generator and seed are given; expected one of them.")
    _require_count("seed", seed, least=0)
    if seed >= 2**63:
        raise InputError(f"seed is {seed!r}; expected a whole number from 0 to 2^63 - 1.")
    return torch.Generator().manual_seed(int(seed))


def _is_finite(temperature: object) -> bool:
    known = isinstance(temperature, int | float | Integral) and not isinstance(temperature, bool)
    return known and 0 <= float(temperature) < math.inf  # type: ignore[arg-type]


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        hint = " (torch.from_numpy makes a tensor of an array)" if type(value).__module__ == "numpy" else ""
        return f"a {type(value).__name__}{hint}"
    return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
