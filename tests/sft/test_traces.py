"""Oracle-written traces: what they say, and that the environment takes them as a policy's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from agents.config import AgentConfig, Limits
from agents.model.mini import MiniConfig, build_mini
from agents.model.vlm import VisionLanguageModel
from paravt_env.protocol.tags import Role
from paravt_env.task import Task
from paravt_env.tasksets.made.synthetic import oracle
from paravt_env.vector import LongVideoVectorEnv
from train.config.sft import StageConfig, TraceConfig
from train.rollout.behaviours import behaviour
from train.rollout.play import Rollout, play
from train.rollout.starts import Start
from train.sft.traces import TraceAgent
from train.sft.wording import crop_reading, facts, in_words, weighed

SCENES = [
    {"start": 0.0, "end": 60.0, "colour": "red", "events": [("star", "top left", 24.0, 36.0)]},
    {
        "start": 60.0,
        "end": 120.0,
        "colour": "blue",
        "events": [("ring", "top left", 84.0, 96.0)] * 2,
    },
]


def task(family: str, asked: list[int], **fields: object) -> Task:
    events = [
        [dict(zip(("symbol", "corner", "start", "end"), e, strict=True)) for e in s["events"]]  # type: ignore[attr-defined]
        for s in SCENES
    ]
    scenes = [{**scene, "events": e} for scene, e in zip(SCENES, events, strict=True)]
    colours = [SCENES[i]["colour"] for i in asked]
    return Task(
        id="t",
        video="v.mp4",
        question="?",
        kind=fields.get("kind", "open"),  # type: ignore[arg-type]
        options=fields.get("options", ()),  # type: ignore[arg-type]
        answer=str(fields.get("answer", "star")),
        family=family,
        metadata={"scenes": scenes, "asked": asked, "colours": colours, "duration": 120.0},
    )


@pytest.mark.parametrize(
    ("family", "times", "text"),
    [
        ("flash", [10.0, 30.0, 50.0], "red star"),
        ("where", [10.0, 30.0, 50.0], "red top left"),
        ("count", [10.0, 30.0, 50.0], "red 1"),
        ("when", [22.0, 26.0, 30.0, 34.0, 38.0], "red 22 - 38"),
        ("flash", [10.0, 50.0], "none"),
        ("flash", [30.0, 86.0, 90.0, 94.0], "red star"),
    ],
)
def test_a_reading_says_what_the_frames_show(family: str, times: list[float], text: str) -> None:
    assert crop_reading(task(family, [0]), np.array(times)) == text


def test_a_reading_without_the_asked_scene_reports_what_is_on_screen_longest() -> None:
    assert crop_reading(task("flash", [1]), np.array([30.0, 40.0])) == "red star"


def test_answers_are_given_in_the_words_of_an_option() -> None:
    question = task("flash", [0], kind="mcq", options=("ring", "star"), answer="B")
    read = oracle.read_window(question, np.array([30.0, 90.0]))
    assert facts(question, read, (0,)) == "it is red star"
    assert facts(question, read, (1, 0)) == "it is blue ring; red star"
    assert facts(question, read, (None,)) == "it is none"
    assert in_words(question, "B") == "star"
    assert in_words(task("when", [0], kind="grounding", options=()), " 1 - 2") == " 1 - 2"


def test_options_are_weighed_by_what_was_read() -> None:
    question = task("flash", [0], kind="mcq", options=("ring", "star"), answer="B")
    assert weighed(question, ("B",)) == "A ring no;B star yes"


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Rollout]]:
    """Traces that always call, that never do, and that see too little, on one synthetic video."""
    root = tmp_path_factory.mktemp("world")
    folder = build_mini(
        root / "mini", ["red"], MiniConfig(32, 1, 2, 32, 32, 1, 2, 32, vocabulary=280)
    )
    vlm = VisionLanguageModel.load(folder)
    played = {}
    env = LongVideoVectorEnv(
        12,
        tasks="synthetic",
        split="val",
        tasks_kwargs={"videos": 1, "root": str(root)},
        frame_size=(64, 64),
        frame_budget=32,
    )
    try:
        kinds = {"call": (1.0, 32, 0.0), "skip": (0.0, 32, 0.0), "blind": (1.0, 4, 0.0)}
        kinds["weigh"] = 1.0, 32, 1.0
        kinds["native"] = 1.0, 32, 0.0
        kinds["native_skip"] = 1.0, 32, 0.0
        native = {"native": {"native": 1.0}, "native_skip": {"native": 1.0, "native_call": 0.0}}
        for name, (call, frames, weigh) in kinds.items():
            own = native.get(name, {})
            trace = TraceConfig(call, 0.0, call, 0.0, 0.0, 1.0, weigh, **own)
            config = AgentConfig(prompt_style="compact")
            agent = TraceAgent(vlm, config, Limits(), env.task_of, trace)
            starts = [Start(i, frames, seed=1) for i in env.simulation.tasks.ids[:12]]
            played[name] = play(env, agent, starts)
    finally:
        env.close()
    return played


def test_traces_that_call_are_right_and_keep_the_format(rollouts: dict[str, list[Rollout]]) -> None:
    called = rollouts["call"]
    assert all(r.compliant and r.terms["format_anchor"] == 1.0 for r in called)
    assert np.mean([r.correct > 0.5 for r in called]) >= 0.8
    assert max(r.parallel for r in called) >= 2
    assert all(r.executed == r.calls > 0 for r in called)


def test_traces_that_skip_never_call(rollouts: dict[str, list[Rollout]]) -> None:
    assert all(r.calls == 0 and r.compliant for r in rollouts["skip"])
    calling = np.mean([r.correct for r in rollouts["call"]])
    assert calling > np.mean([r.correct for r in rollouts["skip"]])


def test_traces_that_weigh_answer_with_the_letter_they_found(
    rollouts: dict[str, list[Rollout]],
) -> None:
    last = {one.turns[-1]["completion"]: one.answer for one in rollouts["weigh"]}
    weighing = [text for text in last if "?A " in text]
    assert weighing
    for text in weighing:
        assert re.search(rf"[?;]{last[text]} [^;]+ yes", text)
    assert not any(one.answer in tuple("ABCD") for one in rollouts["call"])


def test_native_traces_call_and_answer_without_the_structure(
    rollouts: dict[str, list[Rollout]],
) -> None:
    """The same plans and calls; an answer that no tag holds is asked for again, and said again."""
    for native, structured in zip(rollouts["native"], rollouts["call"], strict=True):
        first, *_, last = (turn["completion"] for turn in native.turns)
        tagged = structured.turns[0]["completion"]
        assert first == tagged.replace("<think>\n", "").replace("\n</think>", "")
        assert native.executed == structured.executed > 0
        assert last == native.turns[-2]["completion"] and "<" not in last
        assert last.splitlines()[-1].strip() == structured.answer
        assert (native.stop_reason, native.correct, native.compliant) == ("unanswered", 0.0, False)
        assert behaviour(native) == "native_calls" and behaviour(structured) == "structured_calls"
        main = native.trajectories[0]
        assert main.loss_mask[main.roles == int(Role.tag)].all()
    assert {behaviour(one) for one in rollouts["native_skip"]} == {"native_skips"}
    assert {behaviour(one) for one in rollouts["skip"]} == {"structured_skips"}


def test_shares_of_traces_are_shares() -> None:
    with pytest.raises(ValueError, match=r"TraceConfig\.native = 1\.5: a share"):
        TraceConfig(native=1.5)
    with pytest.raises(ValueError, match=r"StageConfig\.native_call = -1: a share"):
        StageConfig(rollouts=1, conversations=1, native_call=-1)


def test_a_blind_call_takes_the_window_that_its_plan_ends_with(
    rollouts: dict[str, list[Rollout]],
) -> None:
    turns = [r.turns[0] for r in rollouts["blind"] if "unseen, try" in r.turns[0]["completion"]]
    assert turns
    for turn in turns:
        ((start, end),) = [crop["window"] for crop in turn["crops"]]
        window = f"{start:.0f} {end:.0f}"
        assert f"{window}: unseen, try {window}\n</think>" in turn["completion"]


def test_every_token_the_policy_has_to_write_is_trained(rollouts: dict[str, list[Rollout]]) -> None:
    for rollout in rollouts["call"]:
        main, *readings = rollout.trajectories
        written = {Role.think, Role.call, Role.answer, Role.tag}
        own = np.isin(main.roles, [int(role) for role in written])
        assert (
            main.loss_mask[own].all() and not main.loss_mask[main.roles == int(Role.response)].any()
        )
        assert len(readings) == rollout.executed
        assert all(r.loss_mask.all() and len(r.prompt_images) == 16 for r in readings)


def test_a_mistake_is_refused_and_then_mended(tmp_path: Path) -> None:
    folder = build_mini(
        tmp_path / "mini", ["red"], MiniConfig(32, 1, 2, 32, 32, 1, 2, 32, vocabulary=280)
    )
    vlm = VisionLanguageModel.load(folder)
    env = LongVideoVectorEnv(
        4,
        tasks="synthetic",
        split="val",
        tasks_kwargs={"videos": 1, "root": str(tmp_path)},
        frame_size=(64, 64),
        frame_budget=32,
    )
    trace = TraceConfig(call=1.0, direct=0.0, single=0.0, mistake=1.0)
    agent = TraceAgent(vlm, AgentConfig(prompt_style="compact"), Limits(), env.task_of, trace)
    ids = [i for i in env.simulation.tasks.ids if env.simulation.tasks.by_id(i).family == "flash"]
    for rollout in play(env, agent, [Start(task_id=i, seed=0) for i in ids[:1] * 4]):
        first, second, *_ = rollout.turns
        assert first["crops"][0]["status"] in {"reversed", "too_long"}
        assert second["crops"][0]["status"] == "ok"
    env.close()
