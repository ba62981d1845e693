"""`paravt eval`, `merge` and `compare`: modes, policies, files, tables and exit status."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from support.builders import make_task, write_manifest
from support.evaluations import report, row

from agents.base import ClosableAgent
from agents.config import AgentConfig, VLLMConfig
from agents.scripted import MajorityAgent
from agents.vllm.agent import VLLMAgent
from train import cli
from train.commands.evaluation import finished
from train.common.errors import ConfigError
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.recipe import load
from train.config.run import TrainConfig
from train.evaluation.agents import evaluated_agent
from train.evaluation.compare import compare
from train.evaluation.evaluate import plan
from train.evaluation.measure import in_mode, measure
from train.evaluation.scores import EvalReport
from train.evaluation.tables import EvalBar, comparison_table, table

PLUG_IN = '''
from support.evaluations import Always


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


class Holder(Always):
    """Holds something until it is closed, and says so."""

    def __init__(self, env):
        super().__init__()
        self.note("open")

    def note(self, what):
        with open("PATH.holder", "a") as file:
            file.write(f"{what} ")

    def close(self):
        self.note("closed")


class Crashing(Holder):
    def act(self, observations, rows):
        raise ZeroDivisionError("a bug")


class Sighted(Holder):
    """Loses its server where there is nothing to see."""

    def act(self, observations, rows):
        if not (observations["window"][rows[0]] == 0).any():
            raise ConnectionResetError("the server is gone")
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


def test_a_gold_answer_or_a_plug_in_that_changed_is_another_evaluation(recipe, clip, capsys):
    plug_in = recipe.parent / "teller.py"
    words = ("--policy", f"{plug_in}:Teller")
    evaluate(recipe, *words)
    code = plug_in.read_text()
    plug_in.write_text(f"{code}\n# edited\n")
    assert evaluate(recipe, *words)[0] == 2
    assert "agent.code:" in capsys.readouterr().err
    plug_in.write_text(code)
    manifest = Path(yaml.safe_load(recipe.read_text())["env"]["tasks"])
    manifest.write_text(manifest.read_text().replace('"answer": "A"', '"answer": "C"'))
    assert evaluate(recipe, *words)[0] == 2
    assert "samples:" in capsys.readouterr().err
    assert evaluate(recipe, *words, "--evaluation.resume=false")[0] == 0


def test_an_agent_is_closed_before_the_next_one_is_made_and_when_it_fails(recipe):
    noted = recipe.parent / "shown.txt.holder"
    policy = f"{recipe.parent}/teller.py:"
    assert evaluate(recipe, "--policy", f"{policy}Holder", "--blind=true")[0] == 0
    assert noted.read_text().split() == ["open", "closed"] * 2
    with pytest.raises(ZeroDivisionError):
        evaluate(recipe, "--policy", f"{policy}Crashing", "--run.name=crash")
    assert noted.read_text().split() == ["open", "closed"] * 3


def test_an_agent_over_an_engine_closes_the_engine():
    agent, closed = object.__new__(VLLMAgent), []
    agent.engine = SimpleNamespace(close=lambda: closed.append(True))
    assert isinstance(agent, ClosableAgent) and not isinstance(MajorityAgent, ClosableAgent)
    agent.close()
    assert closed == [True]


def test_the_settings_beside_the_report_are_those_of_this_evaluation(recipe):
    evaluate(recipe)
    _, folder = evaluate(recipe, "--env.frames_per_crop=3", "--evaluation.resume=false")
    saved = load(TrainConfig, folder / "after.yaml")
    assert saved.env.frames_per_crop == 3
    assert "frames_per_crop: 3\n" in (folder / "report.html").read_text()
    assert evaluate(recipe)[0] == 2  # nothing was measured
    assert load(TrainConfig, folder / "after.yaml") == saved


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


def test_errors_of_the_blind_baseline_are_told(recipe, capsys):
    words = ("--policy", f"{recipe.parent}/teller.py:Sighted", "--blind=true")
    status, folder = evaluate(recipe, *words)
    said = "errors without frames, counted as wrong: 4 agent_error"
    assert status == 1
    assert said in capsys.readouterr().out
    found = EvalReport.load(folder / "after.json")
    assert (found.errors, found.blind_errors) == ({}, {"agent_error": 4})
    assert found.summary()["overall"]["blind"] == 0.0
    assert EvalReport.load(folder / "after.blind.json").errors == {"agent_error": 4}
    page = (folder / "report.html").read_text()
    assert "<td>agent errors without frames</td><td>4</td>" in page
    for shard in ("1/2", "2/2"):
        assert evaluate(recipe, *words, "--run.name=parts", "--shard", shard)[0] == 1
    capsys.readouterr()
    assert cli.main(["merge", str(recipe.parent / "parts")]) == 1
    assert said in capsys.readouterr().out
    assert EvalReport.load(recipe.parent / "parts" / "after.json").rows == found.rows
    assert (recipe.parent / "parts" / "after.blind.json").is_file()


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
    assert capsys.readouterr().out.endswith(finished(folder / "after.json", [
        folder / "frames.svg", folder / "report.html"
    ]) + "\n")  # fmt: skip
    assert [f">{k}</text>" in svg for k in (2, 4, 8)] == [True] * 3
    default = in_mode(EnvConfig(), EvalConfig(sweep="frames"))[1]
    assert default.frame_budgets == (4, 8, 16, 32, 64, 128, 256, 512)
    assert default.budgets_per_task is None


def test_shards_of_the_command_are_merged_by_the_command(recipe, capsys):
    evaluate(recipe, "--run.name=whole")
    for shard in ("1/2", "2/2"):
        assert evaluate(recipe, "--shard", shard)[0] == 0
    folder = recipe.parent / "run"
    said = capsys.readouterr().out
    assert f"\nshard 2/2 is done, its rows are in {folder}\nnext:\n  paravt merge {folder} " in said
    assert not (folder / "after.json").exists()
    assert cli.main(["merge", str(folder)]) == 0
    assert f"{folder}/report.html\n\nnext:\n  paravt view {folder} " in capsys.readouterr().out
    merged = EvalReport.load(folder / "after.json")
    assert merged.rows == EvalReport.load(recipe.parent / "whole" / "after.json").rows
    assert (folder / "report.html").is_file()


def test_the_shards_of_a_sweep_become_its_curve(recipe):
    words = ("--sweep", "frames", "--evaluation.sweep_frames=[2, 4]")
    evaluate(recipe, *words, "--run.name=whole")
    for shard in ("1/2", "2/2"):
        evaluate(recipe, *words, "--shard", shard)
    folder = recipe.parent / "run"
    assert not (folder / "frames.svg").exists()
    assert cli.main(["merge", str(folder)]) == 0
    whole = (recipe.parent / "whole" / "frames.svg").read_text()
    assert (folder / "frames.svg").read_text() == whole
    assert load(TrainConfig, folder / "after.yaml").evaluation.sweep_frames == (2, 4)


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


def test_a_category_of_a_data_set_does_not_steer_the_terminal(tmp_path, capsys):
    rows = [row("a", category="\x1b[2Jx"), row("b", 0.0, category="half \ud800")]
    for name in ("first", "second"):
        report(*rows).save(tmp_path / name / "after.json")
    assert cli.main(["compare", str(tmp_path / "first"), str(tmp_path / "second")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "[2Jx" in out and "category half" in out


def test_comparing_what_is_no_evaluation_says_what_to_run(tmp_path, capsys):
    assert cli.main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "run `paravt eval` or `paravt merge` first" in capsys.readouterr().err
    assert cli.main(["merge", str(tmp_path)]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "orcle"], "did you mean 'oracle'"),
        (["--policy", "no_such_module:Agent"], "give file.py:name or package.module:name"),
        (["--policy", "players:Nobody"], "give file.py:name or package.module:name"),
        (["--policy", "nowhere.py:Agent"], "give file.py:name or package.module:name"),
        (["--policy", "support.evaluations:Nobody"], "no 'Nobody' in 'support.evaluations'"),
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


def test_where_and_how_an_agent_runs_may_differ_between_shards(tmp_path):
    weights = b"the same weights"
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
    one = AgentConfig(checkpoint=str(folders[0]), engine="vllm_server")
    engine = VLLMConfig(
        url="http://there:1", max_sequences=2, max_requests=2, block_size=16, kv_cache_gib=2.0,
        gpu_memory_utilization=0.5, tensor_parallel=2, eager=False, sleep=0, sync="nccl",
        learner_address="there", sync_deadline=1.0, timeout=1.0, start_timeout=1.0,
    )  # fmt: skip
    two = replace(one, checkpoint=str(folders[1]), device="cuda", feature_cache_gib=0.0)

    def known(agent):
        return evaluated_agent(TrainConfig(agent=agent)).identity()

    assert known(one) == known(replace(two, vllm=engine))
    for other in (VLLMConfig(max_model_len=99), VLLMConfig(max_images=9)):
        assert known(replace(one, vllm=other)) != known(one)
    for change in ({"dtype": "bfloat16"}, {"engine": "transformers"}, {"prompt_style": "direct"}):
        assert known(replace(one, **change)) != known(one)
    assert known(AgentConfig(checkpoint="hub/a")) != known(AgentConfig(checkpoint="hub/b"))


def test_any_callable_makes_the_agent(recipe, tmp_path):
    settings = yaml.safe_load(recipe.read_text())
    env = EnvConfig(**{**settings["env"], "frame_size": (16, 32)})
    config = TrainConfig(env=env, evaluation=EvalConfig(frame_budgets=(2,), resamples=50))
    tasks = env.make(1).simulation.tasks
    found = measure(config, lambda env: MajorityAgent(tasks), tmp_path / "before.json")
    assert found.accuracy().mean == 0.75
    assert EvalReport.load(tmp_path / "before.json").rows == found.rows
    assert len(plan(tasks.ids, config.evaluation)) == 4


def test_progress_without_a_terminal_is_the_start_and_the_last_sample(capsys):
    bar = EvalBar()
    for done in range(2001):
        bar(done, 2000, 0.25, done // 1000)
    bar(0, 3, 0.0, 0)  # the next set of a suite
    bar(2, 2, 1.0, 0)  # a set that was played before
    first, *_, last, other, played = capsys.readouterr().out.splitlines()
    assert first == "  evaluated 0/2000"
    assert last == "  evaluated 2000/2000, accuracy 0.250, 2 errors"
    assert other == "  evaluated 0/3"
    assert played == "  evaluated 2/2, accuracy 1.000"


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
    assert [line.split()[-2] for line in text.splitlines()[:3]] == ["evidence", "0.500", "0.500"]
    (other,) = (line for line in text.splitlines() if line.startswith("category (none)"))
    assert other.split()[-2:] == ["-", "1"]
    assert "mean of the categories" in text
    assert "errors, counted as wrong: 1 judge_error" in text
    assert "(none)" in text
