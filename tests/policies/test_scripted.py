"""Scripted agents: what each one does, on real videos of the synthetic world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.builders import ListTasks, make_task

from agents.base import Agent
from agents.scripted import (
    SCRIPTED,
    MajorityAgent,
    OracleAgent,
    RandomAgent,
    ScriptedAgent,
    UniformCropAgent,
    View,
)
from paravt_env.protocol import parse
from paravt_env.spaces import batch_actions
from paravt_env.tasksets.made.synthetic import SyntheticTasks
from paravt_env.vector import LongVideoVectorEnv


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> SyntheticTasks:
    """One 5-minute video of 64 x 64 pixels with a task of each family."""
    root = tmp_path_factory.mktemp("scripted")
    size: dict[str, Any] = {"width": 64, "height": 64, "fps": 4}
    return SyntheticTasks(
        "val", root, videos=1, progress=False, minutes=(5, 5), scenes=6, questions=8, **size
    )


@pytest.fixture
def make(world: SyntheticTasks) -> Iterator[Any]:
    """Vector environments over the world, one row a task, closed at the end."""
    made = []

    def _make(tasks: Any = world, **settings: Any) -> LongVideoVectorEnv:
        made.append(LongVideoVectorEnv(len(tasks), tasks, frame_size=(32, 32), **settings))
        return made[-1]

    yield _make
    for env in made:
        env.close()


def _play(env: LongVideoVectorEnv, agent: ScriptedAgent) -> list[dict[str, Any]]:
    """Play every task once; a dict a row with its task, turns (windows), `correct` and `stop`."""
    rows = list(range(env.num_envs))
    observation, _ = env.reset(seed=0, options={"task_id": list(env.simulation.tasks.ids)})
    agent.begin(rows)
    played: list[dict[str, Any]] = [{"turns": [], "task": env.task_of(row)} for row in rows]
    while rows:
        decisions = agent.act(observation, rows)
        actions: list[Any] = [None] * env.num_envs
        for row, decision in zip(rows, decisions, strict=True):
            assert decision.completion is None
            assert parse(decision.action["completion"]).answer == decision.action["answer"]
            mask = decision.action["crop_mask"].astype(bool)
            played[row]["turns"].append(decision.action["crops"][mask].tolist())
            actions[row] = decision.action
        batch = batch_actions(actions, env.simulation.settings.max_crops)
        observation, _, done, cut, info = env.step(batch)
        for row in np.flatnonzero(done | cut).tolist():
            played[row]["correct"] = float(info["correct"][row])
            played[row]["stop"] = str(info["stop_reason"][row])
            rows.remove(row)
    return played


def test_oracle_answers_everything_from_cues(make: Any) -> None:
    env = make(frame_budget=32)
    played = _play(env, OracleAgent(env.task_of))
    for row in played:
        threshold = 0.5 if row["task"].kind == "grounding" else 1.0
        assert row["correct"] >= threshold, row
        assert row["stop"] == "answered" and len(row["turns"]) <= 2
        # It skips the crops that the overview makes needless.
        assert sum(map(len, row["turns"])) <= len(row["task"].evidence)


def test_oracle_crops_one_at_a_time_where_that_is_the_limit(make: Any) -> None:
    env = make(frame_budget=16, max_crops=1, max_turns=4)
    played = _play(env, OracleAgent(env.task_of, look="evidence"))
    for row in played:
        crops = len(row["task"].evidence)
        assert [len(turn) for turn in row["turns"]] == [1] * crops + [0]
        assert row["correct"] >= (0.5 if row["task"].kind == "grounding" else 1.0)


def test_oracle_on_evidence_needs_no_overview(make: Any) -> None:
    env = make(frame_budget=0)
    agent = OracleAgent(env.task_of, look="evidence")
    for row in _play(env, agent):
        (start, end), (low, high) = row["turns"][0][0], row["task"].evidence[0]
        assert start <= low and high <= end and end - start == pytest.approx(40)
        assert row["correct"] >= (0.5 if row["task"].kind == "grounding" else 1.0)


def test_oracle_guesses_an_option_where_the_overview_shows_nothing(make: Any) -> None:
    env = make(frame_budget=0)
    for row in _play(env, OracleAgent(env.task_of)):
        assert row["turns"] == [[]] and row["stop"] == "answered"


def test_oracle_gives_gold_answers_to_other_tasks(make: Any, tasks: ListTasks) -> None:
    env = make(tasks, frame_budget=4)
    played = _play(env, OracleAgent(env.task_of))
    assert [row["correct"] for row in played] == [1.0] * 4
    assert played[0]["turns"] == [[[0.0, 30.0]], []], "evidence 10-20 s of a 30-second video"


def test_oracle_rejects_an_unknown_way_to_look(make: Any) -> None:
    with pytest.raises(ValueError, match="'cues' or 'evidence', not 'luck'"):
        OracleAgent(make().task_of, look="luck")  # type: ignore[arg-type]


def test_uniform_crops_tile_the_video(make: Any) -> None:
    env = make(frame_budget=4)
    played = _play(env, UniformCropAgent(env.task_of))
    assert played[0]["turns"][0] == [[60.0 * i + 7.5, 60.0 * i + 52.5] for i in range(5)]
    assert all(row["stop"] == "answered" for row in played)


def test_uniform_crops_guess_on_other_tasks(make: Any, tasks: ListTasks) -> None:
    env = make(tasks, frame_budget=4)
    played = _play(env, UniformCropAgent(env.task_of, crops=1, seconds=10))
    assert [row["turns"] for row in played] == [[[[10.0, 20.0]], []]] * 4


@pytest.mark.parametrize("name", ["random", "uniform", "oracle"])
@pytest.mark.parametrize("limit", [7.33, 29.0])
def test_no_crop_is_longer_than_the_environment_allows(
    make: Any, clip: str, name: str, limit: float
) -> None:
    tasks = ListTasks([make_task(clip, str(i)) for i in range(6)])
    env = make(tasks, frame_budget=4, max_crop_seconds=limit)
    played = _play(env, SCRIPTED[name](env, 0))
    windows = [window for row in played for turn in row["turns"] for window in turn]
    assert windows and all(end - start <= limit + 1e-6 for start, end in windows)
    assert max(end - start for start, end in windows) == pytest.approx(limit, abs=1e-6)


def test_cues_are_cropped_within_the_limit(make: Any) -> None:
    env = make(frame_budget=16, max_crop_seconds=30.0)
    windows = [
        window
        for row in _play(env, SCRIPTED["oracle"](env, 0))
        for turn in row["turns"]
        for window in turn
    ]
    assert max(end - start for start, end in windows) == 30.0


def test_majority_answers_at_once(make: Any, clip: str) -> None:
    tasks = ListTasks(
        [
            make_task(clip, "a", answer="C"),
            make_task(clip, "b", answer="C"),
            make_task(clip, "c", answer="A"),
            make_task(clip, "d", kind="open", options=(), answer="blue"),
        ]
    )
    agent = MajorityAgent([tasks[i] for i in range(4)])
    assert agent.answers == {True: "C", False: "blue"}
    played = _play(make(tasks, frame_budget=4), agent)
    assert [row["correct"] for row in played] == [1.0, 1.0, 0.0, 1.0]
    assert all(row["turns"] == [[]] for row in played)


def test_random_is_seeded_and_ends_by_itself(make: Any) -> None:
    env = make(frame_budget=4)
    one, two = (_play(env, RandomAgent(seed=3)) for _ in range(2))
    assert [row["turns"] for row in one] == [row["turns"] for row in two]
    assert all(row["stop"] == "answered" for row in one)
    assert any(turns for row in one for turns in row["turns"])


def test_guess_is_an_option_or_a_span() -> None:
    view = View(0, "Which?\nA. x\nB. y", 100.0, {}, False, 5)
    agent = RandomAgent(seed=0)
    assert {agent.guess(view) for _ in range(50)} == {"A", "B"}
    start, end = map(float, agent.guess(View(0, "When?", 100.0, {}, False, 5)).split("-"))
    assert 0 <= start <= 88 and end - start == pytest.approx(12.0)


@pytest.mark.parametrize("name", ["random", "uniform", "oracle", "majority"])
def test_agents_by_name(make: Any, name: str) -> None:
    env = make(frame_budget=4)
    agent = SCRIPTED[name](env, 0)
    assert isinstance(agent, Agent) and set(SCRIPTED) == {"random", "uniform", "oracle", "majority"}
    assert all(row["stop"] == "answered" for row in _play(env, agent))
