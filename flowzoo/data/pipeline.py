"""Batches for training and for evaluation.

Training: :class:`TrainBatches`, an endless stream that is a pure function of (seed, position). The joint
batch of a step is the same however many processes share it, and a stream restored at a position goes on
exactly as the one that was never interrupted.

Evaluation: :func:`eval_batches`, every image exactly once, nothing padded, nothing dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowzoo.data.augment import augment, parse_augmentations
from flowzoo.data.images import ImageSet
from flowzoo.data.keyed import keyed_permutation
from flowzoo.data.prefetch import prefetch
from flowzoo.errors import CheckpointError, ConfigError, InputError

__all__ = ["Batch", "EvalBatch", "Position", "TrainBatches", "eval_batches"]

_ORDER_STREAM = 100
_RESIDENT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Batch:
    """One process's share of a training batch.

    Attributes:
        images: uint8 (B, C, H, W), augmented, or the vectors of a :class:`flowzoo.data.VectorSet`, float32 (B, D);
            on the stream's device.
        indices: int64 (B,), positions in the training split, on the CPU.
        step: Training step that the batch belongs to, counted from 0 over all epochs.
        first: Place of ``images[0]`` in the joint batch of all processes.
        labels: int64 (B,) on the stream's device, or None where the set has none.
    """

    images: Tensor
    indices: Tensor
    step: int
    first: int
    labels: Tensor | None = None


@dataclass(frozen=True, slots=True)
class EvalBatch:
    """One process's next images to be measured; unpacks as ``indices, images``.

    Attributes:
        indices: int64 (B,), positions in the split.
        images: uint8 (B, C, H, W), or vectors, float32 (B, D).
        labels: int64 (B,), or None where the set has none.
    """

    indices: Tensor
    images: Tensor
    labels: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.indices, self.images))


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream stands.

    Attributes:
        epoch: Epochs completed.
        offset: Batches of this epoch already handed out.
    """

    epoch: int = 0
    offset: int = 0


class TrainBatches:
    """An endless stream of training batches, the same on every machine for the same seed.

    In each epoch the set is permuted by (seed, epoch) and cut into joint batches; the remainder that would
    not fill one is left out of this epoch. Process ``rank`` of ``world_size`` takes its consecutive share of
    each joint batch. Augmentation is keyed by (seed, step, place in the joint batch).

    Where the set fits in a quarter of the device's free memory it is copied there once; otherwise threads
    gather batches ahead into pinned memory, which is copied to the device while the step before is computed.

    Args:
        image_set: The images.
        batch_size: Images in the joint batch of all processes; a multiple of ``world_size``.
        seed: Seed of order and augmentation.
        device: Where the batches go.
        rank: This process.
        world_size: Number of processes.
        augment: ``"none"``, ``"flip"``, ``"translate-10"``, ``"shift-1"``, or several, by commas or as a sequence.
        resident: Whether to keep the whole set on the device; None decides by its size.
        workers: Threads that gather batches when the set is not resident.

    Raises:
        InputError: if the batch cannot be shared evenly, or is larger than the set.
        ConfigError: if an augmentation is unknown, or one is asked for of vectors.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        seed: int,
        *,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        augment: str | tuple[str, ...] | list[str] = "none",
        resident: bool | None = None,
        workers: int = 2,
    ) -> None:
        _check_rank(rank, world_size)
        if batch_size < 1 or batch_size % world_size:
            raise InputError(
                f"A batch of {batch_size} images cannot be shared evenly by {world_size} processes."
            )
        if batch_size > len(image_set):
            raise InputError(
                f"A batch of {batch_size} images is larger than the {image_set.split} split of "
                f"{image_set.id!r} with its {len(image_set)} images: choose a smaller batch."
            )
        self.image_set, self.batch_size, self.seed = image_set, batch_size, seed
        self.device = torch.device(device)
        self.rank, self.world_size, self.workers = rank, world_size, workers
        self.augmentations = parse_augmentations(augment)
        if self.augmentations and image_set.kind != "images":
            raise ConfigError(
                f"The augmentation {self.augmentations[0]!r} is of images, and {image_set.id!r} holds "
                f"{image_set.kind}: set augment to 'none'."
            )
        self.resident = fits_on(image_set, self.device) if resident is None else resident
        self._pixels = self._make_resident() if self.resident else None
        self._position = Position()
        self._order: tuple[int, Tensor] | None = None
        self._ahead: Iterator[tuple[Tensor, Tensor]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Joint batches in an epoch."""
        return len(self.image_set) // self.batch_size

    @property
    def step(self) -> int:
        """The training step that the next batch belongs to."""
        return self._position.epoch * self.steps_per_epoch + self._position.offset

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self._position.epoch

    def state(self) -> dict[str, int]:
        """Returns the position, and what it is a position in, as plain integers."""
        return {
            "epoch": self._position.epoch,
            "offset": self._position.offset,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "num_images": len(self.image_set),
        }

    def restore(self, state: dict[str, int]) -> None:
        """Goes to a position that :meth:`state` returned.

        Raises:
            CheckpointError: if it is a position in another stream.
        """
        own = self.state()
        for name in ("seed", "batch_size", "num_images"):
            if state.get(name) != own[name]:
                raise CheckpointError(
                    f"The data position was saved with {name} = {state.get(name)}, this run has {own[name]}. "
                    "Resume with the settings of the interrupted run, or start a new one."
                )
        epoch, offset = state.get("epoch", -1), state.get("offset", -1)
        if epoch < 0 or not 0 <= offset < self.steps_per_epoch:
            raise CheckpointError(f"The saved data position (epoch {epoch}, batch {offset}) does not exist.")
        self.close()
        self._position = Position(epoch, offset)

    def __iter__(self) -> TrainBatches:
        return self

    def __next__(self) -> Batch:
        step, share = self.step, self.batch_size // self.world_size
        if self._pixels is not None:
            indices = self._share(self._position)
            images = self._pixels[indices.to(self.device, non_blocking=True)]
        else:
            if self._ahead is None:
                self._ahead = self._read_ahead(self._position)
            indices, images = next(self._ahead)
        first = self.rank * share
        images = augment(images, self.augmentations, seed=self.seed, step=step, first=first)
        self._position = self._after(self._position)
        labels = self.image_set.labels
        chosen = None if labels is None else labels[indices].to(self.device, non_blocking=True)
        return Batch(images, indices, step, first, chosen)

    def close(self) -> None:
        """Ends the threads that gather batches ahead; the stream can be used again afterwards."""
        if self._ahead is not None:
            self._ahead.close()  # type: ignore[attr-defined]
            self._ahead = None

    def _after(self, position: Position) -> Position:
        if position.offset + 1 < self.steps_per_epoch:
            return Position(position.epoch, position.offset + 1)
        return Position(position.epoch + 1, 0)

    def _share(self, position: Position) -> Tensor:
        """Positions in the split of this process's share of a joint batch."""
        if self._order is None or self._order[0] != position.epoch:
            key = (self.seed, position.epoch, _ORDER_STREAM)
            self._order = position.epoch, torch.from_numpy(keyed_permutation(key, len(self.image_set)))
        share = self.batch_size // self.world_size
        start = position.offset * self.batch_size + self.rank * share
        return self._order[1][start : start + share]

    def _read_ahead(self, position: Position) -> Iterator[tuple[Tensor, Tensor]]:
        def shares() -> Iterator[Tensor]:
            at = position
            while True:
                yield self._share(at)
                at = self._after(at)

        gathered = prefetch(self._gather, shares(), workers=self.workers)
        return _copy_ahead(gathered, self.device)

    def _gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        images = self.image_set.batch(indices)
        return indices, images.pin_memory() if self.device.type == "cuda" else images

    def _make_resident(self) -> Tensor:
        images = self.image_set.images
        return (images if isinstance(images, Tensor) else self.image_set[:]).to(self.device)


def fits_on(image_set: ImageSet, device: torch.device) -> bool:
    """Whether to keep the whole set on a device: in at most a quarter of a GPU's free memory."""
    if device.type == "cpu":
        return image_set.in_memory
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return image_set.num_bytes <= _RESIDENT_SHARE * free
    return image_set.in_memory and image_set.num_bytes < 1 << 30


def eval_batches(
    image_set: ImageSet,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    *,
    order: Tensor | None = None,
    workers: int = 1,
) -> Iterator[EvalBatch]:
    """Yields every image of this process's share exactly once.

    Process ``rank`` takes images ``rank``, ``rank + world_size``, ...; shares may differ by one image, and
    the last batch may be smaller: nothing is padded and nothing dropped.

    Args:
        image_set: The images.
        batch_size: Images a batch, at least 1.
        rank: This process.
        world_size: Number of processes.
        order: int64 positions to go through instead of all in order.
        workers: Threads that read ahead; 0 reads when asked.

    Yields:
        Positions in the split and the images, to be unpacked, and the labels if there are any, all on the CPU.

    Raises:
        InputError: if the batch size or the rank is impossible.
    """
    _check_rank(rank, world_size)
    if batch_size < 1:
        raise InputError(f"The batch size must be at least 1, found {batch_size}.")
    indices = (torch.arange(len(image_set)) if order is None else order)[rank::world_size]
    chunks = (indices[start : start + batch_size] for start in range(0, len(indices), batch_size))
    labels = image_set.labels

    def gather(chosen: Tensor) -> EvalBatch:
        return EvalBatch(chosen, image_set.batch(chosen), None if labels is None else labels[chosen])

    return prefetch(gather, chunks, workers=workers)


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise InputError(f"Process {rank} of {world_size} does not exist: ranks count from 0.")


def _copy_ahead(
    batches: Iterator[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Moves batches to the device, one ahead of the consumer, on a CUDA stream of its own."""
    if device.type != "cuda":
        for indices, images in batches:
            yield indices, images.to(device)
        return
    stream = torch.cuda.Stream(device)

    def send(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        with torch.cuda.stream(stream):
            return batch[0], batch[1].to(device, non_blocking=True)

    waiting = send(next(batches))
    for batch in batches:
        ready, consumer = waiting, torch.cuda.current_stream(device)
        consumer.wait_stream(stream)
        ready[1].record_stream(consumer)
        waiting = send(batch)
        yield ready
