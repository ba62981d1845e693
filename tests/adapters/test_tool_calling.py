"""Episodes of models that call tools natively, and TRL's environment without TRL."""

import asyncio

import numpy as np
import pytest
from support.builders import SIZE, ListTasks, make_task

from paravt_env.env import LongVideoEnv
from paravt_env.protocol import action_from_completion
from paravt_env.protocol.parts import FrameRef
from paravt_env.rewards.terms.base import ScorerError
from train.adapters.tool_calling import SILENCE, ToolCallingGame, turn_text
from train.adapters.trl import OVER, TRLGame, filled

SMALL = {"frame_size": SIZE, "max_crops": 2, "frames_per_crop": 2, "frame_budget": 3}
START = {"task_id": "colour", "frame_budget": 3, "seed": 5}


@pytest.fixture
def game(tasks):
    game = TRLGame(tasks, **SMALL)
    yield game
    game.close()


def call(start, end, **more):
    arguments = {"start_time": start, "end_time": end, **more}
    return {"type": "function", "function": {"name": "crop_video", "arguments": arguments}}


def said(content="", calls=(), thought=""):
    message = {"role": "assistant", "content": content}
    if thought:
        message["reasoning_content"] = thought
    return message | ({"tool_calls": list(calls)} if calls else {})


THOUGHT = "one look at the middle"
LOOKED = [
    said(thought=THOUGHT, calls=[call(10, 14), call(15, 18)]),
    {"role": "tool", "name": "crop_video", "content": "frames"},
    {"role": "tool", "name": "crop_video", "content": "frames"},
    said("<answer>B</answer>", thought="it was the blue one"),
]


def gather(environment, *windows):
    async def turn():
        return await asyncio.gather(*(environment.crop_video(a, b) for a, b in windows))

    return asyncio.run(turn())


def texts_of(blocks):
    return "".join(block.get("text", "") for block in blocks)


def pictures_of(blocks):
    return [block["image"] for block in blocks if block["type"] == "image"]


def test_the_calls_of_one_turn_are_one_step(game, monkeypatch):
    environment = game.environment()
    environment.reset(**START, prompt=[])
    steps = []
    step = game.simulation.step
    monkeypatch.setattr(game.simulation, "step", lambda *a: steps.append(a) or step(*a))
    first, second = gather(environment, (10, 14), (15, 18))
    assert len(steps) == 1
    assert len(pictures_of(first)) == len(pictures_of(second)) == 2
    assert "10.0-14.0 s" in texts_of(first) and "15.0-18.0 s" in texts_of(second)
    assert "tool_response" not in texts_of(first + second)
    gather(environment, (20, 22))
    assert len(steps) == 2


def test_a_bad_call_says_what_is_wrong_and_its_neighbour_runs(game):
    environment = game.environment()
    environment.reset(**START)
    bad, good, over = gather(environment, (9, 3), (1, 2), (3, 4))
    assert "reversed" in texts_of(bad) and not pictures_of(bad)
    assert pictures_of(good)
    assert "over_limit" in texts_of(over) and "reversed" not in texts_of(over)


def test_the_last_calling_turn_asks_for_the_answer_and_later_calls_are_told(tasks):
    game = TRLGame(tasks, max_turns=1, **SMALL)
    environment = game.environment()
    environment.reset(**START)
    first, last = gather(environment, (1, 2), (3, 4))
    assert "final answer" in texts_of(last) and "final answer" not in texts_of(first)
    (refused,) = gather(environment, (5, 6))
    assert "refused" in texts_of(refused)
    assert texts_of(gather(environment, (5, 6))[0]) == OVER
    game.close()


def test_what_a_group_is_shown_is_the_environments_own_overview(game):
    one, other = game.environment(), game.environment()
    blocks, again = one.reset(**START, prompt="x"), other.reset(**START, prompt="y")
    env = LongVideoEnv(game.simulation.tasks, **SMALL)
    observation, _ = env.reset(seed=5, options={"task_id": "colour", "frame_budget": 3})
    shown = [np.asarray(picture) for picture in pictures_of(blocks)]
    assert np.array_equal(shown, observation["frames"][observation["window"] == 0])
    assert texts_of(blocks) == texts_of(again) and "Which colour?" in texts_of(blocks)
    env.close()


def text_reward(tasks, texts):
    """What `LongVideoEnv` pays for these completions."""
    env = LongVideoEnv(tasks, **SMALL)
    env.reset(seed=5, options={"task_id": "colour", "frame_budget": 3})
    for text in texts:
        *_, info = env.step(action_from_completion(text, 2))
    env.close()
    return info["reward_terms"]


def test_rewards_are_those_of_the_environment_for_the_same_texts(game, tasks):
    environment = game.environment()
    environment.reset(**START)
    gather(environment, (10, 14), (15, 18))
    assert [f.__name__ for f in game.reward_funcs] == ["answer", "format_anchor", "tool_gain"]
    assert game.config == {"reward_weights": [1.0, 1.0, 1.0], "max_tool_calling_iterations": 3}
    values = [f(completions=[LOOKED], environments=[environment])[0] for f in game.reward_funcs]
    texts = [turn_text(LOOKED[0]), turn_text(LOOKED[3])]
    expected = text_reward(tasks, texts)
    assert values == [expected[name] for name in game.weights]
    assert values[0] == 1.0 and values[1] == 1.0


def test_every_batch_is_scored_once_and_anew(game, monkeypatch):
    environment = game.environment()
    scored = []
    score = game.score
    monkeypatch.setattr(game, "score", lambda *a: scored.append(a) or score(*a))
    for completion, answer in ((LOOKED, 1.0), ([said("<answer>A</answer>")], 0.0)):
        environment.reset(**START)
        completions = [completion]
        for function in game.reward_funcs:
            value = function(completions=completions, environments=[environment])
            if function.__name__ == "answer":
                assert value == [answer]
    assert len(scored) == 2


@pytest.mark.parametrize(
    ("chat", "stop_reason", "answer"),
    [
        ([said("<answer>B</answer>")], "answered", 1.0),
        ([said("B")], "unanswered", 0.0),
        ([], "unanswered", 0.0),
        ([said(calls=[call(1, 2)])], "unanswered", 0.0),
        ([said(thought="on and on")], "unanswered", 0.0),
        ([said(calls=[call(1, 2)]), said(content=None)], "unanswered", 0.0),
        ([{"role": "assistant", "content": [{"type": "text", "text": "<answer>B</answer>"}]}],
         "answered", 1.0),
        ([said(calls=[{"function": "x"}, {}]), said("<answer>B</answer>")], "answered", 1.0),
        ([said(calls=[call(1, 2)])] * 9, "unanswered", 0.0),
    ],
)  # fmt: skip
def test_how_rollouts_end(game, chat, stop_reason, answer):
    (played,) = game.score([game.start(**START)], [chat])
    assert (played.stop_reason, played.terms["answer"], played.error) == (stop_reason, answer, "")


def test_a_thought_that_is_never_closed_earns_less_than_one_that_is(game):
    start = game.start(**START)
    thought = "a thought of some length"
    forms = [
        game.score([start], [[said(thought=thought, content=content)]])[0].terms["format_anchor"]
        for content in ("", "B", "<answer>B</answer>")
    ]
    assert forms[0] < forms[1] < forms[2]
    assert turn_text(said()) == SILENCE


def test_a_video_that_cannot_be_read_is_told_and_moves_no_advantage(clip):
    broken = make_task("/nowhere.mp4", "broken")
    game = TRLGame(ListTasks([make_task(clip), broken]), **SMALL)
    environments = [game.environment(), game.environment()]
    blocks = environments[0].reset(task_id="broken", frame_budget=3, seed=5)
    environments[1].reset(**START)
    assert texts_of(blocks) == "The video cannot be read."
    assert "cannot be read" in texts_of(gather(environments[0], (1, 2))[0])
    metrics = {}
    values = game.reward_funcs[0](
        completions=[[said("<answer>B</answer>")]] * 2,
        environments=environments,
        log_metric=lambda name, value: metrics.update({name: value}),
    )
    assert values == [0.0, 1.0]
    assert metrics == {"paravt/crops_taken_back": 0.0, "paravt/unscored": 0.5}
    game.close()


def test_a_judge_that_fails_gives_the_mean_of_its_group_and_never_nan(tasks):
    def scorer(task, answer):
        if answer == "C":
            raise ScorerError("no verdict")
        return float(answer == "B")

    game = TRLGame(tasks, scorer=scorer, **SMALL)
    environments = [game.environment() for _ in range(3)]
    for environment in environments:
        environment.reset(**START)
    completions = [[said(f"<answer>{letter}</answer>")] for letter in "BCA"]
    for function in game.reward_funcs:
        values = function(completions=completions, environments=environments)
        assert np.isfinite(values).all()
        if function.__name__ == "answer":
            assert values == [1.0, 0.5, 0.0]
    assert filled([None, None], [1, 1]) == [0.0, 0.0]
    game.close()


def test_a_result_that_was_taken_back_is_warned_of_once(game):
    environment = game.environment()
    environment.reset(**START)
    gather(environment, (1, 2))
    metrics = {}
    completions = [[said(calls=[call(1, 2)])]]
    log = {"log_metric": lambda name, value: metrics.update({name: value})}
    with pytest.warns(UserWarning, match="max_completion_length") as warned:
        for function in game.reward_funcs:
            function(completions=completions, environments=[environment], **log)
        game.reward_funcs[0](completions=[*completions], environments=[environment], **log)
    assert len(warned) == 1
    assert metrics["paravt/crops_taken_back"] == 1.0


def test_a_call_that_was_never_played_is_no_loss(game, recwarn):
    environment = game.environment()
    environment.reset(**START)
    game.reward_funcs[0](completions=[[said(calls=[call(1, 2)])]], environments=[environment])
    assert not recwarn.list


def test_a_style_that_lists_the_tool_is_refused(tasks):
    with pytest.raises(ValueError, match="lists the tool"):
        ToolCallingGame(tasks, "paravt")


def test_without_calling_turns_the_question_asks_for_the_answer(tasks):
    game = ToolCallingGame(tasks, max_turns=0, **SMALL)
    episode = game.begin(game.start(**START))
    parts = game.opening(game.see(episode))
    assert "final answer" in parts[-1]
    assert sum(isinstance(part, FrameRef) for part in parts) == 3
    game.close()
