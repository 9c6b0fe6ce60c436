"""How a figure is measured, which is part of the figure."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from flowzoo.arguments import MAX_DRAWS, require_count
from flowzoo.densities.dequantization import UniformDequantization
from flowzoo.errors import InputError
from flowzoo.nets.keyed import check_seed

if TYPE_CHECKING:
    from flowzoo.evaluation.trained_model import Target
    from flowzoo.flow import Flow

__all__ = ["Dtype", "NoiseChoice", "Protocol", "protocol_of", "under"]

Dtype = Literal["float32", "float64"]
NoiseChoice = Literal["own", "uniform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a figure is measured; part of the figure.

    Attributes:
        samples: Noise samples an image, combined by importance weighting.
        probes: Probes of an estimated log-determinant, over which bits per dimension are averaged.
        conditional: Whether the figure is of log P(x|y), with the labels of the data.
        noise: The dequantization noise: ``own`` is the model's, ``uniform`` is put in its place.
        seed: Key of the noise.
        dtype: Type that the likelihood is computed in.
    """

    samples: int = 1
    probes: int = 1
    conditional: bool = False
    noise: NoiseChoice = "own"
    seed: int = 0
    dtype: Dtype = "float32"


def protocol_of(
    target: Target,
    samples: int | None,
    seed: int | None,
    dtype: Dtype | None,
    *,
    probes: int | None = None,
    noise: NoiseChoice = "own",
) -> Protocol:
    """The protocol that is asked for; where nothing is, that of the manifest entry.

    An entry's figure under uniform noise is of one sample, whatever its own figure is of.

    Raises:
        InputError: A value is impossible.
    """
    base, defaults = Protocol(), target.entry.measured if target.entry else None
    if defaults is not None:
        base = Protocol(
            samples=defaults.samples if noise == "own" else 1,
            probes=defaults.probes,
            seed=defaults.seed,
            dtype=defaults.dtype,
        )
    found = Protocol(
        samples=base.samples if samples is None else samples,
        probes=base.probes if probes is None else probes,
        noise=noise,
        seed=base.seed if seed is None else seed,
        dtype=base.dtype if dtype is None else dtype,
    )
    require_count("samples", found.samples, most=MAX_DRAWS)
    require_count("probes", found.probes, most=MAX_DRAWS)
    require_count("seed", found.seed, least=0)
    for name, value, choices in (("dtype", found.dtype, Dtype), ("noise", noise, NoiseChoice)):
        if value not in get_args(choices):
            raise InputError(f"{name} is {value!r}; choose one of {', '.join(get_args(choices))}.")
    check_seed(found.seed)
    if found.probes > 1 and target.flow.log_det_kind == "exact":
        raise InputError(
            f"probes is {found.probes}, and the log-determinant of {target.name} is exact: there is nothing to "
            "average over. Leave probes out."
        )
    if noise == "uniform" and target.flow.noise_kind == "none":
        of = "vectors" if target.flow.data_kind == "vectors" else "integers themselves"
        raise InputError(
            f"noise is 'uniform', and {target.name} is a model of {of}, to which no noise is added. Leave noise out."
        )
    return found


def under(flow: Flow, noise: NoiseChoice) -> Flow:
    """The flow with the noise that is asked for; it shares its weights with the flow that is given."""
    if noise == "own" or flow.noise_kind == "uniform":
        return flow
    found = copy.copy(flow)
    found._modules = {**flow._modules, "dequantization": UniformDequantization()}
    return found
