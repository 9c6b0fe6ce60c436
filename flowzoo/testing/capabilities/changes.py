"""Capability: weights that are changed in any way at all count at the next call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flowzoo import engine
from flowzoo.flow import Flow
from flowzoo.ops import lists
from flowzoo.testing.capabilities.probe import Probe, difference, plain

SOME = 1e-9
"""Relative change that a write has to have for the check to mean anything."""


def weights_changed_count(flow: Flow) -> str:
    """After every kind of write to parameters, a flow in eval mode answers from the new weights."""
    probe, done = Probe(flow), 0
    before = _answers(probe)
    for name, write in WRITES.items():
        if write(flow) is False:
            continue
        before = _compare(name, probe, before)
        done += 1
    return f"{done} ways"


@torch.no_grad()
def _answers(probe: Probe) -> dict[str, Tensor]:
    """The ways to ask a flow: the density, the latent, and an inverse."""
    flow = probe.flow
    generator, like = torch.Generator().manual_seed(1), probe.noise
    z = flow.base.sample(2, flow.latent_dims, generator=generator, device=like.device, dtype=like.dtype)
    z = flow.base.at_temperature(z, 0.5)
    return {
        "log_prob": probe.log_prob(),
        "encode": flow.encode(probe.x, probe.y),
        "inverse": flow.engine.run(flow.bijector, z, probe.context(), inverse=True)[0],
    }


def _compare(name: str, probe: Probe, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Asserts that a flow answers as a plain copy of it; returns its answers."""
    with engine.disabled():
        expected = _answers(probe.of(plain(probe.flow)))
    effect = difference(before["log_prob"], expected["log_prob"])
    assert effect > SOME, f"{name}: the write has no effect ({effect:.0e}), which tests nothing"
    found = _answers(probe)
    answers = {**found, "log_prob with gradients": probe.log_prob()}
    expected["log_prob with gradients"] = expected["log_prob"]
    for what, value in answers.items():
        error = difference(value, expected[what])
        assert error <= SOME, (
            f"{name}: {what} is off by {error:.0e} (relative), where the weights changed it by {effect:.0e}"
        )
    return found


# --- ways to write ------------------------------------------------------------------------------------------------


def _each(write: Callable[[nn.Parameter], object]) -> Callable[[Flow], None]:
    def run(flow: Flow) -> None:
        for parameter in flow.parameters():
            write(parameter)

    return run


def _numpy(parameter: nn.Parameter) -> None:
    if parameter.device.type != "cpu":  # numpy has no view of it
        return _storage(parameter)
    view = parameter.detach().numpy()
    view *= 1.01
    return None


def _storage(parameter: nn.Parameter) -> None:
    view = torch.empty(0, dtype=parameter.dtype, device=parameter.device).set_(parameter.untyped_storage())
    view.mul_(1.01)


def _raw_memory(parameter: nn.Parameter) -> None:
    """Writes as another process does that shares the memory: no tensor knows of it."""
    if parameter.device.type != "cpu":  # the host cannot write there
        return _storage(parameter)
    changed = (parameter.detach() * 1.01).contiguous()
    ctypes.memmove(parameter.data_ptr(), changed.data_ptr(), changed.numel() * changed.element_size())
    return None


def _replaced_twice(parameter: nn.Parameter) -> None:
    for _ in range(2):
        parameter.data = parameter.data * 1.01


def _drawn(flow: Flow) -> bool:
    # Not the square matrices, of which a random one may have no inverse to speak of.
    written = [parameter for parameter in flow.parameters() if parameter.ndim != 2]
    for parameter in written:
        nn.init.normal_(parameter.data, std=0.02)
    return bool(written)


def _foreach(flow: Flow) -> None:
    lists.scale_([p.data for p in flow.parameters()], torch.tensor(1.01))


def _swapped(flow: Flow) -> None:
    for module in flow.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            setattr(module, name, nn.Parameter(parameter.detach() * 1.01))


def _loaded(flow: Flow) -> None:
    flow.load_state_dict({k: v * 1.01 if v.is_floating_point() else v for k, v in flow.state_dict().items()})


def _assigned(flow: Flow) -> None:
    state = {k: v * 1.01 if v.is_floating_point() else v for k, v in flow.state_dict().items()}
    flow.load_state_dict(state, assign=True)


def _optimizer(kind: type[torch.optim.Optimizer], **options: Any) -> Callable[[Flow], None]:
    """An optimizer that is fed with gradients from elsewhere."""

    def run(flow: Flow) -> None:
        optimizer = kind(flow.parameters(), lr=1e-2, **options)  # type: ignore[call-arg]
        for parameter in flow.parameters():
            # Not all the same: a softmax does not see what its logits have in common.
            places = torch.arange(parameter.numel(), device=parameter.device).reshape(parameter.shape)
            parameter.grad = (1 - 2 * (places % 2)).to(parameter)
        optimizer.step()
        optimizer.zero_grad()

    return run


def _attribute(flow: Flow) -> bool:
    found = False
    for module in flow.modules():
        # A layer without this factor has None.
        if isinstance(getattr(module, "log_scale_factor", None), float):
            module.log_scale_factor *= 1.1  # type: ignore[operator, assignment]
            found = True
    return found


def _buffers(flow: Flow) -> bool:
    written = [
        b for name, b in flow.bijector.named_buffers() if name.endswith(("running_mean", "running_var"))
    ]
    for buffer in written:
        buffer.data.mul_(1.1).add_(0.01)
    return bool(written)


def _while_in_train_mode(flow: Flow) -> None:
    flow.train()
    _each(lambda p: p.data.mul_(1.01))(flow)
    flow.eval()


WRITES: Mapping[str, Callable[[Flow], bool | None]] = {
    "p.data.mul_": _each(lambda p: p.data.mul_(1.01)),
    "p.data.copy_": _each(lambda p: p.data.copy_(p.data * 1.01)),
    "numpy view": _each(_numpy),
    "storage view": _each(_storage),
    "raw memory": _each(_raw_memory),
    "p.data = new": _each(lambda p: setattr(p, "data", p.data * 1.01)),
    "p.data = new, twice": _each(_replaced_twice),
    "_foreach on p.data": _foreach,
    "new nn.Parameter": _swapped,
    "load_state_dict": _loaded,
    "load_state_dict(assign=True)": _assigned,
    "fused Adam, external gradients": _optimizer(torch.optim.Adam, fused=True),
    "fused AdamW, external gradients": _optimizer(torch.optim.AdamW, fused=True),
    "fused SGD, external gradients": _optimizer(torch.optim.SGD, fused=True, momentum=0.9),
    "Adam, external gradients": _optimizer(torch.optim.Adam),
    "log_scale_factor": _attribute,
    "running statistics": _buffers,
    "between train() and eval()": _while_in_train_mode,
    # The last: of small weights a percent may be too little to be seen.
    "nn.init on p.data": _drawn,
}
"""The ways to write; one that gives False has nothing to write to."""
