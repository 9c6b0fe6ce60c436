"""The one predicate that decides whether the engine applies, and the signature by which plans are found again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flowzoo.ops.autograd import is_traced, transforms_active

Settings = Callable[[Any], tuple[object, ...]]
"""The plain attributes of a module that its lowering depends on."""

_DISABLED: ContextVar[bool] = ContextVar("_DISABLED", default=False)


def is_disabled() -> bool:
    """True inside :func:`disabled`."""
    return _DISABLED.get()


@contextmanager
def disabled() -> Iterator[None]:
    """A context in which every flow is computed plainly in this thread, as under ``FLOWZOO_ENGINE=0``."""
    token = _DISABLED.set(True)
    try:
        yield
    finally:
        _DISABLED.reset(token)


def reason_against(x: Tensor, context: Tensor | None) -> str | None:
    """Why this call has to be plain, whatever the modules are; None if it need not be."""
    if _DISABLED.get():
        return "the engine is switched off"
    if transforms_active():
        return "torch.func or forward-mode differentiation is at work"
    if is_traced() or _dispatch_mode_active():
        return "the call is being traced, or a dispatch mode is at work"
    # Tensors that have no numbers have no autocast either, and asking for it raises.
    if any(torch.is_autocast_enabled(kind) for kind in {"cpu", x.device.type} - {"meta"}):
        return "autocast is on"
    if _has_global_hooks():
        return "a global module hook is registered"
    if x.dtype not in (torch.float32, torch.float64):
        return f"the batch is {x.dtype}"
    given = (x,) if context is None else (x, context)
    if any(type(t) is not Tensor and type(t) is not nn.Parameter for t in given):
        return "the batch is of a tensor subclass"
    return None


def _dispatch_mode_active() -> bool:
    """Whether a dispatch mode is at work, or a function mode; a version of torch that cannot say has none."""
    dispatches = getattr(torch._C, "_len_torch_dispatch_stack", None)
    if dispatches is not None and dispatches():
        return True
    functions = getattr(torch._C, "_len_torch_function_stack", None)
    return functions is not None and not all(map(_is_default_device, range(functions())))


def _is_default_device(index: int) -> bool:
    """Whether a function mode is torch's default device, which changes nothing here."""
    get = getattr(torch._C, "_get_function_stack_at", None)
    return get is not None and type(get(index)).__module__ == "torch.utils._device"


def _has_global_hooks() -> bool:
    """Whether hooks of all modules are registered; where torch cannot say, they might be."""
    told = getattr(torch.nn.modules.module, "_has_any_global_hook", None)
    return told is None or bool(told())


class Signature(NamedTuple):
    """Everything about a tree of modules that a plan depends on, and why it cannot be planned, if so."""

    key: tuple[object, ...]
    modules: list[nn.Module]
    reason: str | None


PATCHABLE = ("forward", "inverse", "_forward", "_inverse", "_transform", "_invert", "_compiled_call_impl")


def signature_of(root: nn.Module, settings: Mapping[type, Settings], x: Tensor) -> Signature:
    """Walks a tree once; small, since every call outside ``frozen`` does it."""
    modules: list[nn.Module] = [root]
    key: list[object] = []
    for module in modules:
        own = module.__dict__
        if own["_modules"]:
            modules += [child for child in own["_modules"].values() if child is not None]
        reason = _reason(module, own, x)
        if reason is not None:
            return Signature((), modules, f"{type(module).__name__}: {reason}")
        key += (id(module), own["training"])
        read = settings.get(type(module))
        if read is not None:
            key += read(module)
        elif "network_dtype" in own:
            key.append(own["network_dtype"])
    return Signature(tuple(key), modules, None)


def _reason(module: nn.Module, own: Mapping[str, Any], x: Tensor) -> str | None:
    if (
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
    ):
        return "it has hooks"
    if any(name in own for name in PATCHABLE):
        return "a method of this instance is patched"
    if own.get("initializing"):
        return "it is being initialised from data"
    for tensor in own["_parameters"].values():
        if tensor is None:
            continue
        if type(tensor) is not nn.Parameter and type(tensor) is not Tensor:
            return f"a parameter is a {type(tensor).__name__}"
        if tensor.dtype != x.dtype or tensor.device != x.device:
            return f"a parameter is {tensor.dtype} on {tensor.device}, the batch {x.dtype} on {x.device}"
    return None


def original_methods(kinds: Iterable[type]) -> list[tuple[type, str, object]]:
    """The methods of classes as they are now, to notice later that somebody has replaced one."""
    return [(kind, name, getattr(kind, name)) for kind in kinds for name in PATCHABLE if hasattr(kind, name)]
