"""The real-valued side of a flow as a distribution of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from flowzoo.arguments import describe, is_temperature
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from flowzoo.flow import Flow


class FlowDistribution(Distribution):
    """p(v) of the reals that a flow's bijector takes: vectors ``(D,)``, or images in ``[0, 1]^D`` as ``(C, H, W)``.

    It follows the mode of the flow, reads its weights at each call and records gradients, as any module does; it is
    accepted wherever a ``torch.distributions.Distribution`` with one event and no batch is. Of an augmented flow
    ``log_prob`` is a bound with one draw of the extra values.
    """

    has_rsample = True
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, flow: Flow) -> None:
        """Wraps a flow; see ``Flow.density``."""
        self.flow = flow
        super().__init__(
            batch_shape=torch.Size(), event_shape=torch.Size(flow.data_shape), validate_args=False
        )

    @property
    def support(self) -> constraints.Constraint:
        """All reals; what lies outside ``[0, 1]^D`` of images is no image, but may have a density."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Tensor, y: Tensor | int | None = None) -> Tensor:
        """Log-density in nats.

        Args:
            value: ``(*S, *event_shape)`` floats.
            y: Labels ``S``, or one for all, of a conditional flow; None for the average over them.

        Returns:
            ``S``.

        Raises:
            InputError: ``value`` is no such tensor.
        """
        batch = self._batch(value)
        context = self.flow.context_of(_flat(y), len(batch))
        return self.flow.log_density(batch, context).reshape(
            value.shape[: value.ndim - len(self.event_shape)]
        )

    def rsample(
        self,
        sample_shape: Any = torch.Size(),  # noqa: B008  (the signature of torch)
        y: Tensor | int | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws with gradients at the flow's parameters, as for a reverse Kullback-Leibler divergence.

        Args:
            sample_shape: S.
            y: Labels ``S``, or one for all, of a conditional flow.
            temperature: Factor on the latent.
            generator: Where the latent is drawn from.

        Returns:
            ``(*S, *event_shape)``.
        """
        shape = torch.Size(sample_shape)
        if not is_temperature(temperature):
            raise InputError(f"temperature is {temperature!r}; expected a finite number of at least 0.")
        flow, n = self.flow, shape.numel()
        z = flow._draw_latents(n, temperature, generator)
        context = flow._sampling_context(_flat(y), n, generator)
        v, _ = flow.engine.run(flow.bijector, z, context, inverse=True)
        if flow.augmentation is not None:
            v = flow.augmentation.remove(v, flow.data_shape)
        return v.reshape(*shape, *self.event_shape)

    def sample(
        self,
        sample_shape: Any = torch.Size(),  # noqa: B008  (the signature of torch)
        y: Tensor | int | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws without gradients; see :meth:`rsample`."""
        with torch.no_grad():
            return self.rsample(sample_shape, y, temperature=temperature, generator=generator)

    def _batch(self, value: object) -> Tensor:
        event = tuple(self.event_shape)
        sound = isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= len(event)
        if (
            not isinstance(value, Tensor)
            or not sound
            or tuple(value.shape[value.ndim - len(event) :]) != event
        ):
            raise InputError(
                f"density got {describe(value)}; expected floating-point reals (..., "
                f"{', '.join(map(str, event))})."
            )
        return value.reshape(-1, *event)


def _flat(y: Tensor | int | None) -> Tensor | int | None:
    return y.flatten() if isinstance(y, Tensor) else y
