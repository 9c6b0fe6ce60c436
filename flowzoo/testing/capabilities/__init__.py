"""Capabilities that a user of plain PyTorch expects of any module, each checked on a small flow.

A check takes a flow in float64 and eval mode, whose parameters are random, and may change it in any way. It returns a
detail and raises an ``AssertionError`` with numbers where a result is wrong. References are finite differences, or
the same model computed plainly (:func:`flowzoo.engine.disabled`) with stored activations.

```python
from flowzoo.testing.capabilities import CAPABILITIES, try_capability

print(try_capability("glow", "gradients from several threads", engine=True))
```
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import NamedTuple

from flowzoo.flow import Flow
from flowzoo.testing.capabilities import (
    changes,
    compilation,
    derivatives,
    memory,
    modules,
    precision,
    surroundings,
    transforms,
    weights,
)
from flowzoo.testing.capabilities.probe import one_line
from flowzoo.testing.subject import Subject

__all__ = ["CAPABILITIES", "Capability", "Outcome", "check_capability", "try_capability"]


class Capability(NamedTuple):
    """Something that a user of plain PyTorch expects.

    Attributes:
        check: Raises what is wrong with a flow, or returns a detail.
        slow: Whether it takes more than a few seconds, as compilers and other processes do.
    """

    check: Callable[[Flow], str]
    slow: bool = False


CAPABILITIES: Mapping[str, Capability] = {
    "gradients are finite differences": Capability(derivatives.finite_differences),
    "memory modes agree": Capability(transforms.memory_modes_agree),
    "gradcheck": Capability(derivatives.checked_gradients),
    "gradgradcheck": Capability(derivatives.checked_second_gradients),
    "Hessian-vector products": Capability(derivatives.hessian_vector_products),
    "gradient penalty": Capability(derivatives.gradient_penalty),
    "forward mode (make_dual)": Capability(derivatives.forward_mode),
    "gradients of the inverse": Capability(derivatives.inverse_gradients),
    "func.grad": Capability(transforms.func_grad),
    "func.vjp": Capability(transforms.func_vjp),
    "func.jvp": Capability(transforms.func_jvp),
    "func.jacrev, jacfwd": Capability(transforms.func_jacobians),
    "func.hessian": Capability(transforms.func_hessian),
    "func.vmap": Capability(transforms.func_vmap),
    "per-sample gradients": Capability(transforms.per_sample_gradients),
    "ensemble (stack_module_state)": Capability(transforms.ensemble),
    "functional_call, weights that are no leaves": Capability(transforms.other_weights),
    "autocast log_prob": Capability(precision.autocast_log_prob),
    "autocast round trip": Capability(precision.autocast_round_trip),
    "autocast training": Capability(precision.autocast_training),
    "autocast initialize": Capability(precision.autocast_initialize),
    "set_network_dtype": Capability(precision.network_dtype),
    "float32": Capability(precision.other_dtype),
    "half()": Capability(precision.half),
    "bfloat16()": Capability(precision.bfloat16),
    "safetensors save_file": Capability(weights.saved_as_safetensors),
    "parameters_to_vector": Capability(weights.flattened),
    "LBFGS": Capability(weights.lbfgs),
    "Adam": Capability(weights.trained_by_adam),
    "prune": Capability(weights.pruned),
    "weight_norm": Capability(weights.weight_norm),
    "weight_norm, legacy": Capability(weights.legacy_weight_norm),
    "spectral_norm": Capability(weights.spectral_norm),
    "spectral_norm, legacy": Capability(weights.legacy_spectral_norm),
    "weights changed count": Capability(changes.weights_changed_count),
    "weights changed before backward raise": Capability(memory.changed_before_backward),
    "parameter hooks run once": Capability(memory.parameter_hooks_once),
    "gradients from several threads": Capability(memory.gradients_from_threads),
    "deepcopy": Capability(modules.copied),
    "DataParallel replicas": Capability(modules.data_parallel_replicas),
    "hooks of leaf modules": Capability(modules.leaf_hooks),
    "hooks replace outputs": Capability(modules.leaf_hooks_replace),
    "inference_mode": Capability(modules.inference_mode),
    "empty batch": Capability(modules.empty_batch),
    "averaged weights (AveragedModel)": Capability(surroundings.averaged),
    "set_default_device": Capability(surroundings.default_device),
    "DDP, find_unused_parameters": Capability(surroundings.data_parallel),
    "FSDP2 (fully_shard)": Capability(surroundings.fully_sharded),
    "fork": Capability(surroundings.forked),
    "share_memory and spawn": Capability(modules.shared_with_a_process, slow=True),
    "jit.trace": Capability(compilation.traced, slow=True),
    "torch.export": Capability(compilation.exported, slow=True),
    "torch.export, dynamic batch": Capability(compilation.exported_for_any_batch, slow=True),
    "torch.compile (aot_eager)": Capability(compilation.traced_by_dynamo, slow=True),
    "torch.compile": Capability(compilation.compiled, slow=True),
    "torch.compile, training": Capability(compilation.compiled_training, slow=True),
}
"""All capabilities by name."""


class Outcome(NamedTuple):
    """Whether an architecture has a capability."""

    capability: str
    passed: bool
    detail: str


def check_capability(architecture: str, capability: str, *, engine: bool) -> str:
    """Checks one capability of an architecture's tiny model.

    Args:
        architecture: Its name.
        capability: A key of :data:`CAPABILITIES`.
        engine: Whether the engine is on.

    Returns:
        The check's detail.

    Raises:
        AssertionError: It is wrong; any other error means that something raised where a plain module works.
    """
    from flowzoo.engine import disabled

    flow = Subject(architecture).build(seed=1)
    with nullcontext() if engine else disabled():
        return CAPABILITIES[capability].check(flow)


def try_capability(architecture: str, capability: str, *, engine: bool) -> Outcome:
    """Like :func:`check_capability`, with errors as an outcome."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Outcome(capability, True, check_capability(architecture, capability, engine=engine))
    except Exception as error:  # noqa: BLE001 - whatever is raised is the outcome
        return Outcome(capability, False, one_line(error))
