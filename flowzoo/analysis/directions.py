"""Attribute directions: the difference of mean latents, kept in a file, added to the latents of other images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from flowzoo.analysis.batches import Advance, decode, encode, require_images, silent
from flowzoo.atomic import write_chunks
from flowzoo.errors import InputError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from flowzoo.flow import Flow

__all__ = ["Direction", "find_direction", "load_direction", "manipulate", "model_hash", "save_direction"]

_FORMAT = "flowzoo-direction-1"


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction in the latent space of one model.

    Attributes:
        vector: float32 ``(D,)``: mean latent of the images with the attribute minus that of those without.
        model: :func:`model_hash` of the flow that it belongs to.
        name: The attribute, in words.
    """

    vector: Tensor
    model: str
    name: str = ""


def model_hash(flow: Flow) -> str:
    """SHA-256 (64 hexadecimal digits) of a flow's architecture and of the name and bytes of every weight."""
    digest = hashlib.sha256(repr((flow.architecture, flow.data_shape)).encode())
    for name, tensor in sorted(flow.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"\n{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find_direction(
    flow: Flow,
    present: Tensor,
    absent: Tensor,
    y: int | None = None,
    *,
    name: str = "",
    batch_size: int = 64,
    advance: Advance = silent,
) -> Direction:
    """Finds the direction of an attribute (Glow, section 5: "Semantic manipulation").

    Args:
        flow: A flow over images.
        present: Images ``uint8 (N, C, H, W)`` that have the attribute.
        absent: Images ``uint8 (M, C, H, W)`` that lack it.
        y: One label for all, of a conditional flow.
        name: The attribute, in words.
        batch_size: Images encoded at a time.
        advance: Called after each batch.

    Raises:
        InputError: The images do not fit, or all latents are the same.
    """
    require_images(flow, "an attribute direction")
    means = []
    for images in (present, absent):
        z = encode(flow, images, y, batch_size=batch_size, advance=advance)
        means.append(z.double().mean(dim=0))
    vector = (means[0] - means[1]).float().cpu()
    if not bool(vector.isfinite().all()) or not bool(vector.any()):
        raise InputError("the two sets have the same mean latent, or one that is not finite; give others.")
    return Direction(vector, model_hash(flow), name)


def manipulate(
    flow: Flow,
    x: Tensor,
    direction: Direction,
    strengths: Sequence[float],
    y: int | None = None,
    *,
    batch_size: int = 64,
    advance: Advance = silent,
) -> Tensor:
    """Images moved along a direction: decode(encode(x) + strength * direction).

    Args:
        flow: The flow that the direction belongs to.
        x: Images ``uint8 (B, C, H, W)``.
        direction: The direction.
        strengths: How far; 1 is the way from the mean image without the attribute to the mean image with it.
        y: One label for all, of a conditional flow.
        batch_size: Images computed at a time.
        advance: Called after each batch.

    Returns:
        ``uint8 (B, S, C, H, W)``, S the number of strengths; strength 0 gives the images themselves.

    Raises:
        InputError: The direction is another model's, or an image is moved to where the model has none.
    """
    require_images(flow, "a manipulation")
    if model_hash(flow) != direction.model:
        raise InputError(
            f"the direction {direction.name or direction.model[:12]!r} was found in another model (or other weights); "
            "expected one of this model. Find it anew from two sets of images."
        )
    z = encode(flow, x, y, batch_size=batch_size, advance=advance)
    step = torch.tensor(list(strengths), dtype=z.dtype, device=z.device).reshape(1, -1, 1)
    moved = z[:, None] + step * direction.vector.to(z)
    try:
        images = decode(flow, moved.flatten(0, 1), y, batch_size=batch_size, advance=advance)
    except InputError as error:
        raise InputError(
            f"moved by {', '.join(f'{s:g}' for s in strengths)}, some images are where the model has none: their "
            "inverse is NaN or infinite. Use smaller strengths, or find the direction from more images."
        ) from error
    return images.reshape(len(x), -1, *images.shape[1:])


def save_direction(direction: Direction, path: str | Path) -> None:
    """Writes a direction as safetensors, with the hash of its model, atomically.

    Raises:
        CheckpointError: The file cannot be written.
    """
    from safetensors.torch import save

    facts = {"format": _FORMAT, "model": direction.model, "name": direction.name}
    write_chunks(Path(path), [save({"direction": direction.vector.contiguous()}, metadata=facts)])


def load_direction(path: str | Path) -> Direction:
    """Reads a direction.

    Raises:
        InputError: There is no such file.
        IntegrityError: It holds no direction.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise InputError(f"{path} is no file; expected a direction that `flowzoo manipulate --save` wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            names = list(file.keys())
            vector = file.get_tensor("direction") if names == ["direction"] else None
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} is no safetensors file: {' '.join(str(error).split())}.") from error
    if facts.get("format") != _FORMAT or vector is None or vector.ndim != 1 or vector.dtype != torch.float32:
        raise IntegrityError(
            f"{path} holds no direction; expected one that `flowzoo manipulate --save` wrote."
        )
    return Direction(vector, facts.get("model", ""), facts.get("name", ""))
