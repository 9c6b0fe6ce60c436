"""Factoring out: half of the variables leave for the latent early, the rest goes on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowzoo.bijectors.base import Bijector, sum_per_item, zero_log_det
from flowzoo.bijectors.partitions import ChannelHalves
from flowzoo.errors import InputError
from flowzoo.nets.precision import RunsNetwork
from flowzoo.ops.affine import ParameterLayout, shift_and_raw
from flowzoo.ops.layout import channel_major


class ConditionalPrior(Bijector, RunsNetwork):
    """z' = (z - mu(h)) / sigma(h) with h as context, log|det| = -sum log sigma(h).

    A learned Gaussian prior N(mu(h), sigma(h)) for the factored-out half (Glow's split prior), written as a
    bijector so that every latent is standard.
    """

    def __init__(
        self, net: nn.Module, layout: ParameterLayout = "halves", input_bound: float | None = None
    ) -> None:
        """Makes the prior.

        Args:
            net: ``net(h, None)`` gives ``2 C`` channels, means and log-scales.
            layout: How they share the channels.
            input_bound: The network sees h clamped to [-bound, bound]. Off the data h may be of any size, and with
                it the scale by which a sample is multiplied.
        """
        super().__init__()
        self.net = net
        self.layout = layout
        self.input_bound = input_bound

    def _mean_and_log_scale(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if context is None:
            raise InputError("ConditionalPrior needs the kept half as context; got None.")
        if self.input_bound is not None:
            context = context.clamp(-self.input_bound, self.input_bound)
        return shift_and_raw(self.run_network(self.net, context, None), self.layout)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._mean_and_log_scale(context)
        return (x - mean) * torch.exp(-log_scale), -sum_per_item(log_scale)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._mean_and_log_scale(context)
        return z * log_scale.exp() + mean, sum_per_item(log_scale)


class LearnedTop(Bijector):
    """z' = (z - mu) / sigma with learned constants, log|det| = -sum log sigma: Glow's learned top prior."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Makes the identity.

        Args:
            shape: ``(C, 1, 1)`` for one mean and log-scale per channel, ``(C, H, W)`` for one per element.
        """
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale
        return (x - self.mean) * torch.exp(-log_scale), -sum_per_item(log_scale.expand_as(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_scale = self.log_scale
        return z * log_scale.exp() + self.mean, sum_per_item(log_scale.expand_as(z))


class ClassTop(LearnedTop):
    """z' = (z - mu_y) / sigma_y with learned constants for each label: Glow's learned top prior given the class.

    mu_y = mu + sum_k c_k mu_k and log sigma_y likewise, c the context ``(B, K)``, one-hot rows.
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        """Makes the identity.

        Args:
            shape: ``(C, 1, 1)`` for one mean and log-scale per channel and class, ``(C, H, W)`` for one per element.
            classes: K.
        """
        super().__init__(shape)
        self.class_mean = nn.Parameter(torch.zeros(classes, *shape))
        self.class_log_scale = nn.Parameter(torch.zeros(classes, *shape))

    def _constants(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        classes = len(self.class_mean)
        if context is None or context.ndim != 2 or context.shape[1] != classes:
            found = "None" if context is None else tuple(context.shape)
            raise InputError(f"ClassTop needs a context (B, {classes}), rows of class weights; got {found}.")
        mean = self.mean + torch.tensordot(context, self.class_mean, dims=1)
        return mean, self.log_scale + torch.tensordot(context, self.class_log_scale, dims=1)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._constants(context)
        return (x - mean) * torch.exp(-log_scale), -sum_per_item(log_scale.expand_as(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_scale = self._constants(context)
        return z * log_scale.exp() + mean, sum_per_item(log_scale.expand_as(z))


class FactorOut(Bijector):
    """The first half of the channels goes on through ``rest``; the second leaves for the latent.

    forward: x = (a, b); z = [rest(a), prior(b; a)] as one ``(B, D)``; log_det = that of rest + that of prior.
    Without a prior b leaves as it is (RealNVP, section 3.6). Every latent is kept, in one tensor.
    """

    def __init__(self, rest: Bijector, prior: ConditionalPrior | None = None) -> None:
        """Makes the split.

        Args:
            rest: The remaining levels, ``(B, C/2, H, W)`` to ``(B, C/2 H W)``.
            prior: Learned prior of the factored-out half given the kept one, or None.
        """
        super().__init__()
        self.partition = ChannelHalves()
        self.rest = rest
        self.prior = prior

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        kept, out = self.partition.split(x)
        log_det = zero_log_det(x)
        if self.prior is not None:
            out, log_det = self.prior(out, kept)
        z, term = self.rest(kept, context)
        return torch.cat((z.flatten(1), out.flatten(1)), dim=1), log_det + term

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z_rest, z_out = z.chunk(2, dim=1)
        kept, log_det = self.rest.inverse(z_rest, context)
        out = channel_major(z_out.reshape(kept.shape))
        if self.prior is not None:
            out, term = self.prior.inverse(out, kept)
            log_det = log_det + term
        return self.partition.merge(kept, out), log_det
