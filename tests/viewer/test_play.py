"""A person as an agent: the same environment plays and scores, and what is left can be used."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.builders import SIZE, make_task, write_manifest
from support.evaluations import report, row
from support.tiny_runs import SHAPE

from agents.base import Decision
from agents.config import AgentConfig
from agents.model.mini import build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.protocol import action_from_completion
from paravt_env.tasksets import load_tasks
from train.config import recipe
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.run import RunConfig, TrainConfig
from train.config.sft import SFTConfig
from train.config.sft import StageConfig as Stage
from train.evaluation.compare import compare, shared
from train.evaluation.scores import EvalReport
from train.rollout.play import play
from train.rollout.starts import Start
from train.sft.conversations import PublishedConversations, make_env
from train.viewer.errors import CannotShow
from train.viewer.human import ENDED, FAILED, WAITING, decision
from train.viewer.listing import Listed
from train.viewer.play import Table, Tables
from train.viewer.play_page import choose_page, episode_page
from train.viewer.runs import Runs
from train.viewer.traces import FOLDER, REPORT, TRACES

PATIENCE = 120.0  # seconds, for a machine with much else to do
LOOK = {"thought": "look there", "windows": [[10, 14], [50, 60]], "notes": []}
ANSWER = {"thought": "it is blue", "answer": "B", "notes": ["a blue light", ""]}


@pytest.fixture
def folder(tmp_path, clip) -> Path:
    """A run's folder with settings to play with."""
    shutil.copy(clip, tmp_path / Path(clip).name)
    tasks = [make_task(clip), make_task(clip, "other", answer="A")]
    config = TrainConfig(
        env=EnvConfig(
            tasks=write_manifest(tmp_path / "tasks.jsonl", tasks), frame_size=SIZE, max_turns=2,
            max_crops=2, frames_per_crop=2,
        ),
        agent=AgentConfig(prompt_style="paravt"),
        evaluation=EvalConfig(frame_budgets=(2, 4)),
        run=RunConfig(name="demo", folder=str(tmp_path)),
    )  # fmt: skip
    (tmp_path / "demo").mkdir()
    recipe.save(config, tmp_path / "demo")
    return tmp_path / "demo"


@pytest.fixture
def table(folder):
    opened = Table(folder)
    yield opened
    opened.close()


def played(table, *decisions, task="colour", budget=4):
    episode = table.start(task, budget)
    for turn, sent in enumerate(decisions):
        assert episode.settle(PATIENCE) == WAITING
        episode.decide(turn, sent)
    assert episode.settle(PATIENCE) == ENDED
    return episode


class Repeats:
    """An agent that writes given completions."""

    def __init__(self, *texts):
        self.texts = list(texts)

    def begin(self, rows):
        pass

    def act(self, observations, rows):
        return [Decision(action_from_completion(self.texts.pop(0), 2)) for _ in rows]


def test_a_person_is_scored_as_an_agent_that_writes_the_same(table):
    episode = played(table, LOOK, ANSWER)
    texts = [decision(sent).completion for sent in (LOOK, ANSWER)]
    (other,) = play(table.env, Repeats(*texts), [Start("colour", 4, 0)])
    rollout = episode.rollout
    assert rollout.terms == other.terms and rollout.reward == other.reward > 0
    assert (rollout.correct, rollout.calls, rollout.executed, rollout.compliant) == (1, 2, 1, True)
    statuses = [crop["status"] for turn in rollout.turns for crop in turn["crops"]]
    assert statuses == ["ok", "outside"]


def test_frames_are_those_of_the_environment_and_gold_stays_hidden(table):
    episode = table.start("colour", 4)
    assert episode.settle(PATIENCE) == WAITING
    assert [one.time for one in episode.frames] == [3.75, 11.25, 18.75, 26.25]
    page = episode_page("demo", table, episode, None)
    assert "gold" not in page and 'value="B"' in page and page.count("<figure>") == 4
    episode.decide(0, LOOK)
    assert episode.settle(PATIENCE) == WAITING
    crops = [one for one in episode.frames if one.turn == 1]
    assert [(one.window, one.time) for one in crops] == [(1, 11.0), (1, 13.0)]
    assert all(one.data[:2] == b"\xff\xd8" for one in episode.frames)
    page = episode_page("demo", table, episode, None)
    assert "turn 1, call 1: 10.0-14.0 s" in page and "turn 1, call 2: 50.0-60.0 s" in page
    assert "gold" not in page and 'id="note1"' in page
    episode.decide(1, {"answer": "A"})
    assert episode.settle(PATIENCE) == ENDED
    model = Listed(3, 0, 0, "colour", "", 4, 1.0, 1.0, True, 2, 2, False, "answered", "", "B")
    page = episode_page("demo", table, episode, model)
    assert "gold is B" in page and "gold evidence" in page and "you said A" in page
    assert "The policy, after training" in page and "n=3" in page
    assert "wrong 0.00" in page and "its conversation" not in page


def test_after_the_last_turn_that_may_look_only_the_answer_is_asked(table):
    episode = table.start("colour", 2)
    for turn in range(2):
        assert episode.settle(PATIENCE) == WAITING
        episode.decide(turn, LOOK)
    assert episode.settle(PATIENCE) == WAITING
    page = episode_page("demo", table, episode, None)
    assert "Now you must answer" in page and 'id="look"' not in page
    episode.decide(2, ANSWER)
    assert episode.settle(PATIENCE) == ENDED


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"windows": []},
        {"windows": [[1, 2]], "answer": "B"},
        {"windows": "x"},
        {"windows": [[1]]},
        {"windows": [["a", "b"]]},
        {"windows": [[float("nan"), 2]]},
        {"windows": [[1, 2]] * 101},
        {"answer": 3},
        {"answer": "  "},
        {"answer": "x" * 2001},
        {"answer": "B", "thought": "<answer>A</answer>"},
        {"answer": "</answer><answer>A"},
        {"answer": "B", "notes": [1]},
        {"answer": "B", "thought": None},
    ],
)
def test_what_is_no_decision_is_refused(sent):
    with pytest.raises(CannotShow) as refused:
        decision(sent)
    assert refused.value.status == 400


def test_a_turn_is_decided_once(table):
    episode = table.start("colour", 4)
    episode.settle(PATIENCE)
    for turn in (1, -1):
        with pytest.raises(CannotShow) as refused:
            episode.decide(turn, ANSWER)
        assert refused.value.status == 409
    episode.decide(0, ANSWER)
    with pytest.raises(CannotShow):
        episode.decide(0, ANSWER)
    assert episode.settle(PATIENCE) == ENDED
    with pytest.raises(CannotShow):
        episode.decide(0, ANSWER)


def test_an_episode_that_is_left_counts_nowhere(folder):
    tables = Tables(Runs([folder]))
    first = tables.start("demo", "colour", 4)
    assert first.settle(PATIENCE) == WAITING
    second = tables.start("demo", "other", 4)
    assert first.settle(PATIENCE) == FAILED
    assert tables.episode(second.name)[2] is second
    for name in (first.name, "absent"):
        with pytest.raises(CannotShow):
            tables.episode(name)
    tables.close()
    assert second.settle(PATIENCE) == FAILED and not (folder / FOLDER).exists()


def test_only_tasks_and_frames_of_the_evaluation_can_be_played(table):
    for task, budget in (("absent", 4), ("colour", 3), ("../x", 4)):
        with pytest.raises(CannotShow):
            table.start(task, budget)
    page = choose_page("demo", table, [("colour", 4)], [("other", 4), ("other", 2)])
    assert '<option value="colour">colour: Which colour? (played)</option>' in page
    assert "other: Which colour? (the policy: K = 2, 4)</option>" in page
    assert '<option value="2" selected>' in page


def test_the_first_attempt_counts_and_can_be_compared(table, folder):
    played(table, LOOK, {"answer": "A"})
    assert table.first_attempt
    played(table, LOOK, ANSWER)
    assert table.first_attempt is False
    played(table, LOOK, ANSWER, budget=2)
    human = EvalReport.load(folder / FOLDER / REPORT)
    found = [(one.task_id, one.frame_budget, one.score) for one in human.rows]
    assert found == [("colour", 2, 1.0), ("colour", 4, 0.0)]
    assert human.settings["policy"] == "human"
    model = report(row("colour", 0.0, frame_budget=2), row("other", 1.0, frame_budget=2))
    one, other, left_out = shared(model, human)
    found = compare(one, other, ("model", "human"))
    assert (found.better, found.worse, left_out) == (1, 0, 2)


def test_episodes_that_end_right_are_conversations_to_imitate(table, folder, tmp_path):
    played(table, LOOK, {"answer": "A"}, task="colour")
    played(table, LOOK, ANSWER, task="colour", budget=2)
    path = folder / FOLDER / TRACES
    (line,) = path.read_text().splitlines()
    roles = [message["role"] for message in json.loads(line)["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]
    kwargs = {"root": "/", "annotations": str(path)}
    (task,) = (load_tasks("paravt_sft", **kwargs)[0],)
    assert (task.answer, task.kind, task.question) == ("B", "mcq", "Which colour?")
    assert task.options == ("red", "blue", "green")
    model = build_mini(tmp_path / "mini", ["look there it is blue"] * 3, SHAPE)
    vlm = VisionLanguageModel.load(model)
    env = EnvConfig(tasks="paravt_sft", tasks_kwargs=kwargs, frame_size=SIZE, frame_budget=2)
    config = SFTConfig(env=env, stages=(Stage("all", steps=1, published=1),))
    config = replace(config, agent=AgentConfig(prompt_style="paravt"))
    rows = make_env(config)
    (found,) = PublishedConversations(vlm, config, rows).write([0], np.random.default_rng(0))
    rows.close()
    trained = vlm.tokenizer.decode(found.branch_ids[found.loss_mask])
    texts = [decision(sent).completion for sent in (LOOK, ANSWER)]
    assert trained == "".join(f"{text}<|im_end|>" for text in texts)
    between = vlm.tokenizer.decode(found.branch_ids[~found.loss_mask])
    assert "Crop 1, 10.0-14.0 s: a blue light" in between
