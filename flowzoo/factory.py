"""Names to flows: presets and configs of installed architectures, built untrained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowzoo.api import Architecture, Preset
from flowzoo.config import check_data, parse_config
from flowzoo.devices import find_device
from flowzoo.errors import (
    ConfigError,
    FlowzooError,
    InputError,
    PluginError,
    UnknownArchitecture,
    did_you_mean,
    exhausted,
)
from flowzoo.registry import (
    PluginState,
    builder,
    config_class,
    discover,
    get_architecture,
    get_plugin,
    plugin_names,
)
from flowzoo.registry.isolation import BUILD_SECONDS, ForeignFailure, ends_in, foreign_code

if TYPE_CHECKING:
    import torch

    from flowzoo.flow import Flow

__all__ = ["build_flow", "create", "preset_names", "resolve"]


def create(
    name: str,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **config_overrides: Any,
) -> Flow:
    """Builds an untrained flow from a preset, or from an architecture and its config.

    The flow is in train mode, like any new ``nn.Module``, and its parameters are freshly drawn from
    torch's global generator; :func:`flowzoo.load` is the function that returns trained weights.

    Args:
        name: ``"glow-cifar10"`` (architecture and preset) or ``"glow"`` (then give the whole config).
        device: Where the parameters live. ``"meta"`` allocates nothing: enough for shapes and counts.
        dtype: Of the parameters, float32 by default.
        **config_overrides: Fields of the architecture's config; they replace the preset's.

    Raises:
        UnknownArchitecture: There is no such architecture or preset; the message suggests names.
        PluginError: The plugin that provides it cannot be used.
        ConfigError: A field is unknown, missing, or has a wrong value.
        InputError: ``name`` is no text, or ``dtype`` no floating type of torch.
    """
    if not isinstance(name, str):
        raise InputError(f"The name is a {type(name).__name__}; expected a text such as 'glow-cifar10'.")
    _check_dtype(dtype)
    architecture, _, config = resolve(name, config_overrides)
    flow = build_flow(architecture.name, config, device=device)
    return flow if dtype is None else flow.to(dtype=dtype)


def _check_dtype(dtype: object) -> None:
    import torch

    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"dtype is {dtype!r}; expected None or a floating type such as torch.float64.")


def resolve(name: str, overrides: Mapping[str, Any]) -> tuple[Architecture, Preset | None, Any]:
    """Resolves a name: the architecture, the preset if one is named, and the parsed config.

    Imports no torch. Raises what :func:`create` raises.
    """
    architecture, preset = _find(name)
    values = {**(preset.config if preset else {}), **overrides}
    try:
        config = parse_config(config_class(architecture.name), values, name)
        check_data(config, name)
    except ConfigError as error:
        if preset or overrides:
            raise
        presets = ", ".join(f"{name}-{key}" for key in architecture.presets)
        raise ConfigError(f"{error} Or name a preset: {presets}.") from error
    return architecture, preset, config


def build_flow(architecture_name: str, config: Any, *, device: str | torch.device | None = None) -> Flow:
    """Builds the flow of a parsed config and writes name and config on it.

    Parameters are drawn on the CPU and then moved, so that a seed gives the same flow on every device.

    Raises:
        ConfigError: There are no data of the config's shape and bits.
        PluginError: The architecture's build function fails, or returns something else than a Flow.
    """
    check_data(config, architecture_name)
    import torch

    from flowzoo.flow import Flow
    from flowzoo.weights.skip_init import on_meta

    build = builder(architecture_name)
    target = find_device("cpu" if device is None else device)
    try:
        with (
            ends_in(BUILD_SECONDS),
            foreign_code(),
            on_meta() if target.type == "meta" else torch.device("cpu"),
        ):
            flow = build(config)
    except ForeignFailure as failure:
        if isinstance(failure.error, FlowzooError) or exhausted(failure.error):
            raise failure.error from failure.error.__cause__
        raise _build_failed(architecture_name, config, str(failure)) from failure.error
    if not isinstance(flow, Flow):
        raise _build_failed(architecture_name, config, f"it returned {type(flow).__name__}, not a Flow")
    flow.architecture = architecture_name
    flow.config = config
    return flow.to(target)


def _build_failed(name: str, config: Any, cause: str) -> PluginError:
    plugin = get_plugin(name)
    return PluginError(
        f"Architecture {name!r} ({plugin.distribution} {plugin.version}) cannot build this config: {cause}\n"
        f"  config: {config}\n"
        f"  If the values look right, it is a bug of {plugin.distribution}: tell its authors."
    )


def preset_names() -> list[str]:
    """Every name that :func:`create` takes without a config, sorted: ``["flowpp-cifar10", ...]``."""
    return sorted(
        f"{plugin.name}-{key}"
        for plugin in discover().values()
        if plugin.architecture is not None
        for key in plugin.architecture.presets
    )


def _find(name: str) -> tuple[Architecture, Preset | None]:
    """Splits a name at the longest architecture that it begins with; refuses one that means two things."""
    if name in plugin_names():
        return get_architecture(name), None
    owners = sorted((n for n in plugin_names() if name.startswith(f"{n}-")), key=len, reverse=True)
    usable = [plugin.architecture for n in owners if (plugin := get_plugin(n)).architecture is not None]
    matches = [a for a in usable if name.removeprefix(f"{a.name}-") in a.presets]
    if len(matches) == 1:
        return matches[0], matches[0].presets[name.removeprefix(f"{matches[0].name}-")]
    if matches:
        meanings = " or ".join(f"preset {name.removeprefix(f'{a.name}-')!r} of {a.name!r}" for a in matches)
        raise UnknownArchitecture(
            f"{name!r} could mean {meanings}. Disable the plugin that you do not mean with "
            f"FLOWZOO_DISABLE_PLUGINS={matches[-1].name}, or give create({matches[0].name!r}) a whole config."
        )
    for owner in owners:
        if get_plugin(owner).state is not PluginState.OK:
            raise get_plugin(owner).error()
    raise _unknown(name, usable)


def _unknown(name: str, owners: list[Architecture]) -> UnknownArchitecture:
    if owners:
        presets = [f"{owners[0].name}-{key}" for key in owners[0].presets]
        return UnknownArchitecture(
            f"The architecture {owners[0].name!r} has no preset {name.removeprefix(f'{owners[0].name}-')!r}."
            f"{did_you_mean(name, presets)} It has: {', '.join(presets)}."
        )
    known = [*preset_names(), *plugin_names()]
    return UnknownArchitecture(
        f"No architecture or preset is called {name!r}.{did_you_mean(name, known)} "
        f"`flowzoo list --presets` shows all names."
    )
