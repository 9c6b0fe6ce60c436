"""Conditional flows: bits given the label, the average over labels, Bayes' rule, samples by label."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from flowzoo import engine
from flowzoo.bijectors import Chain, ClassTop, Flatten, MemoryMode
from flowzoo.errors import InputError
from flowzoo.factory import create
from flowzoo.flow import Flow

K = 3


def conditional(memory: MemoryMode = "store") -> Flow:
    """A Glow whose every parameter is away from its beginning."""
    torch.manual_seed(0)
    flow = create("glow-tiny", classes=K)
    flow.initialize(torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8), torch.randint(K, (64,)))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    flow.set_memory(memory)
    return flow.eval()


@pytest.fixture(scope="module")
def flow() -> Flow:
    return conditional()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


Y = torch.tensor([0, 1, 2, 2, 0])


def noise_of(x: Tensor) -> Tensor:
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(2))


def test_without_a_label_it_is_the_average_over_labels(flow: Flow, x: Tensor) -> None:
    noise = noise_of(x)
    each = torch.stack([flow.log_prob(x, k, noise=noise) for k in range(K)])
    assert (each.std(dim=0) > 0.1).all(), "the labels have to matter for this test"
    torch.testing.assert_close(flow.log_prob(x, noise=noise), each.logsumexp(0) - math.log(K))


def test_an_items_label_is_its_own(flow: Flow, x: Tensor) -> None:
    noise = noise_of(x)
    together = flow.log_prob(x, Y, noise=noise)
    alone = torch.cat([flow.log_prob(x[i : i + 1], int(Y[i]), noise=noise[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(flow(x, noise, Y), together)
    torch.testing.assert_close(
        flow.bits_per_dim(x, Y, seed=4, batch_size=2), flow.bits_per_dim(x, Y, seed=4), rtol=1e-5, atol=1e-5
    )


def test_bayes_rule(flow: Flow, x: Tensor) -> None:
    found = flow.class_log_probs(x, seed=5)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(5))
    each = torch.stack([-flow.bits_per_dim(x, k, seed=5) * flow.dims * math.log(2) for k in range(K)], 1)
    torch.testing.assert_close(found, each.log_softmax(1), rtol=1e-3, atol=1e-2)


def test_samples_by_label(flow: Flow) -> None:
    by_label = [flow.sample(4, k, seed=6) for k in range(K)]
    assert not torch.equal(by_label[0], by_label[1])
    mixed = flow.sample(4, torch.tensor([0, 1, 0, 1]), seed=6)
    torch.testing.assert_close(mixed[0].int(), by_label[0][0].int(), rtol=0, atol=1)
    torch.testing.assert_close(mixed[1].int(), by_label[1][1].int(), rtol=0, atol=1)
    assert torch.equal(flow.sample(6, seed=6), flow.sample(6, seed=6))


def test_encoding_needs_the_label_and_comes_back(flow: Flow, x: Tensor) -> None:
    assert torch.equal(flow.reconstruct(x, Y), x)
    assert not torch.equal(flow.encode(x, 0), flow.encode(x, 1))
    with pytest.raises(InputError, match="give y"):
        flow.encode(x)
    with pytest.raises(InputError, match="give y"):
        flow.decode(flow.encode(x, Y))


@pytest.mark.parametrize("memory", ["store", "checkpoint", "invertible"])
def test_engine_and_memory_modes_change_nothing(memory: MemoryMode, x: Tensor) -> None:
    flow, noise = conditional(memory), noise_of(x)

    def gradients() -> list[Tensor]:
        loss = flow.per_dim(flow.log_prob(x, Y, noise=noise)).mean()
        return [loss.detach(), *torch.autograd.grad(loss, list(flow.parameters()))]

    fast = gradients()
    assert "row" in flow.engine.explain(flow.bijector, x.float(), torch.eye(K)[Y])
    with engine.disabled():
        plain = gradients()
    reference = conditional()
    with engine.disabled():
        stored = torch.autograd.grad(
            reference.per_dim(reference.log_prob(x, Y, noise=noise)).mean(), list(reference.parameters())
        )
    for a, b, c in zip(fast[1:], plain[1:], stored, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(b, c, rtol=1e-3, atol=1e-4)


def test_gradients_reach_the_constants_of_the_labels_given(x: Tensor) -> None:
    flow = conditional()
    flow.log_prob(x[:2], torch.tensor([0, 2])).sum().backward()
    (top,) = [m for m in flow.modules() if isinstance(m, ClassTop)]
    assert top.class_mean.grad is not None
    assert top.class_mean.grad.abs().flatten(1).amax(1).gt(0).tolist() == [True, False, True]


def test_label_dropout_models_an_item_without_a_label() -> None:
    def build(*, dropout: bool) -> Flow:
        top = ClassTop((1, 2, 2), K)
        torch.manual_seed(3)
        torch.nn.init.normal_(top.class_mean)
        bijector = Chain(top, Flatten((1, 2, 2)))
        return Flow(image_shape=(1, 2, 2), bijector=bijector, classes=K, label_dropout=dropout)

    flow, x = build(dropout=True), torch.randint(0, 256, (4, 1, 2, 2), dtype=torch.uint8)
    noise = noise_of(x)
    top = flow.bijector.bijectors[0]
    mean_context = torch.full((4, K), 1 / K)
    known = flow.log_density((x + noise) / 256, mean_context) - flow.dims * math.log(256)
    torch.testing.assert_close(flow.log_prob(x, noise=noise), known)
    some = torch.tensor([0, -1, 2, -1])
    mixed = flow.log_prob(x, some, noise=noise)
    torch.testing.assert_close(mixed[[1, 3]], known[[1, 3]])
    torch.testing.assert_close(mixed[[0, 2]], flow.log_prob(x, some.clamp(0), noise=noise)[[0, 2]])
    assert isinstance(top, ClassTop)
    assert torch.equal(flow.reconstruct(x), x)
    with pytest.raises(InputError, match="labels hold -1"):
        build(dropout=False).log_prob(x, some)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.tensor([0, 1, 3, 0, 7]), r"labels hold 3, 7 \(rows 2, 4\); expected 0 to 2"),
        (torch.tensor([0, 1]), r"expected \(5,\)"),
        (torch.rand(5), "int64"),
        ("zero", "int64"),
        (True, "int64"),
        (3, "label is 3"),
    ],
)
def test_wrong_labels_are_refused(flow: Flow, x: Tensor, y: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        flow.log_prob(x, y)  # type: ignore[arg-type]


def test_labels_asked_of_a_flow_without_are_refused(x: Tensor) -> None:
    flow = create("glow-tiny")
    for ask in (
        lambda: flow.log_prob(x, Y),
        lambda: flow.sample(2, 1),
        lambda: flow.encode(x, Y),
        lambda: flow.class_log_probs(x),
    ):
        with pytest.raises(InputError, match=r"has none|without classes"):
            ask()


@pytest.mark.parametrize("label", [K, -2, 10**30])
def test_a_number_that_is_no_label_is_refused(flow: Flow, x: Tensor, label: int) -> None:
    for call in (lambda: flow.log_prob(x, label), lambda: flow.sample(2, y=label)):
        with pytest.raises(InputError, match=r"label is .*; expected 0 to 2"):
            call()


def test_a_label_may_be_a_number_of_numpy(flow: Flow, x: Tensor) -> None:
    noise = noise_of(x)
    torch.testing.assert_close(flow.log_prob(x, np.int64(1), noise=noise), flow.log_prob(x, 1, noise=noise))  # type: ignore[arg-type]
