"""The protocol of a measurement in words, and the formula with a model's constants."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flowzoo.engine import is_enabled

if TYPE_CHECKING:
    from flowzoo.evaluation.protocol import Protocol
    from flowzoo.flow import Flow


def explain(name: str, flow: Flow, protocol: Protocol, dataset: str, split: str) -> str:
    """Says how ``eval`` measures this model."""
    channels, height, width = flow.image_shape
    top, dims, samples = 2**flow.n_bits, flow.dims, protocol.samples
    base = type(flow.base).__name__
    noise = (
        "u uniform in [0, 1), q(u|x) = 1"
        if not flow.is_lower_bound
        else "u = sigmoid(g(e; x)), e standard normal, g the model's own conditional flow, q its density"
    )
    bits = (
        ""
        if flow.n_bits == 8
        else f"\nThe {8 - flow.n_bits} lowest bits of each grey level are dropped first."
    )
    bound = (
        f"With k = {samples} the figure is an upper bound of the model's bits per dimension; it falls as k grows."
        if flow.is_lower_bound or samples == 1
        else f"k = {samples} samples: an upper bound that tightens as k grows."
    )
    constant = flow.n_bits
    way = (
        "On every device the engine fuses what it can; nothing is compiled, and no CUDA graph is replayed."
        if is_enabled()
        else "The engine is switched off: operations are computed plainly, one by one."
    )
    return f"""{name} on the {split} split of {dataset}, every image once.

Images x are {channels} x {height} x {width} integers 0..{top - 1}, so D = {dims}.{bits}
Dequantization: y = (x + u) / {top}, {noise}.
Density: the bijector f maps y to z in R^{dims}; base density {base}.

  log P(x) >= log (1/k) sum over k of  p(f(y)) |det df/dy| {top}^-{dims} / q(u|x),   k = {samples}
  bpd(x)   =  -log P(x) / ({dims} ln 2)
           =  {constant} - [log p(f(y)) + log|det df/dy| - log q(u|x)] / {dims * math.log(2):.4f}   for k = 1

{bound}
The noise of image i, sample j is a function of (seed = {protocol.seed}, i, j) alone (Philox4x64-10), so batch size,
order, threads, processes and device do not change it.
Likelihoods are computed in {protocol.dtype} with TF32, autocast and reduced network precision off; sums in float64.
{way}
The figure is the mean over images, +- the standard deviation over images divided by the root of their number."""
