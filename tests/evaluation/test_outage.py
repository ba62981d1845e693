"""A server that is gone stops an evaluation in one line, and it goes on from there."""

import json
from pathlib import Path

import pytest
import yaml
from support.builders import make_task, write_manifest
from support.chat_servers import serving
from support.evaluations import row

from agents.base import AgentError
from agents.chat.client import GONE, ChatClient, ChatConfig, ChatRequest
from paravt_env.common.http.client import Usage
from paravt_env.common.http.endpoint import EndpointError
from train import cli
from train.commands.evaluation import default_recipe
from train.config.evaluation import EvalConfig
from train.config.recipe import load
from train.config.run import TrainConfig
from train.evaluation.conditions import conditions
from train.evaluation.outage import Outage
from train.evaluation.row_file import read_rows
from train.evaluation.scores import EvalReport

SAID = "<think>\nIt is.\n</think>\n<answer>B</answer>"


def failed(kind="agent_error"):
    return row(score=0.0, error="connection refused", error_kind=kind)


def test_rows_that_fail_in_a_row_are_held_back_until_one_succeeds():
    kept = []
    outage = Outage(lambda key, _: kept.append(key), 3)
    outage.add("a", failed())
    outage.add("b", failed("judge_error"))
    assert kept == []
    outage.add("c", row())
    assert kept == ["a", "b", "c"]
    outage.add("d", failed())
    outage.add("e", failed("video_error"))  # no server's fault
    outage.add("f", failed())
    outage.add("g", failed())
    assert kept == ["a", "b", "c", "d", "e"]
    with pytest.raises(AgentError, match=r"3 rows in a row failed.*connection refused.*same comm"):
        outage.add("h", failed())
    assert kept == ["a", "b", "c", "d", "e"]


def test_what_is_held_at_the_end_counts_and_0_never_stops():
    kept = []
    outage = Outage(lambda key, _: kept.append(key), 3)
    outage.add("a", failed())
    outage.flush()
    assert kept == ["a"]
    endless = Outage(lambda key, _: kept.append(key), 0)
    for key in "bcdefghijklmnop":
        endless.add(key, failed())
    assert "".join(kept) == "abcdefghijklmnop"


@pytest.fixture
def recipe(tmp_path, clip):
    """Twenty quick tasks for a chat model."""
    tasks = [make_task(clip, f"t{number:02}") for number in range(20)]
    path = tmp_path / "recipe.yaml"
    settings = {
        "base": "chat",
        "env": {
            "tasks": write_manifest(Path(clip).with_name("outage.jsonl"), tasks),
            "frame_size": [16, 32],
        },
        "evaluation": {
            "frame_budgets": [1], "num_envs": 4, "resamples": 20, "stop_after_errors": 4,
            "chat": {"model": "m", "retries": 0, "timeout": 5},
        },
        "run": {"name": "run", "folder": str(tmp_path)},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_server_that_is_gone_stops_the_run_and_another_address_goes_on(recipe, capsys):
    folder = recipe.parent / "run"
    words = ["eval", str(recipe), "--evaluation.chat.base_url"]
    with serving(*[SAID] * 8, 503) as server:
        assert cli.main([*words, server.url]) == 2
        asked = len(server.bodies)
    said = capsys.readouterr()
    assert asked == 12  # three batches of 4 rows, of 5
    assert said.err.count("\n") == 1
    assert "4 rows in a row failed, the last with: " in said.err
    assert len(read_rows(folder / "after.rows.jsonl")[1]) == 8
    assert not (folder / "after.json").exists()
    with serving(SAID) as server:
        assert cli.main([*words, server.url]) == 0
        assert len(server.bodies) == 12
    out = capsys.readouterr().out
    assert "8 of 20 samples are in" in out
    assert "m at http://127.0.0.1:" in out and "frames 16 x 32 pixels, at most 16 in" in out
    report = EvalReport.load(folder / "after.json")
    assert (len(report.rows), report.errors) == (20, {})


def test_a_reply_with_half_a_surrogate_pair_reaches_the_report(recipe):
    with serving("<answer>B \ud800</answer>") as server:
        words = ["eval", str(recipe), "--evaluation.chat.base_url", server.url]
        assert cli.main([*words, "--evaluation.tasks=2"]) == 0
        assert cli.main([*words, "--evaluation.tasks=2"]) == 0
    folder = recipe.parent / "run"
    assert "\ud800" in EvalReport.load(folder / "after.json").rows[0].turns[0]["completion"]
    assert "&lt;answer&gt;B ?&lt;/answer&gt;" in (folder / "report.html").read_text("utf-8")
    assert json.loads((folder / "after.json").read_text())
    assert cli.main(["report", str(folder)]) == 0
    assert cli.main(["merge", str(folder)]) == 0


def test_questions_after_a_dead_server_are_not_asked():
    with serving(*[503] * GONE, "late") as server:
        config = ChatConfig(server.url, "m", concurrency=1, retries=0)
        client = ChatClient(config, lambda seconds: None)
        requests = [ChatRequest([], 1, Usage()) for _ in range(GONE + 4)]
        replies = client.ask_all(requests)
        assert len(server.bodies) == GONE
        assert all(isinstance(reply, EndpointError) for reply in replies)
        assert str(replies[-1]).startswith("not asked: http://127.0.0.1")
        assert [reply.content for reply in client.ask_all(requests[:2])] == ["late", "late"]
        client.close()


def test_a_reply_or_a_refusal_between_them_starts_the_count_again():
    for between in ("yes", 400):
        with serving(*[503] * (GONE - 1), between, *[503] * (GONE - 1)) as server:
            config = ChatConfig(server.url, "m", concurrency=1, retries=0)
            client = ChatClient(config, lambda seconds: None)
            client.ask_all([ChatRequest([], 1, Usage()) for _ in range(2 * GONE - 1)])
            assert len(server.bodies) == 2 * GONE - 1
            client.close()


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        ([], "paragrpo_mini"),
        (["--evaluation.policy=openai"], "chat"),
        (["--evaluation.policy", "openai", "--evaluation.seed=1"], "chat"),
        (["--evaluation.policy", "oracle"], "paragrpo_mini"),
        (["--evaluation.policy=openai", "--evaluation.suite=paravt7"], "paravt7"),
        (["--evaluation.suite", "paravt7"], "paravt7"),
    ],
)
def test_a_chat_model_is_not_played_by_the_recipe_of_the_toy(words, recipe):
    assert default_recipe(words) == recipe


def test_the_recipe_of_chat_models_is_no_toy(capsys):
    assert cli.main(["eval", "--policy", "openai", "--print-config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["env"]["frame_size"] == [288, 512]
    agent = shown["agent"]
    assert agent["prompt_style"] == "paravt"
    assert (agent["max_new_tokens"], agent["answer_tokens"]) == (2048, 1024)
    assert cli.main(["eval", "paragrpo_mini", "--policy=openai", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["agent"]["prompt_style"] == "compact"


def test_the_conditions_say_what_was_shown_and_allowed():
    chat = load(
        TrainConfig, "chat", {"evaluation.chat.model": "m", "evaluation.chat.base_url": "u"}
    )
    assert conditions(chat) == (
        "m at u: split test; frames 288 x 512 pixels, at most 16 in a crop; "
        "3 turns of 5 calls, 45 s each; "
        "prompt style paravt; tokens: 2048 a turn, 1024 the forced answer, 512 a reading; "
        "temperature 0"
    )
    direct = load(TrainConfig, "paragrpo_mini", {"evaluation.mode": "direct"})
    assert conditions(direct) == (
        "paravt_mini: split test; frames 64 x 64 pixels; one turn without tools; "
        "prompt style compact; "
        "tokens: 160 a turn, 160 the forced answer, 16 a reading; temperature 0"
    )
    oracle = load(TrainConfig, "paragrpo_mini", {"evaluation.policy": "oracle"})
    assert conditions(oracle).startswith("oracle: split test; frames 64 x 64 pixels, at most 8 in")
    assert "tokens" not in conditions(oracle)


def test_a_judge_may_move_and_what_it_judges_by_may_not():
    from train.evaluation.identity import FREE

    assert {"reward.judge.url", "reward.judge.key_variable"} <= set(FREE["env"])
    assert not {"reward.judge.model", "reward.judge.kinds"} & set(FREE["env"])
    assert "base_url" in FREE["chat"] and "model" not in FREE["chat"]
    assert EvalConfig().stop_after_errors == 10
