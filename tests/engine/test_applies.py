"""Whatever the engine does not know makes a call plain, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from flowzoo.bijectors import AffineCoupling, Chain
from flowzoo.engine import Engine, disabled
from tests.engine.test_equals_plain import steps


class Batch(Tensor):
    """A subclass of tensors."""


class FunctionMode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class DispatchMode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.fixture
def chain() -> Chain:
    return steps(2).double()


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 5, 4, 4, dtype=torch.float64)


def coupling_of(chain: Chain) -> AffineCoupling:
    return next(m for m in chain.modules() if isinstance(m, AffineCoupling))


@contextmanager
def removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def patched(owner: Any, name: str) -> Iterator[None]:
    original = getattr(owner, name)

    def stand_in(*args: Any) -> Any:
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, stand_in)
        yield


@contextmanager
def switched_off() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWZOO_ENGINE", "0")
        yield


def nothing(*_: object) -> None:
    """A hook."""


REASONS: dict[str, Callable[[Chain], Any]] = {
    "forward hook": lambda c: removed(coupling_of(c).net.register_forward_hook(nothing)),
    "forward pre-hook": lambda c: removed(coupling_of(c).register_forward_pre_hook(nothing)),
    "backward hook": lambda c: removed(coupling_of(c).register_full_backward_hook(nothing)),
    "global hook": lambda _: removed(nn.modules.module.register_module_forward_hook(nothing)),
    "patched instance": lambda c: patched(coupling_of(c), "_transform"),
    "patched class": lambda _: patched(AffineCoupling, "_transform"),
    "function mode": lambda _: FunctionMode(),
    "dispatch mode": lambda _: DispatchMode(),
    "disabled": lambda _: disabled(),
    "FLOWZOO_ENGINE=0": lambda _: switched_off(),
    "forward mode": lambda _: forward_ad.dual_level(),
    "autocast": lambda _: torch.autocast("cpu", dtype=torch.bfloat16),
}


# Forward mode loads it.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("reason", REASONS)
def test_the_call_is_plain_and_has_the_same_numbers(
    reason: str, recorded: bool, chain: Chain, x: Tensor
) -> None:
    engine = Engine()
    expected = [t.detach() for t in chain(x)]
    assert "fused" in engine.explain(chain, x)
    with REASONS[reason](chain), torch.set_grad_enabled(recorded):
        assert engine.explain(chain, x).startswith("plain: ")
        if reason != "autocast":
            found = [t.detach() for t in engine.run(chain, x)]
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_patched_method_counts(chain: Chain, x: Tensor) -> None:
    engine = Engine()
    before, _ = engine.run(chain, x)
    coupling = coupling_of(chain)
    transform = coupling._transform
    coupling._transform = lambda b, p: transform(2 * b, p)  # type: ignore[method-assign]
    after, _ = engine.run(chain, x)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, chain(x)[0])


def test_subclasses_of_bijectors_are_called(chain: Chain, x: Tensor) -> None:
    class Reflected(AffineCoupling):
        def _transform(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
            z, log_det = super()._transform(x, parameters)
            return -z, log_det

    coupling_of(chain).__class__ = Reflected
    torch.testing.assert_close(Engine().run(chain, x), chain(x), rtol=1e-10, atol=1e-10)
    assert "called: Reflected" in Engine().explain(chain, x)


def test_subclasses_of_tensors_are_left_to_torch(chain: Chain, x: Tensor) -> None:
    batch = x.as_subclass(Batch)
    assert Engine().explain(chain, batch) == "plain: the batch is of a tensor subclass"
    z, _ = Engine().run(chain, batch)
    assert isinstance(z, Batch)
    torch.testing.assert_close(z.as_subclass(Tensor), chain(x)[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
def test_functions_of_torch_func_and_traces(chain: Chain, x: Tensor) -> None:
    engine = Engine()

    def log_det(v: Tensor) -> Tensor:
        return engine.run(chain, v)[1].sum()

    given = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(chain(given)[1].sum(), given)
    torch.testing.assert_close(torch.func.grad(log_det)(x), expected)
    graph = torch.fx.experimental.proxy_tensor.make_fx(log_det)(x)
    torch.testing.assert_close(graph(x), chain(x)[1].sum())
