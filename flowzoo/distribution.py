"""The real-valued side of a flow as a distribution of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from flowzoo.arguments import describe, is_temperature
from flowzoo.bijectors.wanted import values_alone
from flowzoo.errors import InputError

if TYPE_CHECKING:
    from flowzoo.flow import Flow


class FlowDistribution(Distribution):
    """p(v) of the reals that a flow's bijector takes: vectors ``(D,)``, or images in ``[0, 1]^D`` as ``(C, H, W)``.

    It follows the mode of the flow, reads its weights at each call and records gradients, as any module does; it is
    accepted wherever a ``torch.distributions.Distribution`` is, as a base of ``TransformedDistribution`` and, after
    :meth:`expand`, of ``Independent`` and ``MixtureSameFamily``. Entropy, moments and divergences have no closed form;
    asking for one says how to estimate it. Of an augmented flow ``log_prob`` is a bound with one draw of the extra
    values.
    """

    has_rsample = True
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, flow: Flow, batch_shape: torch.Size = torch.Size()) -> None:  # noqa: B008  (as in torch)
        """Wraps a flow; see ``Flow.density``."""
        self.flow = flow
        super().__init__(
            batch_shape=batch_shape, event_shape=torch.Size(flow.data_shape), validate_args=False
        )

    @property
    def support(self) -> constraints.Constraint:
        """All reals; what lies outside ``[0, 1]^D`` of images is no image, but may have a density."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        """The same distribution as a batch of independent, equal ones; ``batch_shape`` ends in the present one."""
        shape = torch.Size(batch_shape)
        own = self.batch_shape
        ends = shape[len(shape) - len(own) :] if len(own) <= len(shape) else None
        if ends is None or any(size not in (1, new) for size, new in zip(own, ends, strict=True)):
            raise InputError(
                f"density has batch shape {tuple(self.batch_shape)}; it cannot become {tuple(shape)}."
            )
        return FlowDistribution(self.flow, shape)

    @property
    def mean(self) -> Tensor:
        """Not known in closed form."""
        raise NotImplementedError(_no_closed_form("mean", "density.sample((1000,)).mean(0)"))

    @property
    def variance(self) -> Tensor:
        """Not known in closed form."""
        raise NotImplementedError(_no_closed_form("variance", "density.sample((1000,)).var(0)"))

    def entropy(self) -> Tensor:
        """Not known in closed form."""
        raise NotImplementedError(
            _no_closed_form("entropy", "-density.log_prob(density.rsample((1000,))).mean()")
        )

    def log_prob(self, value: Tensor, y: Tensor | int | None = None) -> Tensor:
        """Log-density in nats.

        Args:
            value: ``(*S, *event_shape)`` floats; S broadcasts with the batch shape.
            y: Labels ``S``, or one for all, of a conditional flow; None for the average over them.

        Returns:
            ``S``, broadcast with the batch shape.

        Raises:
            InputError: ``value`` is no such tensor.
        """
        batch = self._batch(value)
        context = self.flow.context_of(_flat(y), len(batch))
        shape = value.shape[: value.ndim - len(self.event_shape)]
        log_prob = self.flow.log_density(batch, context).reshape(shape)
        return log_prob.expand(torch.broadcast_shapes(shape, self.batch_shape))

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
            ``(*S, *batch_shape, *event_shape)``.
        """
        shape = torch.Size(sample_shape) + self.batch_shape
        if not is_temperature(temperature):
            raise InputError(f"temperature is {temperature!r}; expected a finite number of at least 0.")
        flow, n = self.flow, shape.numel()
        z = flow._draw_latents(n, temperature, generator)
        context = flow._sampling_context(_flat(y), n, generator)
        with values_alone(drawn=True):
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


def _no_closed_form(name: str, estimate: str) -> str:
    return f"the {name} of a flow has no closed form; estimate it, as {estimate}."


@register_kl(FlowDistribution, Distribution)  # type: ignore[untyped-decorator]
@register_kl(FlowDistribution, FlowDistribution)  # type: ignore[untyped-decorator]
@register_kl(Distribution, FlowDistribution)  # type: ignore[untyped-decorator]
def _kl(p: Distribution, q: Distribution) -> Tensor:
    raise NotImplementedError(
        _no_closed_form(
            "Kullback-Leibler divergence", "v = p.rsample((1000,)); (p.log_prob(v) - q.log_prob(v)).mean()"
        )
    )


def _flat(y: Tensor | int | None) -> Tensor | int | None:
    return y.flatten() if isinstance(y, Tensor) else y
