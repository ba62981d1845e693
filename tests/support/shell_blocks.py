"""Runs the commands of a page's shell blocks, long ones in their small form.

`run_line` takes a line as it stands in a page. A `paravt` command runs in this process, on recipes
whose world, batch and turns are a few tokens (`small_recipes`). What needs GPUs, several processes
or another environment has its settings read and checked. Anything else is an error that says what
to add here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import tomllib
from pathlib import Path

from train import cli
from train.config import recipe
from train.lab.study import settings as studies

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
RECIPE_COMMANDS = ("train", "eval", "sft", "demo")
ELSEWHERE = ("eval", "lmms-eval", "sbatch", "vllm", "apt", "dnf")
"""Programs of other environments: verifiers', lmms-eval's, Slurm, a model server, the system's."""
NEEDS_MORE = (
    "_8b",
    "sb3_count",
    "vllm",
    "env.servers",
    "sft_longvila",
    "sft_paravt",
    "--suite",
    "--shard",
)
"""What a command with one of these words needs is not here: GPUs, servers, published data."""
READERS_OWN = ("DATA", "data/", "films", "reason")
"""What `paravt data` reads in pages and is not here: published data, the reader's films."""
SMALL = {
    "env": {"max_turns": 1, "max_crops": 2, "frames_per_crop": 2, "frame_budget": 2},
    "agent": {"max_new_tokens": 8, "answer_tokens": 4, "subagent_tokens": 4},
    "algorithm": {"groups": 1, "group_size": 2},
    "evaluation": {"tasks": 2, "num_envs": 2, "frame_budgets": [2], "resamples": 10},
    "run": {"wandb": "disabled"},
}
SMALL_STAGES = [{"name": "one", "steps": 1, "rollouts": 2, "conversations": 1, "readings": 1}]


def small_recipes(monkeypatch) -> None:
    """Packaged recipes describe a world of one video, tiny batches and short turns."""
    read = recipe.read_settings

    def smaller(path):
        settings = read(path)
        if path.parent == recipe.RECIPES and "base" not in settings and "_8b" not in path.stem:
            for group, values in SMALL.items():
                if group != "algorithm" or "stages" not in settings:
                    settings.setdefault(group, {}).update(values)
            settings["env"].setdefault("tasks_kwargs", {})["videos"] = 1
            if "stages" in settings:
                settings |= {"stages": SMALL_STAGES, "frames_per_video": 2}
        return settings

    monkeypatch.setattr(recipe, "read_settings", smaller)


def lines_of(block: str) -> list[str]:
    """The commands of a block; a backslash joins lines."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def run_line(line: str, url: str, trains: bool = True) -> None:
    """Run a command, or check it.

    Args:
        line: As it stands in the page.
        url: Of a chat server, in place of the addresses that pages name.
        trains: Whether a command that trains or evaluates does so; else its settings are checked.
    """
    words = shlex.split(line, comments=True)
    if not words or words[0] in ELSEWHERE:
        return
    program, rest = words[0], words[1:]
    if program == "make":
        assert rest[0] in TARGETS, line
    elif program == "export":
        os.environ.setdefault(rest[0].partition("=")[0], "x")
    elif program in ("pip", "git", "cd"):
        check_install(rest, line)
    elif program == "python":
        check_python(rest, line)
    elif program == "torchrun":
        run_paravt(rest[rest.index("train") + 1 :], url, line, False)
    elif program == "paravt":
        run_paravt(rest, url, line, trains)
    else:
        raise AssertionError(f"say in tests/support/shell_blocks.py how to check {line!r}")


def check_install(words: list[str], line: str) -> None:
    """The extras that a line installs are the project's."""
    named = [extra for found in re.findall(r"\[([\w,]+)\]", line) for extra in found.split(",")]
    assert set(named) <= set(PROJECT["optional-dependencies"]), line
    for word in words:
        if word.endswith(".txt") or word.startswith("./"):
            assert (ROOT / word).exists(), line


def check_python(words: list[str], line: str) -> None:
    """The file or the module that Python would run is there."""
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None, line
    elif words[0] != "-c":
        assert (ROOT / words[0]).is_file(), line


def run_paravt(words: list[str], url: str, line: str, trains: bool) -> None:
    """Run `paravt`, in its small form."""
    command, rest = words[0], [with_real_places(word, url) for word in words[1:]]
    if command == "study":
        studies.load(rest[0])
        return
    if command in ("serve", "demo", "replay", "view") or "..." in rest:
        assert command in cli.COMMANDS, line
        return
    heavy = any(mark in word for word in rest for mark in NEEDS_MORE)
    if command in RECIPE_COMMANDS and (heavy or not trains):
        rest = [word for word in rest if word != "--print-config"] + ["--print-config"]
    if command == "train":
        rest = [*rest, "--run.steps=1", "--run.eval_every=0"]
    if command == "eval":
        rest = [*rest, "--evaluation.resume=false"]
    if command in ("train", "eval") and "--run.name" not in line and "runs/" not in rest[0]:
        rest = [*rest, f"--run.name=unnamed{len(list(Path('runs').glob('unnamed*')))}"]
    if "atari" in rest or (command == "data" and any(name in line for name in READERS_OWN)):
        return  # needs the emulator, or published data
    if command == "diagnose":
        rest = [rest[0], "--groups", "2"]
    try:
        status = cli.main([command, *rest])
    except SystemExit as stopped:
        status = stopped.code or 0
    assert status == 0, f"{line}: status {status}"


def with_real_places(word: str, url: str) -> str:
    """A word with what stands for the reader's own: a checkpoint's step, a server's address."""
    word = re.sub(r"https?://(localhost|api\.example\.com)[:\d]*/v1", url, word)
    found = re.search(r"(.*checkpoints)/step-\d+(/.*)?", word)
    if found:
        prefix, folder = "", found[1]
        if "=" in folder:
            prefix, _, folder = folder.rpartition("=")
            prefix += "="
        steps = sorted(Path(folder).glob("step-*"))
        if steps:
            return f"{prefix}{steps[-1]}{found[2] or ''}"
    return word


def copy_run(made: Path, names: tuple[str, ...]) -> None:
    """A finished run under the names that pages take for granted."""
    for name in names:
        if not Path("runs", name).exists():
            shutil.copytree(made, Path("runs", name))
