"""The rectifier network as one operation is its layers one by one, in every derivative."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from flowzoo.nets.mlp import MLP


def drawn(rows: int = 3, dtype: torch.dtype = torch.float64) -> tuple[MLP, Tensor]:
    """A network with random parameters, and a batch for it."""
    torch.manual_seed(rows)
    net = MLP(5, (7, 6, 7), 4, 0.0).to(dtype)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net, torch.randn(rows, 5, dtype=dtype, requires_grad=True)


def one_by_one(net: MLP, x: Tensor) -> Tensor:
    """What the network is, written down."""
    for layer in net.layers[:-1]:
        x = F.linear(x, layer.weight, layer.bias).relu()
    return F.linear(x, net.layers[-1].weight, net.layers[-1].bias)


def derived(out: Tensor, inputs: list[Tensor], **options: bool) -> list[Tensor]:
    """A result, and the gradients of a function of it that is not linear."""
    return [out, *torch.autograd.grad(out.sin().sum(), inputs, **options)]


def assert_alike(found: object, expected: object) -> None:
    """Asserts that both are the same but for rounding in float64."""
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 3, 65])
def test_result_and_gradients_are_those_of_the_layers(rows: int) -> None:
    net, x = drawn(rows)
    inputs = [x, *net.parameters()]
    assert_alike(derived(net(x), inputs), derived(one_by_one(net, x), inputs))
    with torch.no_grad():
        for mode in (True, False):
            assert_alike(net.train(mode)(x), one_by_one(net, x))


def test_second_derivatives_are_those_of_the_layers() -> None:
    net, x = drawn()
    weight = net.layers[1].weight
    # The input depends on a weight as well, which must not be taken for part of the network.
    inputs = [x, weight]

    def twice(network: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        _, grad_x, grad_weight = derived(network(x * weight.sum()), inputs, create_graph=True)
        return torch.autograd.grad(grad_x.square().sum() + grad_weight.sin().sum(), [x, *net.parameters()])

    assert_alike(twice(net), twice(lambda given: one_by_one(net, given)))
    assert torch.autograd.gradgradcheck(net, (torch.randn(2, 5, dtype=torch.float64, requires_grad=True),))


def test_a_layer_that_is_there_twice_counts_twice() -> None:
    net, x = drawn()
    net.layers[3] = net.layers[1] = nn.Linear(7, 7).double()
    net.layers[2] = nn.Linear(7, 7).double()
    net.layers.append(nn.Linear(7, 4).double())
    inputs = [x, *net.parameters()]
    assert_alike(derived(net(x), inputs), derived(one_by_one(net, x), inputs))
    for options in ({"create_graph": True}, {}):
        assert_alike(derived(net(x), inputs, **options), derived(one_by_one(net, x), inputs))


def test_frozen_parameters_and_inputs_without_gradients() -> None:
    net, x = drawn()
    net.layers[0].weight.requires_grad_(False)
    net.layers[2].bias.requires_grad_(False)
    wanted = [p for p in net.parameters() if p.requires_grad]
    fixed = x.detach()
    before = fixed.clone()
    for options in ({}, {"create_graph": True}):
        assert_alike(derived(net(fixed), wanted, **options), derived(one_by_one(net, fixed), wanted))
    assert torch.equal(fixed, before)


# What torch itself loads for forward mode.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
def test_gradients_taken_many_at_a_time_forwards_and_by_functions() -> None:
    net, x = drawn()
    expected = torch.autograd.functional.jacobian(lambda v: one_by_one(net, v), x)
    for vectorize in (False, True):
        assert_alike(torch.autograd.functional.jacobian(net, x, vectorize=vectorize), expected)
    assert_alike(torch.func.jacrev(net)(x), expected)
    assert_alike(torch.func.jacfwd(net)(x), expected)
    assert_alike(torch.func.vmap(net)(x[:, None])[:, 0], one_by_one(net, x))
    with forward_ad.dual_level():
        tangent = torch.ones_like(x)
        found = forward_ad.unpack_dual(net(forward_ad.make_dual(x, tangent))).tangent
    assert found is not None
    assert_alike(found, (expected * tangent).sum((2, 3)))


def test_evaluation_follows_every_change_of_a_weight() -> None:
    net, _ = drawn()
    x = torch.randn(65, 5, dtype=torch.float64)
    net.eval()
    with torch.no_grad():
        net(x)
        net.layers[1].weight.mul_(2)
        assert_alike(net(x), one_by_one(net, x))
        net.layers[2].weight = nn.Parameter(-net.layers[2].weight)
        assert_alike(net(x), one_by_one(net, x))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
    net(x).sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert_alike(net(x), one_by_one(net, x))
        optimizer.zero_grad()
        assert_alike(net(x), one_by_one(net, x))


@pytest.mark.parametrize("rows", [2, 65])
def test_layers_that_someone_watches_or_exchanged_are_called(rows: int) -> None:
    class Doubled(nn.Linear):
        def forward(self, given: Tensor) -> Tensor:
            return 2 * super().forward(given)

    net, x = drawn(rows)
    net.eval()
    plain = net(x)
    seen = list[Tensor]()
    handle = net.layers[1].register_forward_hook(lambda _m, _given, out: seen.append(out))
    assert_alike(net(x), plain)
    assert len(seen) == 1
    handle.remove()
    last = net.layers[-1]
    net.layers[-1] = Doubled(7, 4).double()
    net.layers[-1].load_state_dict(last.state_dict())
    assert_alike(net(x), 2 * plain)
    net.layers[-1] = nn.Linear(7, 4, bias=False).double()
    assert_alike(net(x), one_by_one(net, x))
    net.layers[-1] = last
    net.layers[0].forward = lambda given: F.linear(given, net.layers[0].weight)  # type: ignore[method-assign]
    bare, net.layers[0].bias = net.layers[0].bias, None
    expected = one_by_one(net, x)
    net.layers[0].bias = bare
    assert_alike(net(x), expected)


def test_what_is_not_a_batch_of_vectors_is_torchs_own() -> None:
    net, x = drawn(4)
    deeper = x.view(2, 2, 5)
    assert_alike(net(deeper), one_by_one(net, x).view(2, 2, 4))
    assert_alike(net(x[0]), one_by_one(net, x[:1])[0])


def test_a_weight_frozen_since_has_no_second_derivatives() -> None:
    net, x = drawn()
    out = net(x)
    net.layers[0].weight.requires_grad_(False)
    (found,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(one_by_one(net, x).square().sum(), x)
    assert_alike(found, expected)


def test_compiled_and_traced_layers_are_called() -> None:
    net, x = drawn()
    calls = []
    # Whether a layer of torch's own, compiled alone, reaches the backend differs between versions of torch.
    net.layers[1].compile(backend="eager")
    compiled = net.layers[1]._compiled_call_impl

    def counted(*given: object) -> object:
        calls.append(given)
        return compiled(*given)

    net.layers[1]._compiled_call_impl = counted
    assert_alike(net(x), one_by_one(net, x))
    assert calls
    graph = torch.fx.experimental.proxy_tensor.make_fx(drawn()[0])(x.detach())
    assert_alike(graph(x.detach()), one_by_one(drawn()[0], x))


def test_nan_stays_visible() -> None:
    net, x = drawn(3, torch.float32)
    x = x.detach()
    x[0, 0] = torch.nan
    with torch.no_grad():
        for mode in (True, False):
            out = net.train(mode)(x)
            assert out[0].isnan().all()
            assert out[1:].isfinite().all()


def test_narrower_dtypes_are_torchs_own() -> None:
    net, x = drawn(3, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, one_by_one(net, x))
    narrow = net.to(torch.bfloat16)
    assert torch.equal(narrow(x.bfloat16()), one_by_one(narrow, x.bfloat16()))
