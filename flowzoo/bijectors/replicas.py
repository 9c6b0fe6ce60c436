"""Copies of modules that hold other tensors, or are in another mode: whoever uses them writes nothing on the modules.

The activations of a chain are computed again in its backward pass, possibly in another thread, and after
``torch.func.functional_call`` has put the parameters back that were replaced during the forward pass. A replica holds
the very tensors of the forward pass, as leaves of their own: no hook of a parameter runs twice, and running averages
of batch norms are copies that may move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """The tensors that gradients of these modules are for, each once: parameters, or what stands for them."""
    found: dict[int, Tensor] = {}
    for module in (m for root in modules for m in root.modules()):
        for tensor in (*module._parameters.values(), *module.__dict__.values()):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                found[id(tensor)] = tensor
    return list(found.values())


def replica(module: M, originals: Sequence[Tensor], tensors: Sequence[Tensor]) -> M:
    """A copy of a module with ``tensors`` in the place of ``originals``; buffers are shared, but running averages."""
    swap = {id(old): new for old, new in zip(originals, tensors, strict=True)}
    return _copy(module, swap, {})


def in_eval_mode(module: M) -> M:
    """A copy of a module in eval mode that holds the same tensors."""
    copy = replica(module, (), ())
    for part in copy.modules():
        part.training = False
    return copy


def _copy(module: M, swap: Mapping[int, Tensor], known: dict[int, nn.Module]) -> M:
    if id(module) in known:
        return known[id(module)]  # type: ignore[return-value]
    copy = module.__new__(type(module))
    known[id(module)] = copy
    own = dict(module.__dict__)
    for name, value in own.items():
        if isinstance(value, Tensor) and id(value) in swap:
            own[name] = swap[id(value)]
    own["_parameters"] = {
        name: value if value is None else swap.get(id(value), value)
        for name, value in module._parameters.items()
    }
    if "running_mean" in module._buffers:
        own["_buffers"] = {n: b if b is None else b.clone() for n, b in module._buffers.items()}
    own["_modules"] = {n: m if m is None else _copy(m, swap, known) for n, m in module._modules.items()}
    own["_original"] = module.__dict__.get("_original", module)
    copy.__dict__ = own
    return copy
