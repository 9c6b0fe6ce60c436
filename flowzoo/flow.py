"""Flow: dequantization + bijector + base density = a probability of images of integers, or a density of vectors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowzoo.arguments import MAX_DRAWS, require_count, require_generator
from flowzoo.bijectors.chain import Chain, MemoryMode
from flowzoo.errors import InputError
from flowzoo.inference import Inference
from flowzoo.nets.initialization import DataDependentInit
from flowzoo.nets.keyed import Keys, keyed_draws
from flowzoo.nets.precision import RunsNetwork
from flowzoo.summary import summarize

if TYPE_CHECKING:
    from flowzoo.distribution import FlowDistribution


LEAST_INIT_IMAGES = 2
"""Items that the data-dependent initialisation needs at least."""

ABSURD_BITS = 100.0
"""Bits (or nats) per dimension after initialisation above which scales are absurd; uniform guessing has 8 bits."""


class Flow(Inference):
    """A normalizing flow over images ``uint8 (B, C, H, W)``, or over real vectors ``(B, D)``.

    Images: log P(x) >= log p(f((x + u) / 2^n)) + log|det df| - D n log 2 - log q(u|x), in nats, with P a probability
    of integers, f the bijector onto R^D, p its standard base density and q the dequantization noise. Vectors:
    log p(x) = log p(f(x)) + log|det df|, a density. With labels y everything is conditional on them.

    Its parts, and what kind of model they make, are attributes; see :class:`flowzoo.parts.FlowParts`.

    ``log_prob`` and ``forward`` follow the mode that ``train()`` and ``eval()`` set and record gradients. ``encode``,
    ``decode``, ``reconstruct``, ``sample`` and ``bits_per_dim`` always compute as in eval mode, a batch at a time,
    and record gradients only where that is asked for.
    """

    @property
    def is_initialized(self) -> bool:
        """True if every data-dependent initialisation has happened."""
        return all(bool(module.initialized) for module in self._data_dependent())

    @property
    def density(self) -> FlowDistribution:
        """The real-valued side: a ``torch.distributions.Distribution`` over what the bijector takes."""
        from flowzoo.distribution import FlowDistribution

        return FlowDistribution(self)

    def forward(self, x: Tensor, noise: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """The same as :meth:`log_prob`, so that wrappers of modules can train a flow."""
        return self.log_prob(x, y, noise=noise)

    def log_prob(
        self,
        x: Tensor,
        y: Tensor | int | None = None,
        *,
        samples: int = 1,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        keys: Keys | None = None,
    ) -> Tensor:
        """Log-probability of images, or log-density of vectors.

        Args:
            x: Images ``uint8 (B, C, H, W)``, or floating-point vectors ``(B, D)``.
            y: Labels ``(B,)``, or one for all, of a conditional flow; -1 is no label. None for log P(x) itself.
            samples: Draws of dequantization noise for each item, of which the importance-weighted average is taken;
                a bound tightens with their number (Burda et al., 2016).
            noise: The noise to use instead, ``(B, C, H, W)`` of kind :attr:`noise_kind`.
            generator: Where noise is drawn from.
            keys: Names the random numbers that bijectors and augmentation draw; from the generator if not given.

        Returns:
            ``(B,)`` nats.

        Raises:
            InputError: Wrong type, dtype, shape or device, or a label of another model.
        """
        values = self._values(x)
        require_count("samples", samples, most=MAX_DRAWS)
        require_generator(generator)
        # Not its len(), which is one number for good in an exported program.
        n = values.shape[0]
        context = self.context_of(y, n)
        if noise is not None:
            if samples != 1:
                raise InputError(f"log_prob got noise and samples={samples}; give one of them.")
            return self._log_prob(values, self._noise_like(values, noise), context, keys)
        keys = keys or self._keys(n, generator)
        terms = []
        for sample in range(samples):
            noise = self.draw_noise(n, generator=generator)
            own = None if keys is None else replace(keys, sample=keys.sample + sample)
            terms.append(self._log_prob(values, noise, context, own))
        return terms[0] if samples == 1 else torch.logsumexp(torch.stack(terms), 0) - math.log(samples)

    def _log_prob(
        self, values: Tensor, noise: Tensor, context: Tensor | None = None, keys: Keys | None = None
    ) -> Tensor:
        """Log-probability in nats ``(B,)`` of values under one draw of noise."""
        with keyed_draws(keys):
            u, log_q = self.dequantization(values, noise, self.engine.run)
            log_prob: Tensor = self.log_density(self.space.to_reals(values + u), context) - log_q
        return log_prob - self.space.log_bins if self.dequantization.fills_bins else log_prob

    def log_density(self, v: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats ``(B,)`` of the bijector's reals; without a context, the average over labels."""
        if context is None and self.labels is not None:
            return self._log_average(v)
        log_weight: Tensor | float = 0.0
        if self.augmentation is not None:
            v, log_weight = self.augmentation(v, self.engine.run)
        z, log_det = self.engine.run(self.bijector, v, context)
        self._check_latent(z)
        log_prob: Tensor = self.base.log_prob(z) + log_det
        return log_prob if self.augmentation is None else log_prob - log_weight

    def _log_average(self, v: Tensor) -> Tensor:
        """Log of (1/K) sum over labels y of p(v | y)."""
        assert self.labels is not None
        terms = [self.log_density(v, self.context_of(k, v.shape[0])) for k in range(self.labels.classes)]
        return torch.logsumexp(torch.stack(terms), 0) - math.log(self.labels.classes)

    @torch.no_grad()
    def initialize(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> bool:
        """Runs the data-dependent initialisation on one full batch, unless it has happened.

        Args:
            x: Images ``uint8 (B, C, H, W)`` or vectors ``(B, D)``, a few hundred.
            y: Their labels, if the flow is conditional.
            noise: Dequantization noise to use; drawn if not given.
            generator: Where noise is drawn from.

        Returns:
            True if anything was initialised now.

        Raises:
            InputError: There are too few items, or the model gives NaN or infinity after it.
        """
        if len(self._values(x)) < LEAST_INIT_IMAGES:
            raise InputError(
                f"initialize got {len(x)} item(s); expected at least {LEAST_INIT_IMAGES}, better a few hundred: "
                "scales are set from the variation among them."
            )
        pending = [module for module in self._data_dependent() if not bool(module.initialized)]
        if not pending:
            return False
        for module in pending:
            module.initializing = True
        try:
            log_prob = self.log_prob(x, y, noise=noise, generator=generator)
        finally:
            for module in pending:
                module.initializing = False
        per_dim = float(self.per_dim(log_prob).mean())
        if not math.isfinite(per_dim):
            raise InputError(
                f"after initialisation from {len(x)} items the model gives {per_dim} {self.unit}: give more, and "
                "more varied, ones. Create the model anew, its scales are spoilt."
            )
        if per_dim > ABSURD_BITS:
            warnings.warn(
                f"after initialisation from {len(x)} items the model gives {per_dim:,.0f} {self.unit}: some scales "
                "are absurd, as where values hardly vary. Give more, and more varied, ones.",
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
