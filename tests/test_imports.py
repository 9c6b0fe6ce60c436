"""What imports what: the door stays light, and every layer knows only those below it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "flowzoo").rglob("*.py"))
PLUGINS = {path.name: path for path in sorted((ROOT / "plugins").glob("*/flowzoo_*"))}
HEAVY = ("torch", "torchvision", "numpy", "huggingface_hub", "safetensors", "PIL", "tqdm", "matplotlib")

LIGHT = [
    "import flowzoo",
    "import flowzoo; flowzoo.list_models(); flowzoo.list_architectures(); dir(flowzoo)",
    "from flowzoo import api, config, errors, registry, manifest, factory",
    "from flowzoo.weights import hub, load",
    "from flowzoo.training import recipe",
    "main(['--help'])",
    "main(['--version'])",
    "main(['list'])",
    "main(['list', '--presets'])",
    "main(['list', '--architectures', '--json'])",
    "main(['list', '--references'])",
    "main(['list', '--references', '--json'])",
    "main(['info', 'glow-cifar10'])",
    "main(['info', 'glow'])",
    "main(['info', 'glow', '--json'])",
    "main(['new-plugin', 'no-such-plugin-yet', '--dir', sys.argv[1]])",
    "main(['plugins'])",
    "main(['plugins', '--help'])",
    "main(['manifest', 'schema'])",
]


@pytest.mark.parametrize("code", LIGHT)
def test_the_door_is_light(code: str, tmp_path: Path) -> None:
    program = f"""
import sys
def check():
    found = [name for name in {HEAVY!r} if name in sys.modules]
    assert not found, found
try:
    if {code!r}.startswith("main"):
        from flowzoo.cli.main import main
    {code}
except SystemExit as end:
    assert not end.code, end.code
check()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_listing_models_imports_only_what_it_shows() -> None:
    """Each of these takes a tenth of the time of ``import click`` or more; together they took twice that time."""
    slow = {
        "difflib", "email", "hashlib", "importlib.metadata", "importlib.resources", "pathlib", "socket", "urllib.parse",
        "zipfile", "flowzoo.config", "flowzoo.manifest.schema", "flowzoo.factory", "flowzoo.weights.hub",
        "flowzoo.manifest.read",
        "flowzoo.manifest.typed_json", *(f"{name}.config" for name in PLUGINS),
    }  # fmt: skip
    for arguments in (["list"], ["list", "--json"], ["list", "--all"]):
        # Whatever click needs, or a .pth file of this environment has imported, is not the list's.
        program = f"""
import sys
import click
before = set(sys.modules)
from flowzoo.cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
found = {slow!r} & set(sys.modules) - before
assert not found, found
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "glow-cifar10" in done.stdout


def test_a_plugins_metadata_imports_no_torch() -> None:
    modules = [f"{name}.{module}" for name in PLUGINS for module in ("plugin", "config")]
    program = f"import sys, {', '.join(modules)}\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_facade_knows_its_names() -> None:
    import flowzoo

    assert set(flowzoo.__all__) <= set(dir(flowzoo))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = flowzoo.nonsense
    for name in flowzoo.__all__:
        assert getattr(flowzoo, name) is not None


# --- layers ---------------------------------------------------------------------------------------------


def imports(path: Path, *, everywhere: bool) -> Iterator[str]:
    """Absolute names of the modules that a file imports: when it is imported itself, or anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree) if everywhere else _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            # ``from flowzoo import registry`` imports flowzoo.registry.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run on import: not the bodies of functions, not what only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _executed(child)


def belongs(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offences(paths: list[Path], *forbidden: str, everywhere: bool) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(path, everywhere=everywhere)
        if belongs(name, *forbidden)
    ]


def part(*names: str) -> list[Path]:
    """The files of modules and packages of the core, such as ``weights.hub``."""
    found = [
        path
        for path in CORE
        if belongs(".".join(path.relative_to(ROOT / "flowzoo").with_suffix("").parts), *names)
    ]
    assert found, f"no such part: {names}"
    return found


def test_torch_free_parts_import_no_torch_at_module_level() -> None:
    free = part(
        "__init__", "api", "cli", "config", "errors", "factory", "manifest", "registry", "training.recipe",
        "weights.__init__", "weights.external", "weights.hub", "weights.load", "weights.resolve",
    )  # fmt: skip
    assert offences(free, *HEAVY, everywhere=False) == []


def test_the_mathematics_knows_no_plugins_data_or_hub() -> None:
    mathematics = part("bijectors", "nets", "densities")
    above = [
        f"flowzoo.{name}"
        for name in (
            "registry", "factory", "manifest", "weights", "data", "training", "evaluation", "analysis", "testing",
            "cli", "publishing", "flow", "api", "engine",
        )
    ]  # fmt: skip
    assert offences(mathematics, *above, "huggingface_hub", *PLUGINS, everywhere=True) == []


def test_nothing_in_the_core_knows_an_architecture() -> None:
    assert offences(CORE, *PLUGINS, everywhere=True) == []


def test_the_api_depends_on_nothing() -> None:
    assert offences(part("api", "errors"), "flowzoo", everywhere=True) == []


def test_nothing_below_the_command_line_uses_it() -> None:
    below = [path for path in CORE if "cli" not in path.parts and path.name != "__main__.py"]
    assert offences(below, "flowzoo.cli", "click", everywhere=True) == []


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugins_use_public_names_only_and_never_each_other(plugin: str) -> None:
    files = sorted(PLUGINS[plugin].rglob("*.py"))
    others = [name for name in PLUGINS if name != plugin]
    assert offences(files, *others, everywhere=True) == []
    private = [
        f"{path.name} imports {name}"
        for path in files
        for name in imports(path, everywhere=True)
        if belongs(name, "flowzoo") and any(step.startswith("_") for step in name.split("."))
    ]
    assert private == []
    assert (
        offences(
            files,
            "flowzoo.cli",
            "flowzoo.registry",
            "flowzoo.manifest",
            "flowzoo.weights.hub",
            everywhere=True,
        )
        == []
    )


def test_no_file_is_longer_than_400_lines() -> None:
    files = [*CORE, *(ROOT / "plugins").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text("utf-8").splitlines())) > 400}
    assert long == {}


def names_of_torch(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a file looks up in torch, or imports from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if belongs(alias.name, "torch"))
        elif isinstance(node, ast.ImportFrom) and belongs(node.module or "", "torch"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            # Not an attribute of what a call returns.
            if re.fullmatch(r"(torch|nn|F)(\.\w+)+", name):
                yield name


def private_names_of_torch(tree: ast.AST) -> set[str]:
    return {n for n in names_of_torch(tree) if any(re.match(r"_[^_]", step) for step in n.split("."))}


def test_private_names_of_torch_are_used_in_the_engine_and_its_operations_alone() -> None:
    """They may go with any release; there each is behind a check, with the plain way beside it."""
    assert private_names_of_torch(ast.parse("from torch._dynamo import a\nnn.modules._x.y\ntorch.nn.y")) == {
        "torch._dynamo.a",
        "nn.modules._x.y",
        "nn.modules._x",
    }
    plugins = [path for package in PLUGINS.values() for path in package.rglob("*.py")]
    for path in [*CORE, *plugins]:
        if path.parts[len(ROOT.parts) + 1] not in ("ops", "engine"):
            found = private_names_of_torch(ast.parse(path.read_text("utf-8")))
            assert not found, f"{path.relative_to(ROOT)}: {found}"
