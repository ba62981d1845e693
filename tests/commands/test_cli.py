"""The `paravt` command and the project's own files."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import setuptools
import yaml

from agents.base import AgentError
from agents.vllm.engine import EngineError
from train import cli
from train.learner.staleness import StalenessError
from train.workers.weight_sync import SyncError

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )


def runs(monkeypatch, command, run):
    """Let a command run something else."""
    monkeypatch.setitem(cli.COMMANDS, command, cli.Command("A command.", run))


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


def test_what_needs_no_model_loads_no_torch(tmp_path):
    """Torch and transformers take half a minute on a cold machine; a mistake is told at once."""
    lines = [
        *([command, "--help"] for command in cli.COMMANDS),
        *([command, "no_such"] for command in ("train", "sft", "eval", "demo", "report")),
        *([command, "--run.stepz=3"] for command in ("train", "sft", "eval", "demo")),
        *([command, "--print-config"] for command in ("train", "sft", "eval", "demo")),
        *([command, "--no-such-flag"] for command in ("play", "data", "study", "diagnose", "plan")),
        *([command, "--env.reward.weights.tool_gain=x"] for command in ("train", "eval", "demo")),
        *([command, "--env.reward.weights.tool_gian=0"] for command in ("train", "eval", "demo")),
        ["train", "--env.reward.judge.url=x"],
        ["train", "paragrpo_mini", "--env.reward.weights.tool_gain=0", "--print-config"],
        ["eval", "--policy", "openai", "--print-config"],
        ["plan", "--recipe", "no_such"],
        ["train", "paragrpo_mini", "--print-config"],
        ["eval", "--policy", "orcle"],
        ["study", "no_such"],
        ["merge", "no_such"],
        ["compare", "no_such", "no_such"],
        ["replay", "no_such"],
        ["data", "list", "no_such"],
        ["play", "--agent", "orcle", "--videos", "1"],
        ["plan", "--frames", "64"],
    ]
    code = (
        "import json, sys\nfrom train.cli import main\nfound = {}\n"
        f"for words in {lines!r}:\n"
        "    try: status = main(words)\n"
        "    except SystemExit as stopped: status = stopped.code\n"
        "    heavy = [name for name in ('torch', 'transformers') if name in sys.modules]\n"
        "    found[' '.join(words)] = [status, heavy]\n"
        f"json.dump(found, open({str(tmp_path / 'found.json')!r}, 'w'))"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == len(lines)
    good = ("--help", "--print-config", "plan --frames 64")
    assert found == {line: [0 if line.endswith(good) else 2, []] for line in found}


@pytest.mark.parametrize("command", ["train", "sft", "eval", "demo"])
def test_help_of_a_command_with_a_recipe(command, capsys):
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: paravt {command} [RECIPE]" in out
    own = {"train": "paragrpo_8b", "sft": "sft_mini", "eval": "paravt7", "demo": "demo"}[command]
    (line,) = [line for line in out.splitlines() if line.startswith(f"  {own} ")]
    assert line.split(maxsplit=1)[1][0].isupper() or command == "demo"
    assert ("  sft_mini " in out) == (command == "sft")
    assert ("  paragrpo_mini " in out) == (command in ("train", "eval"))


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
    ("command", "group"), [("train", "lora"), ("sft", "mini"), ("eval", "chat"), ("demo", "run")]
)
def test_every_recipe_command_prints_its_settings(command, group, capsys):
    assert cli.main([command, "--print-config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert group in {**settings, **settings["evaluation"]}


@pytest.mark.parametrize("kind", [AgentError, EngineError, SyncError, StalenessError])
def test_an_engine_that_fails_is_one_line_and_status_2(kind, monkeypatch, capsys):
    def fail(parser, words):
        raise kind("the server at there:1 is gone")

    runs(monkeypatch, "eval", fail)
    assert cli.main(["eval"]) == 2
    assert capsys.readouterr().err == "paravt: error: the server at there:1 is gone\n"


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    def fail(parser, words):
        raise RuntimeError("a sample was lost")

    runs(monkeypatch, "eval", fail)
    with pytest.raises(RuntimeError, match="a sample was lost"):
        cli.main(["eval"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--run.stepz=3"], "did you mean 'run.steps'"),
        (["train", "paragrpo_mni"], "did you mean 'paragrpo_mini'"),
        (["train", "--env.reward.weights.tool_gain=x"], "the weight of tool_gain must be a number"),
        (["eval", "--env.reward.weights.tool_gian=0"], "did you mean 'tool_gain'"),
        (["train", "--env.reward.judge.url=x"], "env.reward: judge needs model"),
        (["eval", "--evaluation.policy=orcle"], "did you mean 'oracle'"),
        (["report", "no/such/folder"], "no/such/folder holds no after.json"),
        (["play", "--tasks", "synthetik"], "did you mean 'synthetic'"),
        (["eval", "--evaluation.policy=random", "--env.backend=later"], "not one of auto, pyav"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, message, capsys):
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("paravt: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["play", "--episodes", "0"],
        ["play", "--seed", "-1"],
        ["play", "--frame-budget", "-1"],
        ["data", "make", "--videos", "0"],
        ["data", "stats", "--frame-budgets", "4", "-4"],
        ["data", "list", "--limit", "-1"],
        ["report", "runs/x", "--examples", "-1"],
        ["study", "paradox", "--jobs", "0"],
        ["study", "paradox", "--seeds", "x"],
        ["replay", "recording", "--episode", "1.5"],
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_runs(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert "is not a whole number of at least" in capsys.readouterr().err


def test_more_frames_than_an_observation_holds_are_refused(clip, tmp_path, capsys):
    shutil.copy(clip, tmp_path / "v.mp4")
    row = {"id": "a", "video": "v.mp4", "question": "?", "kind": "open", "answer": "x"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row), encoding="utf-8")
    words = ["play", "--tasks", str(tmp_path / "t.jsonl"), "--frame-budget"]
    assert cli.main([*words, "81"]) == 2
    assert capsys.readouterr().err == "paravt: error: --frame-budget 81: at most 80\n"
    assert cli.main([*words, "4"]) == 0


@pytest.mark.parametrize("content", ["no JSON", "{}", "[1]", '{"rows": [{}]}', '{"rows": 3}'])
def test_a_file_that_is_no_report_is_one_line(content, tmp_path, capsys):
    (tmp_path / "after.json").write_text(content, encoding="utf-8")
    for words in (["report", str(tmp_path)], ["compare", str(tmp_path), str(tmp_path)]):
        assert cli.main(words) == 2
        assert "after.json is no report of an evaluation" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "study"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe", "is not YAML"), (b"a: [", "is not YAML"), (b"- 1", "holds list, not a mapping")],
)
def test_a_file_that_is_no_recipe_is_one_line(command, content, message, tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert cli.main([command, str(path)]) == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_is_a_line_and_a_status(monkeypatch, capsys):
    def interrupted(parser, words):
        raise KeyboardInterrupt

    for command, said in (("report", "\n"), ("eval", ": what is finished is kept, and the same")):
        runs(monkeypatch, command, interrupted)
        assert cli.main([command, "x"]) == 130
        assert capsys.readouterr().err.startswith(f"\nparavt: stopped{said}")


def test_what_is_not_installed_is_a_line_and_a_broken_import_is_not(monkeypatch, capsys):
    def absent(parser, words):
        raise ImportError("pip install 'paravt[decord]'")

    def broken(parser, words):
        from train import no_such_name  # noqa: F401

    runs(monkeypatch, "report", absent)
    assert cli.main(["report", "x"]) == 2
    assert capsys.readouterr().err == "paravt: error: pip install 'paravt[decord]'\n"
    runs(monkeypatch, "report", broken)
    with pytest.raises(ImportError, match="no_such_name"):
        cli.main(["report", "x"])


def test_a_reader_that_has_seen_enough_is_no_error():
    code = (
        "import sys\nfrom train import cli\n"
        "def long(parser, words):\n    for _ in range(10**5): print('x' * 100)\n"
        "cli.COMMANDS['report'] = cli.Command('A command.', long)\n"
        "sys.exit(cli.main(['report']))"
    )
    command = f'"{sys.executable}" -c "$0" | head -n 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command, code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bug_of_ours_is_not_hidden(monkeypatch):
    def broken(parser, words):
        raise ValueError("bug")

    runs(monkeypatch, "report", broken)
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
    done = python(
        missing + "import train.commands.play, train.commands.data\n"
        "sys.exit(main(['data', 'stats', '--videos', '1']))"
    )
    assert done.returncode == 0, done.stderr


def test_every_room_on_disk_is_installed():
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for top in ("envs_registry", "paravt_env", "agents", "train")
        for path in (ROOT / top).rglob("__init__.py")
    }
    wanted = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert set(setuptools.find_packages(str(ROOT), include=wanted)) == found


def test_the_console_script_exists():
    assert PROJECT["project"]["scripts"] == {"paravt": "train.cli:main"}


def test_pyav_is_bound_to_the_tested_major_version():
    """Each major version of PyAV renames things that the decoder uses."""
    (pinned,) = re.findall(r"^av==(\d+)", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    (bound,) = [item for item in PROJECT["project"]["dependencies"] if item.startswith("av>")]
    assert bound == f"av>={pinned},<{int(pinned) + 1}"


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
