"""The side of a flow that is used, not trained: sampling, encoding, decoding, bits per dimension."""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor

from flowzoo.arguments import MAX_DRAWS, describe, few, generator_of, is_temperature, require_count
from flowzoo.bijectors.replicas import in_eval_mode
from flowzoo.bijectors.wanted import values_alone
from flowzoo.errors import InputError, NotConverged
from flowzoo.parts import FlowParts

if TYPE_CHECKING:
    from flowzoo.nets.keyed import Keys

MOST_REDRAWS = 100
"""How often :meth:`Flow.sample` draws latents again before it gives up."""


class Inference(FlowParts):
    """Base of :class:`flowzoo.flow.Flow`: everything that computes as in eval mode, a batch at a time.

    Gradients are recorded only where that is asked for.
    """

    if TYPE_CHECKING:

        def _log_prob(
            self, values: Tensor, noise: Tensor, context: Tensor | None, keys: Keys | None
        ) -> Tensor: ...

    def bits_per_dim(
        self,
        x: Tensor,
        y: Tensor | int | None = None,
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
            y: Labels ``(B,)``, or one for all, of a conditional flow; None for the bits of x itself.
            samples: Draws of noise per image; the bound tightens with their number (Burda et al., 2016).
            generator: Where noise is drawn from; the same for any batch size.
            seed: Of a generator, instead of one.
            batch_size: How many images are evaluated at a time.
            grad: Whether gradients are recorded.

        Returns:
            ``(B,)`` bits per dimension.

        Raises:
            InputError: Wrong arguments, or a density, which has no bits per dimension.
        """
        if not self.valid_bpd:
            raise InputError(
                f"this flow is a density of {'noisy images' if self.data_kind == 'images' else 'real vectors'}, which "
                "has no bits per dimension; log_prob gives its nats."
            )
        return self.nats_to_bits(
            self._log_probs(x, y, samples, generator_of(generator, seed), batch_size, grad)
        )

    def _log_probs(
        self,
        x: Tensor,
        y: Tensor | int | None,
        samples: int,
        generator: torch.Generator | None,
        batch_size: int,
        grad: bool,
    ) -> Tensor:
        """Log-probability in nats ``(B,)``, a batch at a time."""
        values = self._values(x)
        require_count("samples", samples, most=MAX_DRAWS)
        require_count("batch_size", batch_size)
        context = self.context_of(y, len(values))
        keys = self._keys(len(values), generator)
        model = self._evaluated()
        with torch.set_grad_enabled(grad), nullcontext() if grad else model._kept(len(values), batch_size):
            total: Tensor | None = None
            for sample in range(samples):
                noise = self.draw_noise(len(values), generator=generator)
                terms = []
                for first in range(0, len(values), batch_size):
                    rows = slice(first, first + batch_size)
                    own = None if keys is None else replace(keys.part(first, rows.stop), sample=sample)
                    labels = None if context is None else context[rows]
                    terms.append(model._log_prob(values[rows], noise[rows], labels, own))
                term = torch.cat(terms)
                total = term if total is None else torch.logaddexp(total, term)
        assert total is not None
        if not grad and self._may_look(total) and not bool(torch.isfinite(total).all()):
            self._require_invertible(values, context, int(torch.isfinite(total).logical_not().nonzero()[0]))
        return total - math.log(samples)

    @torch.no_grad()
    def _require_invertible(self, values: Tensor, context: Tensor | None, row: int) -> None:
        """Checks that an item without a finite probability is unlikely, and not the map without an inverse.

        Raises:
            InputError: The log-determinant is what is not finite.
        """
        if context is None and self.labels is not None:
            context = self.labels.context(torch.zeros(len(values), dtype=torch.int64), *self._placement())
        item = values[row : row + 1]
        u, _ = self.dequantization(item, self.draw_noise(1), self.engine.run)
        v = self.space.to_reals(item + u)
        if self.augmentation is not None:
            v, _ = self.augmentation(v, self.engine.run)
        own = None if context is None else context[row : row + 1]
        z, log_det = self.engine.run(self.bijector, v, own)
        if bool(torch.isfinite(z).all()) and not bool(torch.isfinite(log_det).all()):
            raise InputError(
                f"the log-determinant of this flow is {float(log_det):g} at row {row}: a matrix or a scale of it is "
                "singular, so that there is no density. The weights are damaged, or training has diverged."
            )

    @torch.no_grad()
    def class_log_probs(
        self,
        x: Tensor,
        *,
        samples: int = 1,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        """Log-probability of each label given an item, by Bayes' rule with equal prior probabilities.

        Args:
            x: Data as for ``log_prob``.
            samples: Draws of noise per item; the same noise for every label.
            generator: Where noise is drawn from.
            seed: Of a generator, instead of one.
            batch_size: How many items are evaluated at a time.

        Returns:
            ``(B, K)`` nats; ``argmax`` over K classifies.

        Raises:
            InputError: The flow has no labels.
        """
        if self.labels is None:
            raise InputError("class_log_probs needs a conditional flow; this one was built without classes.")
        generator = generator_of(generator, seed) or torch.Generator().manual_seed(
            int(torch.randint(2**62, ()))
        )
        state = generator.get_state()
        found = []
        for label in range(self.labels.classes):
            generator.set_state(state)
            found.append(self._log_probs(x, label, samples, generator, batch_size, False))
        return torch.log_softmax(torch.stack(found, dim=1), dim=1)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        y: Tensor | int | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        batch_size: int = 64,
        on_nonfinite: Literal["redraw", "raise"] = "redraw",
    ) -> Tensor:
        """Draws images or vectors.

        Args:
            n: How many.
            y: Labels ``(n,)``, or one for all, of a conditional flow. None draws them with equal probability, or, in
                a flow with label dropout, draws without a label.
            temperature: Factor on the latent; below 1 gives more typical images.
            generator: Source of the latent noise; a CPU generator gives the same latents for any batch size and
                device. Their images differ by a grey level at most, where a value lies on the border of two.
            seed: Of a generator, instead of one.
            batch_size: How many images are decoded at a time.
            on_nonfinite: What happens where the inverse of a latent is NaN or infinite in the model's precision:
                ``"redraw"`` draws those latents again and warns how many, ``"raise"`` raises an error.

        Returns:
            ``uint8 (n, C, H, W)``, or floats ``(n, D)``.

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
        with model._kept(n, batch_size):
            z = self._draw_latents(n, temperature, generator)
            context = self._sampling_context(y, n, generator)
            images, finite = model._decode_many(z, context, batch_size, drawn=True)
            wrong = n - int(finite.sum())
            again = 0
            for _ in range(MOST_REDRAWS if on_nonfinite == "redraw" else 0):
                left = (~finite).nonzero().flatten()
                if not len(left):
                    break
                again += len(left)
                z = self._draw_latents(len(left), temperature, generator)
                labels = None if context is None else context[left]
                images[left], finite[left] = model._decode_many(z, labels, batch_size, drawn=True)
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
        z = self.base.sample(n, self.latent_dims, generator=generator, device=device, dtype=dtype)
        return self.base.at_temperature(z, temperature)

    def _sampling_context(self, y: object, n: int, generator: torch.Generator | None) -> Tensor | None:
        """The context of n samples; without labels given they are drawn."""
        if y is None and self.labels is not None and not self.labels.dropout:
            source = None if generator is None else generator.device
            y = torch.randint(self.labels.classes, (n,), generator=generator, device=source)
        return self.context_of(y, n)

    def _decode_many(
        self, z: Tensor, context: Tensor | None, batch_size: int, *, drawn: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Data of latents, and which of them are finite (of a numeric inverse: converged)."""
        if not len(z):
            # Not every reshape knows what to make of nothing.
            empty = self.space.empty(z.device, z.dtype)
            return empty, torch.ones(0, dtype=torch.bool, device=z.device)
        found = []
        for first in range(0, len(z), batch_size):
            rows = slice(first, first + batch_size)
            found.append(self._invert(z[rows], None if context is None else context[rows], drawn))
        finite = torch.cat([torch.isfinite(v).flatten(1).all(1) for v in found])
        return torch.cat([self.space.from_reals(v) for v in found]), finite

    def _invert(self, z: Tensor, context: Tensor | None, drawn: bool) -> Tensor:
        """Reals of latents; rows of NaN where a numeric inverse does not converge."""
        left = torch.arange(len(z), device=z.device)
        for _ in range(len(z)):
            part = None if context is None else context[left]
            try:
                with values_alone(drawn=drawn):
                    v = self.engine.run(self.bijector, z[left], part, inverse=True)[0]
            except NotConverged as error:
                if not error.rows:
                    raise
                lost = torch.tensor(error.rows, device=z.device)
                kept = torch.ones(len(left), dtype=torch.bool, device=z.device).index_fill(0, lost, False)
                left = left[kept]
                if len(left):
                    continue
                v = z.new_empty(0, self.latent_dims)
            break
        if len(left) < len(z):
            whole = v.new_full((len(z), *v.shape[1:]), torch.nan)
            v = whole.index_copy(0, left, v)
        return v if self.augmentation is None else self.augmentation.remove(v, self.data_shape)

    def encode(
        self,
        x: Tensor,
        y: Tensor | int | None = None,
        *,
        batch_size: int = 64,
        grad: bool = False,
    ) -> Tensor:
        """Latent of images, dequantized by the median noise, or of vectors: ``(B, ...)`` to ``(B, D)``.

        Uniform noise has its median in the middle of each bin, learned noise where the model expects its data. An
        augmentation adds the middle of its extra values.

        Args:
            x: Images ``uint8 (B, C, H, W)``, or vectors ``(B, D)``.
            y: Labels ``(B,)``, or one for all, of a conditional flow.
            batch_size: How many images are encoded at a time.
            grad: Whether gradients are recorded.
        """
        values = self._values(x)
        require_count("batch_size", batch_size)
        context = self._known_context(y, len(values))
        model = self._evaluated()
        with torch.set_grad_enabled(grad), nullcontext() if grad else model._kept(len(values), batch_size):
            parts = []
            for first in range(0, len(values), batch_size):
                rows = slice(first, first + batch_size)
                parts.append(model._encode(values[rows], None if context is None else context[rows]))
        for part in parts:
            self._check_latent(part)
        return torch.cat(parts).contiguous()

    def _encode(self, values: Tensor, context: Tensor | None) -> Tensor:
        v = self.space.to_reals(values + self.dequantization.central(values, self.engine.run))
        if self.augmentation is not None:
            v, _ = self.augmentation(v, self.engine.run, central=True)
        with values_alone():
            return self.engine.run(self.bijector, v, context)[0]

    def _known_context(self, y: object, n: int) -> Tensor | None:
        """The context of labels that have to be given, where the flow models nothing without one."""
        if y is None and self.labels is not None and not self.labels.dropout:
            raise InputError(
                f"this flow is conditional and its latent depends on the label; give y, labels ({n},) of 0 to "
                f"{self.labels.classes - 1}."
            )
        return self.context_of(y, n)

    @torch.no_grad()
    def decode(self, z: Tensor, y: Tensor | int | None = None, *, batch_size: int = 64) -> Tensor:
        """Images or vectors of a latent ``(B, D)``; grey levels outside the range are clipped.

        The latent is taken to the model's precision. For gradients at images use ``flow.bijector.inverse``.

        Raises:
            InputError: ``z`` is no such latent, or its inverse is NaN or infinite.
        """
        if not self._is_latent(z):
            raise InputError(
                f"decode got {describe(z)}; expected a floating-point tensor (B, {self.latent_dims})."
            )
        require_count("batch_size", batch_size)
        device, dtype = self._placement()
        if z.device != device:
            raise InputError(
                f"the latent is on {z.device} and the model on {device}; move one: z.to({str(device)!r})."
            )
        context = self._known_context(y, len(z))
        model = self._evaluated()
        with model._kept(len(z), batch_size):
            images, finite = model._decode_many(z.to(dtype), context, batch_size)
        if not bool(finite.all()):
            wrong = (~finite).nonzero().flatten().tolist()
            raise InputError(
                f"the inverse of {len(wrong)} of {len(z)} latents is NaN or infinite (rows {few(wrong)}): they "
                "are far outside what the model was trained on, or it is untrained. Lower the temperature or use "
                "flow.double()."
            )
        return images

    def reconstruct(self, x: Tensor, y: Tensor | int | None = None) -> Tensor:
        """``decode(encode(x))``; equals ``x`` (with its low bits dropped if ``n_bits`` < 8) in a sound model."""
        return self.decode(self.encode(x, y), y)

    def _kept(self, n: int, batch_size: int) -> AbstractContextManager[None]:
        """The context of several batches, in which values made of weights are kept; for one they are not worth it."""
        return self.frozen() if n > batch_size else nullcontext()

    def _evaluated(self) -> Self:
        """This flow in eval mode: itself, or, of one in train mode, a copy that holds the same tensors."""
        return in_eval_mode(self) if self.training else self

    def _is_latent(self, z: object) -> bool:
        return (
            isinstance(z, Tensor) and z.ndim == 2 and z.shape[1] == self.latent_dims and z.is_floating_point()
        )
