"""The statistics of batch norms are recomputed as the average over given batches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import flowzoo
from flowzoo.bijectors import FlowBatchNorm
from flowzoo.errors import InputError
from flowzoo.flow import Flow
from flowzoo.nets.resnet import ShiftBatchNorm2d
from flowzoo.testing import random_images, randomize
from flowzoo.training.batch_norm import update_batch_norm


def made() -> tuple[Flow, list[Tensor]]:
    flow = randomize(flowzoo.create("realnvp-tiny", network_batch_norm=True), seed=1).double().eval()
    kinds = {type(m) for m in flow.modules()}
    assert {FlowBatchNorm, ShiftBatchNorm2d} <= kinds
    return flow, [random_images(flow, 8, seed=seed) for seed in range(3)]


def statistics(flow: Flow) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in flow.named_buffers() if "running" in name}


def test_all_batches_count_alike_and_nothing_else_changes() -> None:
    flow, data = made()
    before = {name: p.clone() for name, p in flow.named_parameters()}
    momenta = [m.momentum for m in flow.modules() if hasattr(m, "momentum")]
    alone = []
    for x in data:
        torch.manual_seed(0)
        assert update_batch_norm(flow, [x]) > 3
        alone.append(statistics(flow))
    # In train mode a batch's statistics do not depend on the running ones, and the noise is the same for each.
    torch.manual_seed(0)
    noise = torch.get_rng_state()

    def seeded() -> Iterator[Tensor]:
        for x in data:
            torch.set_rng_state(noise)
            yield x

    update_batch_norm(flow, seeded())
    for name, value in statistics(flow).items():
        torch.testing.assert_close(value, sum(one[name] for one in alone) / 3)
    assert not flow.training
    assert [m.momentum for m in flow.modules() if hasattr(m, "momentum")] == momenta
    assert all(torch.equal(p, before[name]) for name, p in flow.named_parameters())


def test_modes_and_momenta_come_back_after_an_error() -> None:
    flow, data = made()
    flow.bijector.train()
    modes = [m.training for m in flow.modules()]
    with pytest.raises(InputError, match="uint8"):
        update_batch_norm(flow, [(data[0], None), (data[0].float(), None)])
    assert [m.training for m in flow.modules()] == modes
    with pytest.raises(InputError, match="no batches"):
        update_batch_norm(flow, [])


def test_a_flow_without_batch_norms_is_left_alone() -> None:
    assert update_batch_norm(flowzoo.create("nice-tiny"), []) == 0
