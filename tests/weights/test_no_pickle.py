"""No code of flowzoo can unpickle a file, or run what it reads."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "read_pickle", "unsafe_load", "UntypedStorage", "_unpickle"}


def pickle_paths(tree: ast.AST) -> list[str]:
    """The names in a module that could unpickle or run what it reads."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.partition(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name == "torch.load" and options.get("weights_only") != "True":
                found.append("torch.load without weights_only=True")
            if name.rpartition(".")[2] == "load" and options.get("allow_pickle", "False") != "False":
                found.append(f"{name} with allow_pickle")
            if name in FORBIDDEN_CALLS:
                found.append(name)
    return found


def test_no_module_can_unpickle_anything() -> None:
    modules = [path for folder in ("flowzoo", "plugins") for path in (ROOT / folder).rglob("*.py")]
    shipped = [path for path in modules if "tests" not in path.relative_to(ROOT).parts]
    assert len(shipped) > 20
    found = {str(path): pickle_paths(ast.parse(path.read_text())) for path in shipped}
    assert {path: what for path, what in found.items() if what} == {}


def test_the_search_finds_what_it_looks_for() -> None:
    text = "import pickle\nfrom marshal import loads\ntorch.load(f)\nnp.load(f, allow_pickle=True)\neval('1')"
    assert len(pickle_paths(ast.parse(text))) == 5
    assert pickle_paths(ast.parse("torch.load(f, weights_only=True)\nnp.load(f, allow_pickle=False)")) == []
