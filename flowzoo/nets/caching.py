"""Keeping what a module makes of its parameters alone, while nothing can change them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from flowzoo.nets.tree import modules_of

T = TypeVar("T")

_LOOK: ContextVar[Callable[[], object | None] | None] = ContextVar("_LOOK", default=None)
"""Gives what stands for the model that is evaluated as it is now; see :class:`Snapshot`."""

_UNKEPT: ContextVar[bool] = ContextVar("_UNKEPT", default=False)
"""Whether nothing may be kept, whatever the mode."""


@contextmanager
def unkept() -> Iterator[None]:
    """A context in which nothing is kept: parameters change in it, or will by gradients that it does not record."""
    token = _UNKEPT.set(True)
    try:
        yield
    finally:
        _UNKEPT.reset(token)


def keeps_nothing() -> bool:
    """Whether this is inside of :func:`unkept`."""
    return _UNKEPT.get()


def watched(modules: Iterable[nn.Module]) -> bool:
    """Whether someone has hooked into these modules, or into all there are, so that each must be called."""
    return torch.nn.modules.module._has_any_global_hook() or any(map(is_watched, modules))


def is_watched(module: nn.Module) -> bool:
    """Whether someone has hooked into this one."""
    own = module.__dict__
    forward, backward = own["_forward_hooks"] or own["_forward_pre_hooks"], own["_backward_hooks"]
    return bool(forward or backward or own["_backward_pre_hooks"])


class CachesInEval(nn.Module):
    """Base of modules that fold or invert their parameters: in evaluation the result is kept.

    Kept means: in eval mode, without gradients, without autocast, and while every parameter is the same tensor at
    the same address with the same version. Fused optimizers write without counting versions, so a forward pass with
    gradients forgets what was kept, and a parameter that holds a gradient keeps nothing new. Writing to
    ``parameter.data`` in eval mode cannot be seen; write to the parameter under ``torch.no_grad()`` instead. Nor can
    other settings of layers (log-scale factors, paddings); those of bijectors can. A whole
    model looks at its parameters once, before it evaluates (:class:`Snapshot`): what a hook changes meanwhile counts
    from the next evaluation on.

    Attributes:
        forgotten: How often any module forgot something: what was made of it elsewhere is not to be used again.
    """

    forgotten: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self._kept = _Kept()

    def cached(
        self,
        key: Hashable,
        parameters: Callable[[], Iterable[Tensor | None]],
        compute: Callable[[], T],
        passing: Callable[[], T] | None = None,
    ) -> T:
        """What ``compute`` returns, or returned before for this key and these parameters.

        Where nothing is kept, ``passing`` is called instead, if there is one: what is worth less work for one use.
        """
        if self._passes():
            return (passing or compute)()
        entry, state = self._kept.get(key), _state()
        if entry is None or entry.state is None or entry.state is not state:
            stamps = None if _is_narrowed() else _stamped(parameters())
            if stamps is None:
                return (passing or compute)()
            before = None if entry is None or entry.stamps is None else entry.stamps.numbers
            known = entry is not None and before == stamps.numbers
            entry = _Entry(stamps, state, entry.value if entry is not None and known else compute())
            self._kept[key] = entry
        result: T = entry.value
        return result

    def known(self, key: Hashable) -> Any:
        """What was kept for this key while the model is evaluated as it is now; None if nothing was."""
        if self._passes():
            return None
        entry = self._kept.get(key)
        if entry is None or entry.state is None or entry.state is not _state():
            return None
        return entry.value

    def keep(self, key: Hashable, value: object) -> None:
        """Has :meth:`known` give this while the model is evaluated as it is now, if that is known to last."""
        if self._passes() or any(module.training for module in modules_of(self)):
            return
        if (state := _state()) is not None:
            self._kept[key] = _Entry(None, state, value)

    def _passes(self) -> bool:
        """Whether nothing may be kept now, and nothing that was."""
        if torch.compiler.is_compiling():
            return True  # A compiler would take what is kept for constants.
        passes = self.training or torch.is_grad_enabled() or _UNKEPT.get()
        if passes:
            self.forget()
        return passes

    def forget(self) -> None:
        """Forgets what was kept."""
        if self._kept:
            self._kept.clear()
            CachesInEval.forgotten += 1

    def train(self, mode: bool = True) -> Self:
        """Sets the mode and forgets what was kept."""
        self.forget()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self.forget()
        moved: Self = super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return moved


class Snapshot:
    """What a model was when it was last evaluated: parameters, buffers, modules, modes, hooks, dtypes of networks.

    A model asks once whether anything has changed since, for all of its modules. Copies and pickles begin without.
    """

    def __init__(self) -> None:
        self._last: tuple[_Stamps, object, list[nn.Module | None]] | None = None

    def forget(self) -> None:
        """Lets go of the parameters that it saw last."""
        self._last = None

    def __reduce__(self) -> tuple[type[Snapshot], tuple[()]]:
        return Snapshot, ()

    @contextmanager
    def taken(self, model: nn.Module) -> Iterator[None]:
        """A context in which this model stays as it is; it is looked at once, when the first of its modules asks."""
        # A module may ask from inside of an autocast of its own, which is nothing that passes.
        looked: list[object | None] = [None] if _is_narrowed() else []

        def look() -> object | None:
            if not looked:
                looked.append(self._look(model))
            return looked[0]

        token = _LOOK.set(look)
        try:
            yield
        finally:
            _LOOK.reset(token)

    def _look(self, model: nn.Module) -> object | None:
        """What stands for the model as it is: the same object as long as it is the same; None if it might not be."""
        # Small things, but for every module of every evaluation: hence no second walk over the tree.
        modules: list[nn.Module | None] = [model]
        tensors: list[Tensor | None] = []
        others = [CachesInEval.forgotten, watched(())]
        for module in modules:
            if module is None:
                continue
            own = module.__dict__
            if own["_modules"]:
                modules += own["_modules"].values()
            if own["_parameters"]:
                tensors += own["_parameters"].values()
            if own["_buffers"]:
                tensors += own["_buffers"].values()
            others.append(own["training"])
            if "network_dtype" in own or "forward" in own or is_watched(module):
                others += id(module), id(own.get("network_dtype")), id(own.get("forward")), is_watched(module)
        others += map(id, modules)
        stamps, last = _stamped(tensors, others), self._last
        if stamps is None or last is None or stamps.numbers != last[0].numbers:
            # The modules are held for their identity, but for the model, which holds this.
            self._last = last = None if stamps is None else (stamps, object(), modules[1:])
        return None if last is None else last[1]


def _is_narrowed() -> bool:
    return torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu")


def _state() -> object | None:
    look = _LOOK.get()
    return None if look is None else look()


class _Stamps(NamedTuple):
    """Tensors and what changes when one does; while they are held, no other can come to have their identity."""

    of: list[Tensor]
    numbers: list[int]


class _Entry(NamedTuple):
    """A kept value, with the parameters that it is of, if of these alone, and the state of the model then."""

    stamps: _Stamps | None
    state: object | None
    value: Any


class _Kept(dict[Hashable, _Entry]):
    """The entries of one module; copies and pickles of the module begin without any."""

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()


def _stamped(tensors: Iterable[Tensor | None], others: Iterable[int] = ()) -> _Stamps | None:
    """The stamps of tensors and other numbers; None if a tensor may change unseen."""
    known = [t for t in tensors if t is not None]
    if any(t.grad is not None for t in known):
        return None
    try:
        versions = [t._version for t in known]
    except RuntimeError:
        return None  # An inference tensor, which counts none.
    return _Stamps(known, [*others, *map(id, known), *versions, *[t.data_ptr() for t in known]])
