"""Host synchronisations counted without a GPU: tensors on the meta device stand for those of an accelerator.

A program that asks the device for a number waits until everything it was told to do is done, and the device then idles
until the next kernel arrives. Here every such question is noted: reading a number, a result whose shape depends on
values, a copy between host and device that is not asynchronous. So is an operation on tensors of both.
"""

from __future__ import annotations

import traceback
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

PRETENDED = torch.device("meta")
"""The device whose tensors count as an accelerator's; unlike others it takes part in autograd everywhere."""

_BY_VALUES = ("aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2", "aten::unique_dim")
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index_put")
_COPIES = ("aten::_to_copy", "aten::copy_")


class Wait(NamedTuple):
    """A place where the host waits for the device, or mixes tensors of both.

    Attributes:
        operation: The operation of torch.
        place: File and line of the innermost frame that is not torch's.
    """

    operation: str
    place: str


class HostWaits(TorchDispatchMode):
    """A context that notes every host synchronisation of tensors on :data:`PRETENDED`, and goes on.

    Attributes:
        found: What was noted, in order.
        mixed: Operations on tensors of both devices, of more than no dimensions; a GPU refuses them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Wait] = []
        self.mixed: list[Wait] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [t for t in tensors if t.device == PRETENDED]
        if name == "aten::_local_scalar_dense" and there:
            self.found.append(Wait(name, _place()))
            return 1.0 if there[0].is_floating_point() else 1
        if name in _COPIES:
            return self._copy(func, args, kwargs)
        if there and (name in _BY_VALUES or (name in _INDEXING and _has_mask(args[1]))):
            self.found.append(Wait(name, _place()))
            # A shape that depends on values is that for ones.
            found = func(*tree_map(_host, args), **kwargs)
            return tree_map(lambda t: t.to(PRETENDED) if isinstance(t, Tensor) else t, found)
        if there and any(t.ndim and t.device != PRETENDED for t in tensors):
            self.mixed.append(Wait(name, _place()))
        return func(*args, **kwargs)

    def _copy(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        into_other = func._schema.name == "aten::copy_"
        source = args[1] if into_other else args[0]
        if not isinstance(source, Tensor):  # functorch passes plain numbers too
            return func(*args, **kwargs)
        target = args[0].device if into_other else torch.device(kwargs.get("device") or source.device)
        asynchronous = kwargs.get("non_blocking") or (into_other and len(args) > 2 and args[2])
        crosses = (source.device == PRETENDED) != (target == PRETENDED)
        # A number alone travels inside the kernel's arguments.
        if crosses and (not asynchronous or source.device == PRETENDED):
            self.found.append(Wait(func._schema.name, _place()))
        if crosses and source.device == PRETENDED:
            return args[0].zero_() if into_other else _host(source, kwargs.get("dtype"))
        return func(*args, **kwargs)


def _has_mask(indices: Any) -> bool:
    """Whether an index is by truth values, so that the result's shape depends on them."""
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _host(value: Any, dtype: torch.dtype | None = None) -> Any:
    """Ones on the host in place of a tensor whose values do not exist."""
    if not isinstance(value, Tensor) or value.device != PRETENDED:
        return value
    return torch.ones(value.shape, dtype=dtype or value.dtype, device="cpu")


def _place() -> str:
    own = (__file__, torch.__path__[0])
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(own):
            return f"{frame.filename}:{frame.lineno}"
    return "?"


def pretend(module: nn.Module) -> nn.Module:
    """Moves a module's parameters and buffers to :data:`PRETENDED`, in place; other tensors stay where they are."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                moved = parameter.detach().to(PRETENDED)
                part._parameters[name] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(PRETENDED)
    return module
