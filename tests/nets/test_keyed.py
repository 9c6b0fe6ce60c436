"""Draws inside a flow: functions of (seed, item, layer, name, probe), and the same again in a backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowzoo.errors import InputError
from flowzoo.nets.keyed import Keys, draw, keyed_draws, keyed_noise, number_layers
from flowzoo.nets.tape import Tape, recording, replaying

LIKE = torch.zeros(5, 3)


def pair() -> tuple[nn.Module, nn.Module]:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    number_layers(model)
    return model[0], model[1]


def test_an_items_numbers_do_not_depend_on_its_batch() -> None:
    one, _ = pair()
    with keyed_draws(Keys(seed=1, items=range(5))):
        whole = draw(one, "normal", (4,), LIKE)
    with keyed_draws(Keys(seed=1, items=[3])):
        alone = draw(one, "normal", (4,), LIKE[:1])
    assert torch.equal(whole[3:4], alone)


def test_seed_item_layer_name_and_probe_each_change_them() -> None:
    one, two = pair()
    seen = []
    for module, name, keys in (
        (one, "", Keys(seed=1, items=[0])),
        (two, "", Keys(seed=1, items=[0])),
        (one, "again", Keys(seed=1, items=[0])),
        (one, "", Keys(seed=2, items=[0])),
        (one, "", Keys(seed=1, items=[1])),
        (one, "", Keys(seed=1, items=[0], probe=1)),
    ):
        with keyed_draws(keys):
            seen.append(draw(module, "uniform", (6,), LIKE[:1], name=name))
    assert len({tuple(values.flatten().tolist()) for values in seen}) == len(seen)
    noise = keyed_noise("uniform", (6,), 1, [0], 0)
    assert all(not torch.equal(noise, values) for values in seen)


def test_what_is_drawn_per_sample_changes_with_the_sample_alone() -> None:
    one, _ = pair()

    def values(**keys: int) -> torch.Tensor:
        with keyed_draws(Keys(seed=1, items=[0], **keys)):
            return draw(one, "normal", (2,), LIKE[:1], per="sample")

    assert torch.equal(values(probe=0), values(probe=5))
    assert not torch.equal(values(sample=0), values(sample=1))


MOMENTS = [("uniform", 0.5, 1 / 12), ("normal", 0, 1), ("rademacher", 0, 1)]


@pytest.mark.parametrize(("kind", "mean", "variance"), MOMENTS)
@pytest.mark.parametrize("keyed", [True, False])
def test_moments(kind: str, mean: float, variance: float, keyed: bool) -> None:
    torch.manual_seed(0)
    one, _ = pair()
    with keyed_draws(Keys(seed=4, items=range(5)) if keyed else None):
        values = draw(one, kind, (40_000,), LIKE)  # type: ignore[arg-type]
    assert values.mean().item() == pytest.approx(mean, abs=0.01)
    assert values.var().item() == pytest.approx(variance, abs=0.01)
    if kind == "rademacher":
        assert set(values.unique().tolist()) == {-1.0, 1.0}


def test_a_replay_draws_the_same_numbers_under_each_name() -> None:
    one, _ = pair()
    tape = Tape()
    with recording(tape):
        first = draw(one, "normal", (2,), LIKE), draw(one, "normal", (2,), LIKE, name="other")
    torch.manual_seed(99)
    with replaying(tape):
        again = draw(one, "normal", (2,), LIKE), draw(one, "normal", (2,), LIKE, name="other")
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])


def test_keys_for_another_number_of_items_are_refused() -> None:
    one, _ = pair()
    with keyed_draws(Keys(seed=0, items=[0, 1])), pytest.raises(InputError, match="draws for 5 items"):
        draw(one, "normal", (2,), LIKE)


def test_the_context_ends() -> None:
    one, _ = pair()
    with keyed_draws(Keys(seed=0, items=range(5))):
        keyed = draw(one, "normal", (2,), LIKE)
    torch.manual_seed(0)
    assert not torch.equal(draw(one, "normal", (2,), LIKE), keyed)
