"""Building a model without drawing its parameters: for loading, where a file replaces them, and for shapes alone.

Drawing random numbers that a weights file then replaces is most of the work of loading a large model.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from flowzoo.errors import IntegrityError, PluginError
from flowzoo.registry.isolation import gave_up

if TYPE_CHECKING:
    from flowzoo.flow import Flow

__all__ = ["bounded_build", "build_to_load", "on_meta", "undrawn"]

_ONE_BUILD = threading.RLock()

_DRAWS = frozenset(
    {
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.uniform_,
        Tensor.normal_,
        Tensor.uniform_,
    }
)
"""The functions that fill a tensor, their argument ``tensor`` or the first one, with random numbers."""


def build_to_load(architecture: str, config: Any) -> Flow:
    """Builds a flow whose saved tensors will all be replaced; draws as little as its plugin allows.

    All that a model of this config does not save is as in an ordinary build. torch's random state stays as it is.

    Args:
        architecture: The architecture's name.
        config: Its parsed config.

    Raises:
        PluginError: The architecture's build function fails.
    """
    from flowzoo.factory import build_flow

    try:
        with undrawn():
            return build_flow(architecture, config)
    except PluginError as error:
        if gave_up(error):
            raise
        # Perhaps it looks at what it draws; if not, the ordinary build fails as well and says why.
        with _random_state_kept():
            return build_flow(architecture, config)


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Leaves new parameters zero that would be drawn from torch's global stream, unless someone seeds it.

    An unseeded stream gives another value every time, so nothing can depend on which; numbers from a seeded one or
    from a generator may be constants that the model does not save, and are drawn. A stream counts as seeded when its
    seed is no longer the secret one that it gets here.
    """
    with _random_state_kept():
        secret = secrets.randbits(62)
        torch.default_generator.manual_seed(secret)
        with _NoDraws(lambda tensor: isinstance(tensor, nn.Parameter) and torch.initial_seed() == secret):
            yield


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Puts torch's global random state back afterwards; one thread at a time, or one would keep another's."""
    with _ONE_BUILD:
        state = torch.get_rng_state()
        try:
            yield
        finally:
            torch.set_rng_state(state)


@contextlib.contextmanager
def bounded_build(tensors: int, what: str) -> Iterator[None]:
    """Ends the building of a model that has far more parts than the file it is built for.

    Args:
        tensors: Number of tensors in the file. Modules and their parts may be twenty times as many.
        what: What asks for the model, for the error.

    Raises:
        IntegrityError: The model is that large.
    """
    thread, most = threading.get_ident(), 1000 + 20 * tensors
    parts = 0

    def count(module: nn.Module, name: str, part: object) -> None:
        nonlocal parts
        if threading.get_ident() != thread:
            return
        parts += 1
        if parts > most:
            raise IntegrityError(
                f"{what} asks for a model of more than {most} parts, and the file holds {tensors} tensors: "
                "they do not belong together; get both from whoever made them."
            )

    hooks = [
        register(count)
        for register in (
            nn.modules.module.register_module_parameter_registration_hook,
            nn.modules.module.register_module_buffer_registration_hook,
            nn.modules.module.register_module_module_registration_hook,
        )
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Makes new tensors meta tensors, with names and shapes alone, and drawing them free.

    torch's own meta kernels of some functions import its compiler first, which takes seconds.
    """
    with torch.device("meta"), _NoDraws(lambda tensor: tensor.is_meta), _ShapesAlone():
        yield


class _NoDraws(TorchFunctionMode):
    """Sets tensors to zero instead of drawing them, where no generator is named."""

    def __init__(self, applies: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.applies = applies

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS and kwargs.get("generator") is None:
            tensor = args[0] if args else kwargs["tensor"]
            if self.applies(tensor):
                with torch.no_grad():
                    return tensor.zero_()
        return func(*args, **kwargs)


class _ShapesAlone(TorchFunctionMode):
    """Makes normal draws and identities, where no device is named, as plain tensors of their shape."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn and not kwargs and all(type(size) is int for size in args):
            return torch.empty(args)
        if func is torch.eye and not kwargs and len(args) == 1:
            return torch.empty(args * 2)
        return func(*args, **kwargs)
