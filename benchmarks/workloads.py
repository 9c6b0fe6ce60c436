"""The workloads: models, batches and the tasks that are timed on them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import flowzoo
from flowzoo import engine
from flowzoo.factory import resolve
from flowzoo.flow import Flow
from flowzoo.nets.conv import ConvStack, FoldedConv2d
from flowzoo.nets.precision import RunsNetwork

Task = Literal[
    "train", "train, bfloat16", "log_prob", "sample", "log_prob, frozen", "log_prob, frozen, gradients held"
]
TASKS: tuple[Task, ...] = ("train", "log_prob", "sample")
BFLOAT16: Task = "train, bfloat16"
"""A training step whose networks run under autocast to bfloat16."""
FROZEN: Task = "log_prob, frozen"
"""``log_prob`` inside ``flow.frozen()``, which flowzoo alone has."""
HELD: Task = "log_prob, frozen, gradients held"
"""The same with gradients of all parameters still there, as in an evaluation between two updates."""

Run = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model and a batch.

    Attributes:
        model: Name of an architecture or a preset.
        config: What is changed in its config.
        batch: Images, or vectors, in a batch.
        memory: What the backward pass keeps.
        device: Where it runs.
        stirred: Standard deviation of the noise that is added to every weight, since most networks begin at zero.
    """

    model: str
    config: dict[str, Any] = field(default_factory=dict)
    batch: int = 32
    memory: Literal["store", "checkpoint", "invertible"] = "store"
    device: str = "cpu"
    stirred: float = 0.0

    @property
    def architecture(self) -> str:
        """The architecture's name."""
        return self.model.partition("-")[0]

    def resolved(self) -> Any:
        """The architecture's config, the preset's fields and all defaults included."""
        return resolve(self.model, self.config)[2]

    def to_json(self) -> dict[str, Any]:
        """The workload as plain data."""
        return asdict(self)


def glow(
    depth: int, hidden: int, size: int = 32, levels: int = 3, edge_bias: bool = True, **others: Any
) -> Workload:
    """A Glow on colour images of this size; ``edge_bias``: its networks see where the padding is."""
    config = {
        "image_shape": (3, size, size),
        "levels": levels,
        "depth": depth,
        "hidden_channels": hidden,
        "edge_bias": edge_bias,
    }
    return Workload(model="glow", config=config, **others)


def build(workload: Workload) -> tuple[Flow, Tensor]:
    """The initialised flow and a batch of random images, or vectors."""
    torch.manual_seed(0)
    flow = flowzoo.create(workload.model, **workload.config).to(workload.device)
    images = batch_of(workload)
    # One image gives data-dependent initialisation no variance to measure.
    flow.initialize(images if workload.batch > 1 else torch.cat((images, images.flip(-1))))
    stir(flow, workload.stirred)
    flow.set_memory(workload.memory)
    return flow, images


def batch_of(workload: Workload) -> Tensor:
    """A batch of random images, uint8, or of vectors of normal numbers."""
    config = workload.resolved()
    if config.image_shape is None:
        return torch.randn(workload.batch, config.dims).to(workload.device)
    shape = (workload.batch, *config.image_shape)
    return torch.randint(0, 256, shape, dtype=torch.uint8).to(workload.device)


@torch.no_grad()
def stir(module: nn.Module, noise: float) -> None:
    """Adds normal noise of this standard deviation to every learned weight."""
    for parameter in module.parameters():
        if parameter.requires_grad and noise:
            parameter.add_(noise * torch.randn_like(parameter))


def flow_task(workload: Workload, task: Task) -> Run:
    """A training step with Adam, one ``log_prob`` or one ``sample`` of the workload's flow.

    ``log_prob`` reads the weights as they are in every call; inside ``frozen`` they are promised not to change.
    """
    flow, images = build(workload)
    if task in ("train", BFLOAT16):
        flow.set_network_dtype(torch.bfloat16 if task == BFLOAT16 else None)
        optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True)

        taken = state(flow.parameters())

        def train() -> dict[str, int]:
            optimizer.zero_grad(set_to_none=True)
            flow.nats_to_bits(flow(images)).mean().backward()
            optimizer.step()
            return taken

        return train
    flow.eval()
    if task == HELD:
        flow.log_prob(images).mean().backward()
    if task in ("log_prob", FROZEN, HELD):
        # A context that nobody holds is collected, and left.
        kept = contextlib.ExitStack()
        if task != "log_prob":
            kept.enter_context(flow.frozen())

        # For as long as the function lives, as an evaluation is frozen over all of its batches.
        @torch.no_grad()
        def log_prob(_: contextlib.ExitStack = kept) -> None:
            flow.log_prob(images)

        return log_prob
    generator = torch.Generator(workload.device).manual_seed(0)
    # The whole batch at a time, as every other subject does it.
    options: dict[str, Any] = {"generator": generator, "batch_size": workload.batch}
    return lambda: void(flow.sample(workload.batch, **options))


def plain_task(workload: Workload, task: Task) -> Run:
    """The same as :func:`flow_task` with the engine off: the bijectors and networks as they are written."""
    run = flow_task(workload, task)

    def plainly() -> object:
        with engine.disabled():
            return run()

    return plainly


def floor_task(workload: Workload, task: Task) -> Run:
    """The coupling networks alone: forward and backward for training, forward for everything else."""
    networks = [(plain(net), args) for net, args in coupling_networks(workload, task)]
    if task not in ("train", BFLOAT16):
        return torch.no_grad()(lambda: void([net(*args) for net, args in networks]))

    taken = state(p for net, args in networks for p in (*net.parameters(), args[0]))
    kind = torch.device(workload.device).type

    def train() -> dict[str, int]:
        for net, args in networks:
            net.zero_grad(set_to_none=True)
            args[0].grad = None
            args[0].requires_grad_()
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=task == BFLOAT16):
            outputs = [net(*args) for net, args in networks]
        torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
        return taken

    return train


def state(parameters: Iterable[Tensor]) -> dict[str, int]:
    """Bytes of the gradients, and of weights, gradients and Adam's two moments together."""
    size = sum(p.numel() * p.element_size() for p in parameters)
    return {"gradient_bytes": size, "state_bytes": 4 * size}


def coupling_networks(workload: Workload, task: Task = "train") -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Every coupling's network with what it is given in one pass over the batch, laid out channels last.

    Sampling dequantizes nothing, so the networks of learned dequantization are not among its own.
    """
    flow, images = build(workload)
    found: list[tuple[nn.Module, tuple[Tensor, ...]]] = []

    def note(net: nn.Module, given: tuple[Tensor | None, ...]) -> None:
        found.append((net, tuple(_laid_out(t) for t in given if t is not None)))

    whole: nn.Module = flow.bijector if task == "sample" else flow
    owned = [getattr(module, "net", None) for module in whole.modules() if isinstance(module, RunsNetwork)]
    nets = [net for net in owned if isinstance(net, nn.Module)]
    hooks = [net.register_forward_pre_hook(note) for net in nets]
    with torch.no_grad():
        flow.log_prob(images)
    for hook in hooks:
        hook.remove()
    return [(copy.deepcopy(net), args) for net, args in found]


def plain(net: nn.Module) -> nn.Module:
    """The same convolutions with nothing folded into them; networks of other kinds stay as they are."""
    if not isinstance(net, ConvStack):
        return net
    layers = [layer for layer in net.layers() if isinstance(layer, FoldedConv2d)]
    if len(layers) != len(net.layers()):
        return net
    weights = [layer.conv.weight for layer in layers]
    bare: nn.Module = _PlainConvNet(weights).to(weights[0].device)
    return bare.to(memory_format=torch.channels_last)


class _PlainConvNet(nn.Module):
    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(w.shape[1], w.shape[0], w.shape[2], padding=w.shape[2] // 2) for w in weights
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None:
            x = torch.cat((x, context), dim=1)
        first, second, last = self.layers
        out: Tensor = last(F.relu(second(F.relu(first(x), inplace=True)), inplace=True))
        return out


def _laid_out(x: Tensor) -> Tensor:
    return x.detach().clone(memory_format=torch.channels_last) if x.ndim == 4 else x.detach().clone()


def void(_: object) -> None:
    """Throws a result away."""
