"""Batches: every image exactly once, the same joint batch for any number of processes, resumable bit for bit."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowzoo.data.augment import augment, flip, translate
from flowzoo.data.images import ImageSet, Selected
from flowzoo.data.keyed import keyed_bits, keyed_integers, keyed_permutation
from flowzoo.data.pipeline import TrainBatches, eval_batches
from flowzoo.data.prefetch import prefetch
from flowzoo.errors import CheckpointError, ConfigError, InputError


def pictures(count: int, channels: int = 1, size: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


class OnDisk:
    """A source that is not in memory."""

    def __init__(self, images: Tensor) -> None:
        self._images = images
        self.shape: tuple[int, int, int, int] = (len(images), *images.shape[1:])
        self.threads: set[str] = set()

    def batch(self, indices: Tensor) -> Tensor:
        self.threads.add(threading.current_thread().name)
        return self._images[indices]


def stream(images: Tensor | OnDisk, batch_size: int = 6, **options: object) -> TrainBatches:
    return TrainBatches(ImageSet(images), batch_size, 7, **{"augment": "flip,translate-10", **options})  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), batch=st.integers(1, 50), world=st.integers(1, 3), lazy=st.booleans())
def test_evaluation_sees_every_image_once(count: int, batch: int, world: int, lazy: bool) -> None:
    images = pictures(count)
    image_set = ImageSet(OnDisk(images) if lazy else images)
    seen: list[int] = []
    for rank in range(world):
        for indices, pixels in eval_batches(image_set, batch, rank, world):
            assert torch.equal(pixels, images[indices])
            assert 1 <= len(indices) <= batch
            seen += indices.tolist()
    assert sorted(seen) == list(range(count))


def test_evaluation_follows_the_order_it_is_given() -> None:
    order = torch.tensor([4, 0, 3])
    batches = list(eval_batches(ImageSet(pictures(5)), 2, order=order))
    assert torch.cat([indices for indices, _ in batches]).tolist() == [4, 0, 3]


@pytest.mark.parametrize(("batch", "rank", "world"), [(0, 0, 1), (1, 1, 1), (1, -1, 2)])
def test_evaluation_refuses_impossible_shares(batch: int, rank: int, world: int) -> None:
    with pytest.raises(InputError):
        eval_batches(ImageSet(pictures(3)), batch, rank, world)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(6, 50))
def test_an_epoch_repeats_no_image_and_drops_less_than_a_batch(count: int) -> None:
    batches = stream(pictures(count))
    seen = [index for _ in range(batches.steps_per_epoch) for index in next(batches).indices.tolist()]
    assert len(seen) == len(set(seen)) > count - 6
    assert batches.state()["epoch"] == 1


def test_epochs_and_seeds_differ_in_order() -> None:
    images = pictures(60)
    first, second = (next(stream(images)).indices for _ in range(2))
    assert torch.equal(first, second)
    batches = stream(images)
    epochs = [torch.cat([next(batches).indices for _ in range(10)]) for _ in range(2)]
    assert not torch.equal(*epochs)
    other = next(TrainBatches(ImageSet(images), 6, 8))
    assert not torch.equal(first, other.indices)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("lazy", [False, True])
def test_processes_share_the_joint_batch_of_one(world: int, lazy: bool) -> None:
    images = pictures(20, channels=3, size=20)
    alone = stream(images)
    parts = [stream(OnDisk(images) if lazy else images, rank=rank, world_size=world) for rank in range(world)]
    for _ in range(8):
        joint, shares = next(alone), [next(part) for part in parts]
        assert torch.equal(joint.images, torch.cat([share.images for share in shares]))
        assert torch.equal(joint.indices, torch.cat([share.indices for share in shares]))
        assert {share.step for share in shares} == {joint.step}
        assert [share.first for share in shares] == [rank * 6 // world for rank in range(world)]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 3, 4, 11])
def test_a_resumed_stream_equals_the_unbroken_one(stop: int, lazy: bool) -> None:
    images = pictures(20, size=20)
    source: Tensor | OnDisk = OnDisk(images) if lazy else images
    unbroken, broken = stream(images), stream(source)
    for _ in range(stop):
        next(unbroken)
        next(broken)
    state = broken.state()
    next(broken)
    broken.restore(state)
    resumed = stream(source)
    resumed.restore(state)
    for _ in range(7):
        expected = next(unbroken)
        for batches in (broken, resumed):
            found = next(batches)
            assert torch.equal(found.images, expected.images)
            assert found.step == expected.step
    broken.close()
    resumed.close()


def test_a_position_of_another_stream_is_refused() -> None:
    state = stream(pictures(20)).state()
    for change in ({"seed": 8}, {"batch_size": 4}, {"num_images": 21}, {"offset": 99}, {"epoch": -1}):
        with pytest.raises(CheckpointError):
            stream(pictures(20)).restore({**state, **change})


def test_batches_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(InputError, match="evenly"):
        stream(pictures(20), batch_size=5, world_size=2)
    with pytest.raises(InputError, match="larger than"):
        stream(pictures(5))
    with pytest.raises(ConfigError, match="Did you mean 'flip'"):
        stream(pictures(20), augment="flop")


def test_a_set_on_disk_is_read_by_threads_unless_resident() -> None:
    source = OnDisk(pictures(20))
    with_threads = stream(source)
    next(with_threads)
    with_threads.close()
    assert all(name.startswith("flowzoo-data") for name in source.threads)
    source.threads.clear()
    resident = stream(source, resident=True)
    source.threads.clear()
    next(resident)
    assert not source.threads


def test_prefetch_keeps_order_and_passes_errors_on() -> None:
    def fail_at_three(job: int) -> int:
        if job == 3:
            raise ValueError("three")
        return job * 2

    assert list(prefetch(fail_at_three, [0, 1, 2], workers=3)) == [0, 2, 4]
    results = prefetch(fail_at_three, range(10))
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_flip_is_an_involution_and_mirrors_only_the_chosen() -> None:
    images, chosen = pictures(5), torch.tensor([True, False, True, False, False])
    once = flip(images, chosen)
    assert torch.equal(flip(once, chosen), images)
    assert torch.equal(once[1], images[1])
    assert torch.equal(once[0, :, :, 0], images[0, :, :, -1])


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(-3, 3), columns=st.integers(-3, 3))
def test_translate_moves_pixels_and_repeats_the_border(rows: int, columns: int) -> None:
    images = pictures(1, channels=3)
    moved = translate(images, torch.tensor([rows]), torch.tensor([columns]))
    for row in range(6):
        for column in range(6):
            source = images[0, :, min(max(row - rows, 0), 5), min(max(column - columns, 0), 5)]
            assert torch.equal(moved[0, :, row, column], source)


def test_augmentation_depends_on_seed_step_and_place_alone() -> None:
    images = pictures(32, size=20)
    names = ("flip", "translate-10")
    whole = augment(images, names, seed=1, step=5)
    halves = [augment(images[at : at + 16], names, seed=1, step=5, first=at) for at in (0, 16)]
    assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(whole, augment(images, names, seed=1, step=6))
    assert not torch.equal(whole, augment(images, names, seed=2, step=5))
    assert torch.equal(augment(images, (), seed=1, step=5), images)


def test_half_of_the_images_are_flipped_and_shifts_cover_their_range() -> None:
    images = pictures(1, size=20).expand(4000, 1, 20, 20)
    flipped = augment(images, ("flip",), seed=0, step=0)
    share = (flipped != images).flatten(1).any(1).float().mean().item()
    assert abs(share - 0.5) < 0.04
    shifts = keyed_integers((0,), np.arange(4000, dtype=np.uint64), -2, 3)
    assert np.bincount(shifts + 2, minlength=5).min() > 700


@pytest.mark.parametrize(("name", "reach"), [("translate-10", 2), ("shift-1", 1)])
def test_every_move_within_reach_is_as_likely_as_any_other(name: str, reach: int) -> None:
    side, count = 2 * reach + 1, 9000
    point = torch.zeros(1, 1, 20, 20, dtype=torch.uint8)
    point[0, 0, 10, 10] = 255
    moved = augment(point.expand(count, 1, 20, 20), (name,), seed=0, step=0)
    places = (moved > 0).float().mean(0)[0]
    around = places[10 - reach : 11 + reach, 10 - reach : 11 + reach]
    assert around.sum().item() == pytest.approx(1)
    assert (around * side**2 - 1).abs().max() < 0.3


def test_keyed_numbers_never_change() -> None:
    """The order of training images of every recorded run hangs on these."""
    bits = keyed_bits((1, 2), np.arange(3, dtype=np.uint64))
    assert [int(value) for value in bits] == [8684421853201259283, 11444708942390582810, 8822798008091996829]
    assert keyed_permutation((1, 2), 8).tolist() == [6, 5, 4, 7, 3, 0, 2, 1]


@given(size=st.integers(0, 300), key=st.integers(-(2**70), 2**70))
def test_a_permutation_holds_every_position_once(size: int, key: int) -> None:
    assert sorted(keyed_permutation((key,), size).tolist()) == list(range(size))


def test_image_set_is_indexable_wherever_its_pixels_are() -> None:
    images = pictures(9)
    for source in (images, OnDisk(images), Selected(OnDisk(images), torch.arange(9))):
        image_set = ImageSet(source)
        assert len(image_set) == 9
        assert torch.equal(image_set[2:5], images[2:5])
        assert torch.equal(image_set[-1], images[-1])
        assert torch.equal(image_set.take(4).subset(torch.tensor([3, 1]))[:], images[[3, 1]])
        assert image_set.digest == ImageSet(images).digest
        assert image_set.in_memory is isinstance(source, Tensor)


def test_image_set_refuses_anything_but_uint8_images() -> None:
    for wrong in (torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8)):
        with pytest.raises(InputError, match="uint8"):
            ImageSet(wrong)
