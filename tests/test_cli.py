"""The `paravt` command and the project's own files."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from train import cli

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_help_lists_every_command_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom train.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'av', 'jsonargparse') if m in sys.modules])"
    )
    out = python(code).stdout
    for command in ("play", "data", "sft", "train", "eval", "report", "replay", "demo"):
        assert f"\n    {command}" in out
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["train", "sft", "eval", "demo"])
def test_help_of_a_command_with_a_recipe(command, capsys):
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: paravt {command} [RECIPE]" in out
    assert "paragrpo_mini" in out


@pytest.mark.parametrize(
    "words",
    [
        ["train", "vanilla_grpo_mini", "--run.steps", "7", "--print-config"],
        ["train", "--config", "vanilla_grpo_mini", "--print-config", "--run.steps=7"],
        ["train", "--print-config", "--config=vanilla_grpo_mini", "run.steps=7"],
    ],
)
def test_print_config_prints_what_would_run(words, capsys):
    assert cli.main(words) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["run"]["steps"] == 7
    assert settings["run"]["name"] == "vanilla_grpo_mini"
    assert settings["env"]["frame_budget"] == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--run.stepz=3"], "did you mean 'run.steps'"),
        (["train", "paragrpo_mni"], "did you mean 'paragrpo_mini'"),
        (["eval", "--evaluation.policy=orcle"], "did you mean 'oracle'"),
        (["report", "no/such/folder"], "no/such/folder holds no after.json"),
        (["play", "--tasks", "synthetik"], "did you mean 'synthetic'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, message, capsys):
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("paravt: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_bug_of_ours_is_not_hidden(monkeypatch):
    def broken(words):
        """A command."""
        raise ValueError("bug")

    monkeypatch.setitem(cli.COMMANDS, "report", broken)
    with pytest.raises(ValueError, match="bug"):
        cli.main(["report", "x"])


def without(*modules):
    """Code that runs with the named modules missing."""
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in modules)
    return f"import sys\n{blocked}from train.cli import main\n"


def test_training_without_the_train_extra_says_what_to_install():
    done = python(without("torch", "jsonargparse", "yaml") + "sys.exit(main(['train']))")
    assert done.returncode == 2
    assert "pip install 'paravt[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_play_and_data_need_the_core_alone():
    missing = without("torch", "transformers", "jsonargparse", "yaml", "rich", "wandb")
    done = python(missing + "import train.playing, train.data\nsys.exit(main(['data', '--help']))")
    assert done.returncode == 0, done.stderr


def test_the_package_list_is_what_is_on_disk():
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for top in ("envs_registry", "paravt_env", "agents", "train")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_the_console_script_exists():
    assert PROJECT["project"]["scripts"] == {"paravt": "train.cli:main"}


def test_the_constraints_pin_every_direct_dependency_of_make_test():
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    }
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = list(PROJECT["project"]["dependencies"])
    for extra in ("train", "sb3", "human", "dev"):
        wanted += extras[extra]
    names = {item.split("[")[0].split(">")[0].split("=")[0] for item in wanted}
    assert names <= pinned
    assert not [line for line in pinned if "+" in line]
