"""Every room in its place: data moves forward, and no room imports a later one.

The plan of the house is in `support/rooms.py`; a new file or room gets its floor there.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support.imports import SourceTree, imports
from support.rooms import (
    DOORS,
    FLOORS,
    HOUSE,
    RULES,
    TORCH_ALLOWED,
    circles,
    misplaced,
    needlessly_late,
    of_the_lab,
    through_a_door,
    with_torch,
    wrong_way,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def house() -> SourceTree:
    return SourceTree.read(ROOT, tuple(HOUSE), DOORS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_as_planned(house, rule):
    said = rule(house)
    assert not said, f"{len(said)}:\n" + "\n".join(said)


def lines(rule, texts: dict[str, str]) -> list[str]:
    """What a rule says of some files: the place and the rest up to the first colon."""
    return [one.split(": ")[0] for one in rule(SourceTree(texts, DOORS))]


FORMS = {
    "import train.loop.trainer": "loaded",
    "from train.loop import trainer": "loaded",
    "from train.loop.trainer import Trainer": "loaded",
    "from ..loop import trainer": "loaded",
    "from ..loop.trainer import Trainer as T": "loaded",
    "try:\n    import train.loop.trainer\nexcept ImportError:\n    pass": "loaded",
    "class A:\n    import train.loop.trainer": "loaded",
    "def f():\n    from train.loop.trainer import Trainer": "called",
    "def f():\n    return importlib.import_module('train.loop.trainer')": "called",
    "f = lambda: __import__('train.loop.trainer')": "called",
    "if TYPE_CHECKING:\n    from train.loop import trainer": "typed",
    "if typing.TYPE_CHECKING:\n    import train.loop.trainer": "typed",
    "MADE_BY = {'ours': 'train.loop.trainer:Trainer'}": "named",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_import_is_seen(form):
    files = {"train/sft/sft.py": form, "train/loop/__init__.py": "", "train/loop/trainer.py": ""}
    arrows = [a for a in SourceTree(files).arrows if a.target.startswith("train")]
    (line,) = (n for n, text in enumerate(form.splitlines(), 1) if "loop" in text)
    assert [(a.line, a.target, a.when) for a in arrows] == [
        (line, "train.loop.trainer", FORMS[form])
    ]
    (said,) = lines(wrong_way, files)
    verb = "names" if FORMS[form] == "named" else "imports"
    assert said == f"train/sft/sft.py:{line} {verb} train.loop.trainer"


@pytest.mark.parametrize(
    ("path", "text", "wrong"),
    [
        ("agents/base.py", "import agents.config", False),
        ("agents/base.py", "import agents.chat.client", True),
        ("agents/chat/agent.py", "import agents.model.vlm", True),
        ("agents/vllm/agent.py", "import agents.model.vlm", False),
        ("agents/vllm/agent.py", "import agents.vllm.engine", False),
        ("agents/scripted.py", "import train.common.errors", True),
        ("paravt_env/tasksets/rows.py", "import paravt_env.show.render", True),
        ("paravt_env/tasksets/rows.py", "import paravt_env.task", False),
        ("paravt_env/task.py", "import agents.base", True),
        ("envs_registry/__init__.py", "import paravt_env.env", True),
        ("envs_registry/__init__.py", "ENTRY = 'paravt_env.env:LongVideoEnv'", False),
        ("train/loop/launch.py", "import agents.base, paravt_env.env, envs_registry", False),
        ("agents/paragrpo.py", "if __name__ == '__main__':\n    import train.cli", False),
        ("agents/scripted.py", "if __name__ == '__main__':\n    import train.cli", True),
    ],
)
def test_rooms_look_down(path, text, wrong):
    assert bool(lines(wrong_way, {path: text})) == wrong


def test_a_circle_is_found_through_functions_types_and_packages():
    files = {
        "train/sft/__init__.py": "from train.sft.sft import run",
        "train/sft/sft.py": "import train.common.a",
        "train/common/a.py": "def f():\n    import train.common.b",
        "train/common/b.py": "if TYPE_CHECKING:\n    from train.common.c import C",
        "train/common/c.py": "import train.common.d, train.common.a",
        "train/common/d.py": "import train.sft.traces",
        "train/sft/traces.py": "",
    }
    (said,) = circles(SourceTree(files))
    assert said == (
        "a circle of 6 files, the shortest: train/common/a.py:2 -> train/common/b.py:2 -> "
        "train/common/c.py:1 -> train/common/a.py"
    )
    assert circles(SourceTree(files | {"train/common/c.py": ""})) == []
    assert circles(SourceTree({"agents/base.py": "from agents.base import Agent"}))


def test_an_import_waits_in_a_function_only_for_what_is_heavy():
    def late(inner: str, top: str = "") -> bool:
        files = {
            "train/config/run.py": f"{top}\ndef f():\n    import {inner}",
            "train/config/env.py": "import numpy, train.common.light",
            "train/common/light.py": "def f():\n    import torch",
            "train/common/heavy.py": "from torch import nn",
            "train/common/above.py": "import train.common.heavy",
        }
        return bool(needlessly_late(SourceTree(files)))

    assert late("train.config.env") and late("train.common.light")
    assert not late("train.common.heavy") and not late("train.common.above")
    assert late("train.common.above", "import torch"), "torch is there already"
    assert late("train.common.heavy", "import train.common.above"), "on the file's own path"
    assert not late("train.common.heavy", "if TYPE_CHECKING:\n    import torch")
    assert not late("torch") and not late("json"), "others' modules break no circle of ours"


def test_files_need_a_room_and_rooms_a_file():
    rooms = {
        room.replace(".", "/") + ".py": "" for room in FLOORS if not room.endswith("__init__")
    } | {f"{package}/__init__.py": "" for package in HOUSE}
    assert lines(misplaced, rooms) == []
    assert lines(misplaced, rooms | {"train/attic/old.py": ""}) == [
        "train/attic/old.py is in no known room"
    ]
    empty = {path: text for path, text in rooms.items() if path != "train/lab.py"}
    assert lines(misplaced, empty) == ["HOUSE names train.lab, where no file is"]
    assert lines(misplaced, rooms | {"agents/base.py": "import paravt_env.gone.away"}) == [
        "agents/base.py:1 imports paravt_env.gone.away, which is no file of ours"
    ]


def test_the_lab_the_door_and_torch_are_kept_apart():
    inside = {"train/lab/plan/plan.py": "", "agents/paragrpo.py": ""}
    asks = "def f():\n    import train.lab.plan.plan, agents.paragrpo"
    for path, wrong in (("train/commands/lab.py", False), ("train/cli.py", True)):
        assert bool(of_the_lab(SourceTree(inside | {path: asks}))) == wrong
        assert lines(through_a_door, inside | {path: asks}) == [
            f"{path}:2 imports agents.paragrpo, which is a door"
        ]
    torch = "def f():\n    import torch.nn"
    assert lines(with_torch, {"paravt_env/env.py": torch}) == [
        "paravt_env/env.py:2 imports torch.nn"
    ]
    assert lines(with_torch, {"agents/base.py": torch, next(iter(TORCH_ALLOWED)): torch}) == []


def test_no_test_module_imports_another_one():
    files = sorted((ROOT / "tests").rglob("*.py"))
    modules = {path.stem for path in files if path.parent.name != "support"}
    said = [
        f"{path.relative_to(ROOT)}:{line} imports {name}: move what both need to tests/support"
        for path in files
        for line, name, _, when in imports(ast.parse(path.read_text(encoding="utf-8")), "")
        if when != "named" and name.split(".")[0] in modules
    ]
    assert len(modules) > 50 and not said, "\n".join(said)


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
