"""`paravt eval`, `merge` and `compare`: modes, policies, files, tables and exit status."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from builders import make_task, write_manifest
from test_evaluate import report, row

from agents.scripted import MajorityAgent
from train import cli
from train.compare import compare
from train.config import EnvConfig, EvalConfig, TrainConfig
from train.errors import ConfigError
from train.evaluate import plan
from train.measure import evaluated_agent, in_mode, measure
from train.scores import EvalReport
from train.tables import comparison_table, print_progress, table

PLUG_IN = '''
from players import Always


class Teller(Always):
    """Writes what it was shown into a file."""

    def __init__(self, env):
        super().__init__()
        self.settings = env.simulation.settings

    def act(self, observations, rows):
        with open("PATH", "a") as file:
            for row in rows:
                shown = int((observations["window"][row] == 0).sum())
                file.write(f"{shown} {observations['must_answer'][row]} "
                           f"{self.settings.max_crops}\\n")
        return super().act(observations, rows)


def broken(env):
    class Broken(Always):
        def act(self, observations, rows):
            raise ConnectionResetError("the server is gone")

    return Broken()
'''


@pytest.fixture
def recipe(tmp_path, clip):
    """A recipe of four quick tasks, and what its plug-in was shown."""
    tasks = [
        make_task(clip, "a"),
        make_task(clip, "b", answer="A"),
        make_task(clip, "c"),
        make_task(clip, "d", question="When?", kind="grounding", options=(), answer="10.0-20.0"),
    ]
    manifest = write_manifest(Path(clip).with_name("command.jsonl"), tasks)
    (tmp_path / "teller.py").write_text(PLUG_IN.replace("PATH", str(tmp_path / "shown.txt")))
    path = tmp_path / "recipe.yaml"
    settings = {
        "env": {"tasks": manifest, "frame_size": [16, 32], "max_crops": 3, "frames_per_crop": 2},
        "evaluation": {
            "policy": "majority",
            "frame_budgets": [2, 4],
            "budgets_per_task": None,
            "num_envs": 3,
            "resamples": 50,
        },
        "run": {"name": "run", "folder": str(tmp_path)},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def evaluate(recipe, *words):
    status = cli.main(["eval", str(recipe), *words])
    return status, recipe.parent / "run"


def shown(recipe):
    lines = (recipe.parent / "shown.txt").read_text().splitlines()
    return sorted({tuple(map(int, line.split())) for line in lines})


def test_an_evaluation_prints_writes_and_succeeds(recipe, capsys):
    status, folder = evaluate(recipe)
    out = capsys.readouterr().out
    assert status == 0
    found = EvalReport.load(folder / "after.json")
    assert len(found.rows) == 8
    assert found.accuracy().mean == 0.75
    assert "evaluated 8/8, accuracy 0.750" in out
    assert "mIoU" in out
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert (folder / "config.yaml").is_file()
    summary = json.loads((folder / "after.json").read_text())["summary"]
    assert summary["overall"]["majority"] == 0.5
    assert summary["grounding"]["mIoU"]["mean"] == 1.0
    assert summary["duration_group"]["under 2 min"]["accuracy"]["rows"] == 8


def test_a_finished_evaluation_is_read_not_played_again(recipe, capsys):
    evaluate(recipe)
    evaluate(recipe, "--policy", f"{recipe.parent}/teller.py:Teller", "--run.name=other")
    before = (recipe.parent / "shown.txt").read_text()
    words = ("--policy", f"{recipe.parent}/teller.py:Teller", "--run.name=other")
    assert evaluate(recipe, *words)[0] == 0
    assert "8 of 8 samples are in" in capsys.readouterr().out
    assert (recipe.parent / "shown.txt").read_text() == before
    evaluate(recipe, *words, "--evaluation.resume=false")
    assert (recipe.parent / "shown.txt").read_text() == 2 * before


def test_changed_settings_do_not_continue_old_rows(recipe, capsys):
    evaluate(recipe)
    assert evaluate(recipe, "--env.frames_per_crop=3")[0] == 2
    assert "env.frames_per_crop: 2 there, 3 here" in capsys.readouterr().err
    assert evaluate(recipe, "--evaluation.num_envs=2")[0] == 0
    assert evaluate(recipe, "--env.frames_per_crop=3", "--evaluation.resume=false")[0] == 0


def test_errors_are_told_by_the_exit_status(recipe, capsys):
    status, folder = evaluate(recipe, "--policy", f"{recipe.parent}/teller.py:broken")
    assert status == 1
    assert "errors, counted as wrong: 8 agent_error" in capsys.readouterr().out
    found = EvalReport.load(folder / "after.json")
    assert found.errors == {"agent_error": 8}
    assert found.accuracy().mean == 0.0
    assert "ConnectionResetError: the server is gone" in found.rows[0].error


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("tools", [(2, 0, 3), (4, 0, 3)]),
        ("direct", [(2, 1, 3), (4, 1, 3)]),
        ("blind", [(0, 1, 3)]),
    ],
)
def test_modes_change_what_an_agent_is_shown_and_allowed(recipe, mode, seen):
    policy = f"{recipe.parent}/teller.py:Teller"
    assert evaluate(recipe, "--policy", policy, "--mode", mode)[0] == 0
    assert shown(recipe) == seen


def test_sequential_means_one_crop_a_turn():
    env, settings = in_mode(EnvConfig(), EvalConfig(mode="sequential"))
    assert (env.max_crops, env.max_turns) == (1, EnvConfig().max_turns)
    assert settings.frame_budgets == EvalConfig().frame_budgets


def test_the_blind_baseline_is_played_once_a_task_and_stands_beside(recipe, capsys):
    words = ("--policy", f"{recipe.parent}/teller.py:Teller", "--blind=true")
    status, folder = evaluate(recipe, *words)
    assert status == 0
    found = EvalReport.load(folder / "after.json")
    assert {r.blind for r in found.rows if r.kind == "mcq"} == {0.0, 1.0}
    assert found.summary()["overall"]["blind"] == pytest.approx(0.5)
    assert shown(recipe) == [(0, 1, 3), (2, 0, 3), (4, 0, 3)]


def test_a_sweep_plays_every_task_at_every_number_of_frames(recipe, capsys):
    words = ("--sweep", "frames", "--evaluation.sweep_frames=[2, 4, 8]")
    status, folder = evaluate(recipe, *words)
    assert status == 0
    found = EvalReport.load(folder / "after.json")
    assert sorted({(r.task_id, r.frame_budget) for r in found.rows}) == [
        (name, budget) for name in "abcd" for budget in (2, 4, 8)
    ]
    svg = (folder / "frames.svg").read_text()
    assert svg.startswith("<svg xmlns=")
    assert [f">{k}</text>" in svg for k in (2, 4, 8)] == [True] * 3
    default = in_mode(EnvConfig(), EvalConfig(sweep="frames"))[1]
    assert default.frame_budgets == (4, 8, 16, 32, 64, 128, 256, 512)
    assert default.budgets_per_task is None


def test_shards_of_the_command_are_merged_by_the_command(recipe, capsys):
    evaluate(recipe, "--run.name=whole")
    for shard in ("1/2", "2/2"):
        assert evaluate(recipe, "--shard", shard)[0] == 0
    folder = recipe.parent / "run"
    assert not (folder / "after.json").exists()
    assert cli.main(["merge", str(folder)]) == 0
    merged = EvalReport.load(folder / "after.json")
    assert merged.rows == EvalReport.load(recipe.parent / "whole" / "after.json").rows
    assert (folder / "report.html").is_file()


def test_two_runs_are_compared_row_by_row(recipe, capsys, tmp_path):
    evaluate(recipe, "--run.name=first")
    evaluate(recipe, "--run.name=second", "--policy", f"{recipe.parent}/teller.py:Teller")
    words = [str(tmp_path / "first"), str(tmp_path / "second")]
    pages = ["--json", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html")]
    assert cli.main(["compare", *words, *pages, "--examples", "1"]) == 0
    out = capsys.readouterr().out
    assert "rows better" in out
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["better"] + content["worse"] + content["equal"] == 8
    assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")


def test_a_comparison_is_second_minus_first():
    first = report(row("a", 0.0), row("b"), row("c", 0.0, category="other"), row("d", 0.5))
    second = report(row("a", calls=3), row("b", 0.0), row("c", category="other"), row("d", 0.5))
    found = compare(first, second, ("A", "B"))
    assert (found.better, found.worse, found.equal) == (2, 1, 1)
    assert found.parts["all"].difference.mean == 0.25
    assert (found.parts["all"].first, found.parts["all"].second) == (0.375, 0.625)
    assert found.parts["category other"].difference.mean == 1.0
    assert found.others["calls"].mean == 0.5
    text = comparison_table(found)
    assert "B minus A" in text
    assert "2 rows better, 1 worse, 1 equal" in text
    with pytest.raises(ConfigError, match="cannot be paired"):
        compare(first, report(row("a")), ("A", "B"))


def test_comparing_what_is_no_evaluation_says_what_to_run(tmp_path, capsys):
    assert cli.main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "run `paravt eval` or `paravt merge` first" in capsys.readouterr().err
    assert cli.main(["merge", str(tmp_path)]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "orcle"], "did you mean 'oracle'"),
        (["--policy", "no_such_module:Agent"], "write module:factory"),
        (["--policy", "players:Nobody"], "write module:factory"),
        (["--policy", "nowhere.py:Agent"], "write module:factory"),
        (["--shard", "3/2"], "write i/n"),
        (["--mode", "tool"], "tools"),
        (["--suite", "paravt8"], "did you mean 'paravt7'"),
        (["--evaluation.frame_budgets=[4, 4]"], "one is there twice"),
        (["--policy", "openai"], "needs base_url"),
    ],
)
def test_mistakes_are_one_line(recipe, words, message, capsys):
    assert evaluate(recipe, *words)[0] == 2
    assert message in capsys.readouterr().err


def test_the_openai_policy_is_made_from_the_settings(recipe, make_vector):
    chat = replace(EvalConfig().chat, base_url="http://127.0.0.1:9/v1", model="m", concurrency=2)
    settings = EvalConfig(policy="openai", chat=chat, temperature=0.25)
    source = evaluated_agent(TrainConfig(evaluation=settings))
    agent = source(make_vector(1, max_turns=0))
    assert (agent.chat.model, agent.config.temperature) == ("m", 0.25)
    assert agent.config.answer_tokens == agent.config.max_new_tokens == 2048
    assert source(make_vector(1)).config.answer_tokens == 64
    known = source.identity()
    other = replace(settings, chat=replace(chat, concurrency=7))
    assert evaluated_agent(TrainConfig(evaluation=other)).identity() == known
    other = replace(settings, chat=replace(chat, model="n"))
    assert evaluated_agent(TrainConfig(evaluation=other)).identity() != known


def test_retrained_weights_at_the_same_place_are_another_evaluation(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"old")
    source = evaluated_agent(TrainConfig(), str(tmp_path))
    before = source.identity()
    (tmp_path / "model.safetensors").write_bytes(b"newer")
    assert source.identity() != before


def test_any_callable_makes_the_agent(recipe, tmp_path):
    settings = yaml.safe_load(recipe.read_text())
    env = EnvConfig(**{**settings["env"], "frame_size": (16, 32)})
    config = TrainConfig(env=env, evaluation=EvalConfig(frame_budgets=(2,), resamples=50))
    tasks = env.make(1).simulation.tasks
    found = measure(config, lambda env: MajorityAgent(tasks), tmp_path / "before.json")
    assert found.accuracy().mean == 0.75
    assert EvalReport.load(tmp_path / "before.json").rows == found.rows
    assert len(plan(tasks.ids, config.evaluation)) == 4


def test_progress_is_some_twenty_lines_without_a_terminal(capsys):
    for done in range(1, 2001):
        print_progress(done, 2000, 0.25, done // 1000)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert lines[0] == "  evaluated 100/2000, accuracy 0.250"
    assert lines[-1] == "  evaluated 2000/2000, accuracy 0.250, 2 errors"


def test_the_table_says_what_was_used_and_what_is_missing():
    text = table(
        report(
            row("a", blind=0.0, usage={"visual_tokens": 64.0}, evidence_recall=0.5),
            row("b", 0.0, blind=1.0, category="", error="e", error_kind="judge_error"),
        )
    )
    assert text.splitlines()[1].split()[:2] == ["all", "2"]
    assert "0.500" in text.splitlines()[1]
    assert "an episode used: visual tokens 64" in text
    assert "evidence recall 0.500" in text
    assert "mean of the categories" in text
    assert "errors, counted as wrong: 1 judge_error" in text
    assert "(none)" in text
