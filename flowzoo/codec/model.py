"""What a model must offer to be compressed with: itself in integers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flowzoo.codec.mixtures import IntegerMixture
from flowzoo.config import config_to_dict
from flowzoo.errors import InputError
from flowzoo.flow import Flow

Write = Callable[[IntegerMixture, Tensor], None]
Read = Callable[[IntegerMixture], Tensor]


@runtime_checkable
class IntegerModel(Protocol):
    """A distribution of images as a sequence of distributions of integers, each given what came before.

    Everything it computes is integer arithmetic that does not depend on machine, threads or batch size.
    """

    def encode(self, images: Tensor, write: Write) -> None:
        """Writes images, int64 ``(B, C, H, W)`` grey levels, as symbols with their distributions."""

    def decode(self, count: int, read: Read) -> Tensor:
        """Reads as many images, int64 ``(B, C, H, W)``, from symbols that :meth:`encode` wrote."""


@runtime_checkable
class HasIntegerModel(Protocol):
    """A bijector that a codec can use."""

    def integer_model(self, batch_size: int = 16) -> IntegerModel:
        """The bijector, and the base density behind it, in integers."""


def integer_model(flow: Flow, batch_size: int = 16) -> IntegerModel:
    """The integer form of a flow.

    Args:
        flow: The flow.
        batch_size: Images that its networks see at a time; no bit of a file depends on it.

    Raises:
        InputError: It has none.
    """
    if not isinstance(flow.bijector, HasIntegerModel):
        name = flow.architecture or type(flow.bijector).__name__
        raise InputError(
            f"{name} models cannot compress: their networks are float computations, which differ between machines in "
            "the last bits. Use a model of integers, such as one of the architecture 'idf'."
        )
    return flow.bijector.integer_model(batch_size)


def weights_digest(flow: Flow) -> str:
    """SHA-256 (64 hexadecimal digits) of architecture, config and weights, whatever file they came from.

    Of the tensors it takes names in alphabetical order, shapes, and values as little-endian float32.
    """
    digest = hashlib.sha256()
    config = {} if flow.config is None else config_to_dict(flow.config)
    digest.update(json.dumps([flow.architecture, config], sort_keys=True).encode())
    for name, tensor in sorted(flow.state_dict().items()):
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
