"""The direction of the imports: paravt_env <- agents <- train, and no torch below agents."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("envs_registry", "paravt_env", "agents", "train")
FORBIDDEN = {
    "envs_registry": {"paravt_env", "agents", "train", "torch", "transformers"},
    "paravt_env": {"agents", "train", "torch", "transformers"},
    "agents": {"train"},
    "train": set(),
}
OPTIONAL = {"paravt_env/video/readers/torchcodec.py": {"torch"}}
"""A back end that is an extra of its own: its decoder hands out torch's tensors."""


def imported(tree: ast.AST) -> set[str]:
    """Top-level packages that the statements of a tree import, at any depth."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names |= {str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    return names


def without_main(tree: ast.Module) -> ast.Module:
    """A module without its `if __name__ == "__main__"` block."""
    main = "__name__ == '__main__'"
    body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == main)]
    return ast.Module(body=body, type_ignores=[])


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_a_later_one(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.relative_to(ROOT).as_posix() == "agents/paragrpo.py":
            tree = without_main(tree)
        allowed = OPTIONAL.get(path.relative_to(ROOT).as_posix(), set())
        wrong = imported(tree) & FORBIDDEN[room] - allowed
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_walk_sees_every_form_of_import():
    tree = ast.parse(
        "import a.b\ndef f():\n    from c.d import e\n    importlib.import_module('g.h')\n"
        "from . import near\nif __name__ == '__main__':\n    import train.cli\n"
    )
    assert imported(tree) == {"a", "c", "g", "train"}
    assert imported(without_main(tree)) == {"a", "c", "g"}


def run(code: str) -> None:
    blocked = "import sys\nfor name in ('torch', 'transformers'): sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_environment_works_where_torch_is_not_installed():
    run(
        "import gymnasium as gym, paravt_env, paravt_env.env, paravt_env.wrappers\n"
        "assert 'ParaVT-LongVideo-v0' in gym.registry\n"
        "assert 'agents' not in sys.modules and 'train' not in sys.modules"
    )


def test_the_registry_loads_no_simulation():
    run("import envs_registry\nassert not any(n.startswith('paravt_env') for n in sys.modules)")
