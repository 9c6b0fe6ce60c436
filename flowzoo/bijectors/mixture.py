"""The mixture-of-logistics CDF coupling of Flow++ and the inversion of its elementwise map."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.bijectors.coupling import Coupling
from flowzoo.bijectors.partitions import Partition
from flowzoo.bijectors.scale_maps import ScaleMap
from flowzoo.errors import InputError
from flowzoo.ops.affine import AffineOrder
from flowzoo.ops.autograd import transforms_active
from flowzoo.ops.mixture import MIN_LOG_SCALE
from flowzoo.ops.mixture_roots import roots, roots_without_branches


class LogisticMixture(NamedTuple):
    """A mixture of K logistics per element; every field ``(B, K, ...)`` for elements ``(B, ...)``."""

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor

    @classmethod
    def from_raw(cls, logits: Tensor, means: Tensor, log_scales: Tensor) -> LogisticMixture:
        """Normalises the weights over dimension 1 and bounds the log-scales below."""
        return cls(F.log_softmax(logits, dim=1), means, log_scales.clamp_min(MIN_LOG_SCALE))

    def logit_cdf(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``y = logit F(x)`` and ``log dy/dx``, both ``(B, ...)``, in log space.

        y = log F - log(1 - F) and log dy/dx = log f - log F - log(1 - F), each from its own log-sum-exp, so that
        neither tail loses its digits.
        """
        u = (x.unsqueeze(1) - self.means) * torch.exp(-self.log_scales)
        log_sigmoid = F.logsigmoid(u)
        log_one_minus = log_sigmoid - u
        log_cdf = torch.logsumexp(self.log_weights + log_sigmoid, dim=1)
        log_sf = torch.logsumexp(self.log_weights + log_one_minus, dim=1)
        log_pdf = torch.logsumexp(self.log_weights - self.log_scales + log_sigmoid + log_one_minus, dim=1)
        return log_cdf - log_sf, log_pdf - log_cdf - log_sf

    def inverse_logit_cdf(self, y: Tensor) -> Tensor:
        """Solves ``logit F(x) = y`` for ``x`` by Newton's method inside a shrinking bracket.

        Component k alone reaches y at ``m_k + s_k y``; the mixture's root lies between the least and the largest of
        these. A Newton step that leaves the bracket, or follows one that did not halve the error, is replaced by
        bisection, so the iteration always converges; an element leaves it when it hardly moves. In float32 the
        result satisfies ``|logit F(x) - y| <= 1e-4 (1 + |y|)`` wherever the map's slope permits it.

        Args:
            y: Targets ``(B, ...)``.

        Returns:
            Roots ``(B, ...)``, differentiable with respect to ``y`` and the mixture by the implicit function theorem.
        """
        root = self._solve(y.detach())
        if not torch.is_grad_enabled():
            return root
        # Newton steps from the root: their value is the root's, and each doubles the order to which the result's
        # derivatives are those of the implicit function.
        for _ in range(2):
            value, log_slope = self.logit_cdf(root)
            root = root - (value - y) * torch.exp(-log_slope)
        return root

    @torch.no_grad()
    def _solve(self, y: Tensor) -> Tensor:
        fields = (self.log_weights.exp(), self.means, torch.exp(-self.log_scales))
        weights, means, rates = (field.transpose(0, 1).flatten(1).contiguous() for field in fields)
        branches = not (transforms_active() or torch.compiler.is_compiling())
        solve = roots if branches else roots_without_branches
        return solve(weights, means, rates, y.flatten()).view_as(y)


class MixtureLogisticCoupling(Coupling):
    """z_b = logit(F(x_b)) exp(a) + b, F the CDF of a mixture of K logistics (Flow++, section 4.1, equation 11).

    log|det| = sum log f(x_b) - log F - log(1 - F) + a. The network gives ``(2 + 3 K) C`` channels for a transformed
    half of ``C``: log-scale a (through a tanh), shift b, mixture logits, means and log-scales, each component's C
    channels together.
    """

    def __init__(
        self,
        partition: Partition,
        net: nn.Module,
        channels: int,
        components: int,
        *,
        order: AffineOrder = "scale-shift",
        learned_bound: bool = False,
    ) -> None:
        """Makes the coupling.

        Args:
            partition: How an item is parted in (conditioner, transformed).
            net: Conditioner to ``(2 + 3 components) channels``.
            channels: Channels of the transformed half.
            components: K.
            order: ``"scale-shift"`` is the formula above, ``"shift-scale"`` is (logit(F(x_b)) + b) exp(a).
            learned_bound: Whether the tanh of a has a learned factor for each channel.
        """
        super().__init__(partition, net)
        self.channels = channels
        self.components = components
        self.order = order
        self.scale_map = ScaleMap("tanh", channels) if learned_bound else None

    def check_parameters(self, parameters: Tensor) -> None:
        """Raises an InputError unless the network gave as many channels as the map needs."""
        expected = (2 + 3 * self.components) * self.channels
        if parameters.shape[1] != expected:
            raise InputError(
                f"the network of MixtureLogisticCoupling gave {parameters.shape[1]} channels; expected "
                f"(2 + 3 * {self.components}) * {self.channels} = {expected}."
            )

    def _unpack(self, parameters: Tensor) -> tuple[Tensor, Tensor, LogisticMixture]:
        self.check_parameters(parameters)
        k = self.components
        grouped = parameters.unflatten(1, (2 + 3 * k, self.channels))
        raw = grouped[:, 0]
        log_scale: Tensor = torch.tanh(raw) if self.scale_map is None else self.scale_map(raw)
        mixture = LogisticMixture.from_raw(
            grouped[:, 2 : 2 + k], grouped[:, 2 + k : 2 + 2 * k], grouped[:, 2 + 2 * k :]
        )
        return log_scale, grouped[:, 1], mixture

    def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift, mixture = self._unpack(parameters)
        y, log_slope = mixture.logit_cdf(x)
        scale = log_scale.exp()
        z = (y + shift) * scale if self.order == "shift-scale" else y * scale + shift
        return z, self._sum(log_slope + log_scale)

    def _invert(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift, mixture = self._unpack(parameters)
        scale = torch.exp(-log_scale)
        y = z * scale - shift if self.order == "shift-scale" else (z - shift) * scale
        x = mixture.inverse_logit_cdf(y)
        _, log_slope = mixture.logit_cdf(x)
        return x, -self._sum(log_slope + log_scale)
