"""The side of a flow that is used, not trained: sampling, encoding, decoding, bits per dimension."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn

from flowzoo.arguments import describe, few, generator_of, is_temperature, require_count
from flowzoo.bijectors.replicas import in_eval_mode
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from flowzoo.bijectors.base import Bijector
    from flowzoo.densities import BaseDensity, Dequantization
    from flowzoo.engine import Engine

MOST_REDRAWS = 100
"""How often :meth:`Flow.sample` draws latents again before it gives up."""


class Inference(nn.Module):
    """Base of :class:`flowzoo.flow.Flow`: everything that computes as in eval mode, a batch at a time.

    Gradients are recorded only where that is asked for.
    """

    if TYPE_CHECKING:
        image_shape: tuple[int, ...]
        n_bits: int
        dims: int
        dequantization: Dequantization
        bijector: Bijector
        base: BaseDensity
        engine: Engine

        def frozen(self) -> AbstractContextManager[None]: ...  # noqa: D102
        def nats_to_bits(self, log_prob: Tensor) -> Tensor: ...  # noqa: D102
        def draw_noise(self, n: int, *, generator: torch.Generator | None = None) -> Tensor: ...  # noqa: D102
        def _log_prob(self, levels: Tensor, noise: Tensor) -> Tensor: ...
        def _levels(self, x: object) -> Tensor: ...
        def _unit_interval(self, levels: Tensor) -> Tensor: ...
        def _check_latent(self, z: Tensor) -> None: ...
        def _placement(self) -> tuple[torch.device, torch.dtype]: ...

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
        require_count("samples", samples)
        require_count("batch_size", batch_size)
        generator = generator_of(generator, seed)
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
        require_count("n", n, least=0)
        require_count("batch_size", batch_size)
        if not is_temperature(temperature):
            raise InputError(f"temperature is {temperature!r}; expected a finite number of at least 0.")
        if on_nonfinite not in ("redraw", "raise"):
            raise InputError(f"on_nonfinite is {on_nonfinite!r}; expected 'redraw' or 'raise'.")
        generator = generator_of(generator, seed)
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
        require_count("batch_size", batch_size)
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
            raise InputError(f"decode got {describe(z)}; expected a floating-point tensor (B, {self.dims}).")
        require_count("batch_size", batch_size)
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
                f"the inverse of {len(wrong)} of {len(z)} latents is NaN or infinite (rows {few(wrong)}): they "
                "are far outside what the model was trained on, or it is untrained. Lower the temperature or use "
                "flow.double()."
            )
        return images

    def reconstruct(self, x: Tensor) -> Tensor:
        """``decode(encode(x))``; equals ``x`` (with its low bits dropped if ``n_bits`` < 8) in a sound model."""
        return self.decode(self.encode(x))

    def _evaluated(self) -> Self:
        """This flow in eval mode: itself, or, of one in train mode, a copy that holds the same tensors."""
        return in_eval_mode(self) if self.training else self

    def _is_latent(self, z: object) -> bool:
        return isinstance(z, Tensor) and z.ndim == 2 and z.shape[1] == self.dims and z.is_floating_point()
