from __future__ import annotations

import copy
import json
import math
import pickle
import threading

import numpy as np
import pytest
from support.builders import ListTasks, act, make_task, same
from support.endless import ends
from support.videos import read_index, truncate, write_audio

from paravt_env.crop import CROP_STATUSES, CropStatus
from paravt_env.episode.episode import StopReason
from paravt_env.protocol import action_from_completion, render_completion
from paravt_env.spaces import batch_actions
from paravt_env.video.store.store import BACKENDS
from paravt_env.video.types import VideoError

TALK = render_completion("I cannot tell yet.")


def call(arguments: str, name: str = "crop_video") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


def play(env, *texts, **options):
    """Reset, step through completions; the last step's result."""
    env.reset(seed=0, options=options)
    for text in texts:
        result = env.step(action_from_completion(text, 3))
    return result


# --- observations ---------------------------------------------------------------------------------


def test_overview_shows_the_midpoints_of_k_equal_parts(make_env):
    env = make_env()
    observation, info = env.reset(seed=0, options={"task_id": "colour", "frame_budget": 4})
    assert observation["window"].tolist() == [0, 0, 0, 0] + [-1] * 8
    assert observation["timestamps"].tolist() == [3.75, 11.25, 18.75, 26.25] + [0] * 8
    assert [read_index(frame) for frame in observation["frames"][:4]] == [15, 45, 75, 105]
    assert not observation["frames"][4:].any()
    assert observation["question"] == "Which colour?\nA. red\nB. blue\nC. green"
    video = {key: value.item() for key, value in observation["video"].items()}
    assert video == {"duration": 30.0, "fps": 4.0, "width": 128, "height": 64}
    assert (observation["turn"], observation["must_answer"], observation["feedback"]) == (0, 0, "")
    assert observation in env.observation_space
    assert info == {
        "task_id": "colour",
        "frame_budget": 4,
        "crops": [],
        "frames_seen": 4,
        "slow_frames": 0,
        "turn": 0,
    }


@pytest.mark.parametrize("k", [0, 1, 3, 12])
def test_defect_01_k_frames_asked_is_k_frames_seen(make_env, k):
    observation, info = make_env().reset(seed=0, options={"frame_budget": k})
    assert info["frame_budget"] == info["frames_seen"] == k
    assert np.count_nonzero(observation["window"] == 0) == k


def test_crop_frames_are_tagged_with_their_call(make_env):
    env = make_env()
    env.reset(seed=0, options={"task_id": "colour"})
    observation, reward, terminated, truncated, info = env.step(act((6.0, 8.0), (20.0, 23.0)))
    assert observation["window"].tolist() == [1, 1, 2, 2, 2] + [-1] * 7
    assert observation["timestamps"][:5].tolist() == [6.5, 7.5, 20.5, 21.5, 22.5]
    assert [read_index(frame) for frame in observation["frames"][:5]] == [26, 30, 82, 86, 90]
    assert observation["crop_status"].tolist() == [1, 1, 0]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["frames_seen"] == 9 and info["turn"] == observation["turn"] == 1
    assert [crop["window"] for crop in info["crops"]] == [(6.0, 8.0), (20.0, 23.0)]
    assert [crop["frames"] for crop in info["crops"]] == [2, 3]
    assert info["crops"][0]["timestamps"] == [6.5, 7.5]
    assert "stop_reason" not in info


def test_frames_per_crop_and_crop_fps_set_the_number_of_frames(make_env):
    env = make_env(crop_fps=2.0, frames_per_crop=4)
    env.reset(seed=0)
    info = env.step(act((0, 1), (0, 20), (0, 0.1)))[-1]
    assert [crop["frames"] for crop in info["crops"]] == [2, 4, 1]


BAD_WINDOWS = [
    ((5.0, 5.0), CropStatus.empty),
    ((9.0, 5.0), CropStatus.reversed),
    ((math.nan, 5.0), CropStatus.not_finite),
    ((0.0, math.inf), CropStatus.not_finite),
    ((30.0, 31.0), CropStatus.outside),
    ((-9.0, 0.0), CropStatus.outside),
    ((0.0, 20.5), CropStatus.too_long),
]


@pytest.mark.parametrize(("window", "status"), BAD_WINDOWS)
def test_bad_window_has_its_status_and_its_neighbours_run(make_env, window, status):
    env = make_env(max_crop_seconds=20.0)
    env.reset(seed=0)
    observation, *_, info = env.step(act((1, 2), window, (3, 4)))
    assert [crop["status"] for crop in info["crops"]] == ["ok", status, "ok"]
    assert observation["crop_status"].tolist() == [1, 1 + CROP_STATUSES.index(status), 1]
    assert observation["window"][:3].tolist() == [1, 3, -1]
    assert observation["feedback"].startswith(f"call 2: {status}: ")
    assert "\n" not in observation["feedback"]
    assert info["crops"][1]["frames"] == 0 and info["crops"][1]["clipped"] is None


def test_window_is_clamped_to_the_video_and_reported_as_asked(make_env):
    env = make_env()
    env.reset(seed=0)
    crop = env.step(act((-3, 2)))[-1]["crops"][0]
    assert (crop["window"], crop["clipped"], crop["status"]) == ((-3.0, 2.0), (0.0, 2.0), "ok")


def test_too_long_names_the_limit(make_env):
    env = make_env(max_crop_seconds=12.5)
    env.reset(seed=0)
    assert "limit is 12.5 s" in env.step(act((0, 13)))[0]["feedback"]
    assert env.step(act((0, 12.5)))[-1]["crops"][0]["status"] == "ok"


# --- completions ----------------------------------------------------------------------------------


def test_defect_09_one_malformed_call_leaves_its_neighbours_alone(make_env):
    text = (
        call('{"start_time": 1, "end_time": 2}')
        + call("oops")
        + call('{"start_time": 3, "end_time": 5}')
    )
    observation, *_, info = play(make_env(), "<think>\nlook</think>" + text)
    assert [crop["status"] for crop in info["crops"]] == ["ok", "malformed", "ok"]
    assert all(map(math.isnan, info["crops"][1]["window"]))
    assert observation["window"][:4].tolist() == [1, 3, 3, -1]


def test_an_unknown_tool_is_refused_and_a_path_is_ignored(make_env):
    text = (
        call('{"start_time": 1, "end_time": 2}', name="zoom")
        + call('{"start_time": 1, "end_time": 2, "video_path": "/etc/passwd"}')
        + call('{"start_time": 1, "end_time": 2, "video_path": "clip.mp4"}')
    )
    info = play(make_env(), text, task_id="colour")[-1]
    assert [crop["status"] for crop in info["crops"]] == ["unknown_tool", "ok", "ok"]


def test_calls_past_the_limit_are_refused_and_counted(make_env):
    text = "".join(call(f'{{"start_time": {i}, "end_time": {i + 1}}}') for i in range(6))
    observation, *_, info = play(make_env(), text)
    assert [crop["status"] for crop in info["crops"]] == ["ok"] * 3 + ["over_limit"] * 3
    assert info["crops"][5]["window"] == (5.0, 6.0)
    assert observation["feedback"] == "3 more: over_limit: a turn takes 3 calls at most"


def test_ten_thousand_calls_are_bounded(make_env):
    text = call('{"start_time": 1, "end_time": 2}') * 10_000
    with ends():
        observation, *_, info = play(make_env(), text)
    assert sum(crop["status"] == "ok" for crop in info["crops"]) == 3
    assert len(observation["feedback"]) < 200


def test_defect_05_a_failed_call_reaches_the_next_observation(make_env):
    observation, *_ = play(make_env(), call("oops") + call('{"start_time": 9, "end_time": 3}'))
    first, second = observation["feedback"].split("\n")
    assert first.startswith("call 1: malformed: ") and second.startswith("call 2: reversed: ")


def test_defect_18_25_failed_calls_are_listed_and_earn_less_than_those_that_ran(make_env):
    ran = play(
        make_env(), call('{"start_time": 1, "end_time": 2}'), "<answer>B</answer>", task_id="colour"
    )
    failed = play(
        make_env(), call('{"start_time": 2, "end_time": 1}'), "<answer>B</answer>", task_id="colour"
    )
    assert failed[-1]["reward_terms"]["tool_gain"] < ran[-1]["reward_terms"]["tool_gain"]
    env = make_env()
    info = play(env, call('{"start_time": 2, "end_time": 1}'))[-1]
    assert len(info["crops"]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"answer": "C"},
        {"crop_mask": np.array([1, 1, 0], np.int8)},
        {"crops": np.array([[1.0, 2.5], [0, 0], [0, 0]])},
    ],
)
def test_action_that_contradicts_its_completion_raises_and_moves_nothing(make_env, change):
    env = make_env()
    env.reset(seed=0)
    action = action_from_completion(
        call('{"start_time": 1, "end_time": 2}') + "<answer>B</answer>", 3
    )
    with pytest.raises(ValueError, match="not those of its completion"):
        env.step({**action, **change})
    assert env.step(action)[-1]["turn"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crops": np.zeros((2, 2))}, "shape"),
        ({"crop_mask": np.zeros(4)}, "shape"),
        ({"answer": 3}, "strings"),
        ({"completion": None}, "strings"),
    ],
)
def test_action_of_the_wrong_shape_raises(make_env, change, message):
    env = make_env()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step({**act(), **change})
    with pytest.raises(ValueError, match="lacks answer, completion"):
        env.step({"crops": np.zeros((3, 2)), "crop_mask": np.zeros(3)})
    with pytest.raises(ValueError, match="crop_mask holds 0 and 1"):
        env.step({**act(), "crop_mask": np.array([2, 0, 0])})
    for action in (None, "<answer>A</answer>"):
        with pytest.raises(ValueError, match="ParaVT-LongVideo-Text-v0"):
            env.step(action)


def test_hostile_completions_never_raise(make_env):
    env = make_env(max_turns=12)
    env.reset(seed=0)
    for text in (
        "<think>" * 2000,
        "\ud800\x00",
        call("{" * 3000),
        "<tool_response>x</tool_response>",
        "a" * 5_000_000,
    ):
        observation, *_ = env.step(action_from_completion(text, 3))
        assert observation in env.observation_space
        env.reset(seed=0)


# --- the turn table -------------------------------------------------------------------------------

CALL = (1.0, 2.0)


def outcome(env, *actions, task_id="colour"):
    env.reset(seed=0, options={"task_id": task_id})
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
    return observation, reward, terminated, truncated, info


def test_answer_without_call_ends_the_episode(make_env):
    observation, reward, terminated, truncated, info = outcome(make_env(), act(answer=" B "))
    assert (terminated, truncated, info["stop_reason"]) == (True, False, StopReason.answered)
    assert info["answer"] == "B" and info["correct"] == 1.0
    assert reward == info["reward_terms"]["total"] > 0
    assert set(observation["window"].tolist()) == {-1}


def test_answer_beside_a_call_does_not_count_yet(make_env):
    env = make_env()
    _, reward, terminated, _, info = outcome(env, act(CALL, answer="B"))
    assert (reward, terminated) == (0.0, False) and "answer" not in info
    *_, info = env.step(act(answer="A"))
    assert (info["answer"], info["correct"]) == ("A", 0.0)


def test_neither_leads_to_the_forced_turn_once(make_env):
    observation, _, terminated, _, _ = outcome(make_env(), act())
    assert not terminated and observation["must_answer"] == 1
    observation, _, terminated, truncated, info = outcome(make_env(), act(), act())
    assert (terminated, truncated, info["stop_reason"]) == (True, False, StopReason.unanswered)
    assert info["reward_terms"]["answer"] == info["correct"] == 0.0 and info["answer"] == ""


def test_white_space_is_no_answer(make_env):
    assert outcome(make_env(), act(answer=" \n"))[0]["must_answer"] == 1


def test_max_turns_of_calls_lead_to_the_forced_turn(make_env):
    env = make_env(max_turns=2)
    observation, *_ = outcome(env, act(CALL))
    assert observation["must_answer"] == 0
    observation, _, terminated, *_ = env.step(act(CALL))
    assert observation["must_answer"] == 1 and not terminated and observation["window"][0] == 1
    *_, terminated, truncated, info = env.step(act(answer="B"))
    assert (terminated, truncated, info["stop_reason"], info["turn"]) == (
        True,
        False,
        "answered",
        3,
    )


def test_forced_turn_refuses_crops_and_takes_the_answer_beside_them(make_env):
    observation, _, terminated, _, info = outcome(make_env(), act(), act(CALL, answer="B"))
    assert terminated and info["stop_reason"] == StopReason.answered and info["answer"] == "B"
    assert [crop["status"] for crop in info["crops"]] == ["refused"]
    assert observation["crop_status"][0] == 1 + CROP_STATUSES.index(CropStatus.refused)
    assert info["frames_seen"] == 4
    *_, info = outcome(make_env(), act(), act(CALL))
    assert info["stop_reason"] == StopReason.unanswered


def test_malformed_call_is_a_turn_with_calls(make_env):
    env = make_env()
    observation, *_ = play(env, call("oops") + "<answer>B</answer>")
    assert observation["must_answer"] == 0 and observation["turn"] == 1


def test_without_forced_turn_silence_terminates_and_the_limit_truncates(make_env):
    env = make_env(force_answer=False, max_turns=2)
    *_, terminated, truncated, info = outcome(env, act())
    assert (terminated, truncated, info["stop_reason"]) == (True, False, StopReason.unanswered)
    _, reward, terminated, truncated, info = outcome(env, act(CALL), act(CALL, answer="B"))
    assert (terminated, truncated, info["stop_reason"]) == (False, True, StopReason.turn_limit)
    assert (
        info["answer"] == "" and info["correct"] == 0.0 and reward == info["reward_terms"]["total"]
    )
    *_, terminated, truncated, info = outcome(env, act(CALL), act(answer="B"))
    assert (terminated, truncated, info["stop_reason"]) == (True, False, StopReason.answered)


def test_no_calling_turn_asks_at_once(make_env):
    env = make_env(max_turns=0)
    observation, _ = env.reset(seed=0)
    assert observation["must_answer"] == 1
    *_, info = env.step(act(CALL, answer="B"))
    assert info["crops"][0]["status"] == "refused" and info["stop_reason"] == "answered"


def test_step_before_reset_and_after_the_end_raise(make_env):
    env = make_env()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(act())
    outcome(env, act(answer="B"))
    with pytest.raises(RuntimeError, match="over"):
        env.step(act(answer="B"))


def test_text_without_tags_is_neither(make_env):
    assert play(make_env(), TALK)[0]["must_answer"] == 1


# --- evidence -------------------------------------------------------------------------------------


def test_evidence_recall_counts_the_executed_union(make_env):
    windows = act((8, 12), (11, 13), (15, 90))
    *_, info = outcome(
        make_env(max_crop_seconds=20), windows, act((13, 14), (14, 3)), act(answer="B")
    )
    assert info["evidence_recall"] == pytest.approx((3 + 5 + 1) / 10)
    *_, info = outcome(make_env(), act(answer="Ada"), task_id="name")
    assert "evidence_recall" not in info


def test_the_end_reports_compliance_and_an_injected_scorer_supplies_the_answer_term(make_env):
    good = "<think>\nThe sign was blue.</think><answer>B</answer>"
    assert play(make_env(), good, task_id="colour")[-1]["compliant"] is True
    assert outcome(make_env(), act(answer="B"))[-1]["compliant"] is False
    *_, info = outcome(make_env(scorer=lambda *_: 0.5), act(answer="Ada"), task_id="name")
    assert info["correct"] == info["reward_terms"]["answer"] == 0.5


# --- seeds, options, settings ---------------------------------------------------------------------


def test_same_seed_same_start_and_the_generator_goes_on(make_env):
    env, twin = make_env(frame_budget=None), make_env(frame_budget=None)
    first = [env.reset(seed=11), env.reset(), env.reset()]
    assert same(first, [twin.reset(seed=11), twin.reset(), twin.reset()])
    starts = {(env.reset()[1]["task_id"], env.reset()[1]["frame_budget"]) for _ in range(60)}
    assert {task for task, _ in starts} == {"colour", "time", "shape", "name"}
    assert {k for _, k in starts} == {4, 8, 16, 32, 64}


def test_defect_02_k_is_drawn_for_each_prompt_not_for_each_video(make_env):
    env = make_env(frame_budget=None)
    env.reset(seed=0)
    assert (
        len({env.reset(options={"task_id": "colour"})[1]["frame_budget"] for _ in range(30)}) == 5
    )


def test_options_fix_the_start_and_do_not_shift_the_generator(make_env):
    env, twin = make_env(frame_budget=None), make_env(frame_budget=None)
    info = env.reset(seed=5, options={"task_id": "shape", "frame_budget": 7})[1]
    assert (info["task_id"], info["frame_budget"]) == ("shape", 7)
    twin.reset(seed=5)
    assert same(env.reset(), twin.reset())


def test_defect_03_a_second_question_on_the_same_video_is_its_own(make_env):
    env = make_env()
    first = env.reset(options={"task_id": "colour"})[0]
    second = env.reset(options={"task_id": "time"})[0]
    assert first["question"].startswith("Which colour?") and second["question"] == "When?"
    np.testing.assert_array_equal(first["frames"], second["frames"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taskid": "colour"}, "did you mean 'task_id'"),
        ({"task_id": "color"}, "no task 'color'"),
        ({"frame_budget": 13}, "from 0 to 12"),
        ({"frame_budget": -1}, "from 0 to 12"),
        ({"frame_budget": "4"}, "whole number"),
        ({"frame_budget": 2.0}, "whole number"),
        ({"reset_mask": np.ones(1, bool)}, "is not one of task_id, frame_budget"),
    ],
)
def test_bad_option_says_what_to_do(make_env, options, message):
    with pytest.raises(ValueError, match=message):
        make_env().reset(options=options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_crop": 2}, "did you mean 'max_crops'"),
        ({"max_crops": 0}, "max_crops must be at least 1"),
        ({"max_crops": 2.0}, "whole number"),
        ({"max_turns": -1}, "max_turns must be at least 0"),
        ({"max_turns": 0, "force_answer": False}, "no turn at all"),
        ({"frame_size": 64}, "height, width"),
        ({"frame_size": (64, 0)}, "frame_size must be at least 1"),
        ({"crop_fps": 0}, "more than 0"),
        ({"crop_timeout": math.inf}, "finite"),
        ({"max_crop_seconds": "45"}, "must be a number"),
        ({"frame_budget": {"kind": "fix"}}, "did you mean 'fixed'"),
        ({"render_mode": "rgb"}, "rgb_array"),
        ({"tasks_kwargs": {"videos": 2}}, "given by name"),
        ({"tasks": "sinthetic"}, "did you mean 'synthetic'"),
        ({"tasks": ListTasks([])}, "holds no task"),
        ({"reward": "parvat"}, "paravt"),
        ({"backend": "avpy"}, "pyav"),
        ({"force_answer": "no"}, "force_answer must be True or False"),
        ({"tasks": 3}, "tasks must be the name of a task set"),
        ({"tasks": "synthetic", "tasks_kwargs": [1]}, "must map argument names to values"),
        ({"tasks": "synthetic", "tasks_kwargs": {3: 4}}, "must map argument names to values"),
    ],
)
def test_bad_setting_says_what_to_do(make_env, settings, message):
    with pytest.raises(ValueError, match=message):
        make_env(**settings)


# --- bad files ------------------------------------------------------------------------------------


def bad_file(kind, clip, folder):
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a video\n" * 100)
    elif kind == "truncated":
        truncate(clip, path, 0.5)
    elif kind == "audio":
        write_audio(path)
    elif kind == "folder":
        path.mkdir()
    return str(path)


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "audio", "folder"])
def test_defect_20_a_video_that_cannot_be_read_raises_instead_of_evaluating_blind(
    make_env, clip, tmp_path, kind
):
    from pathlib import Path

    path = bad_file(kind, Path(clip), tmp_path)
    env = make_env(tasks=ListTasks([make_task(path, "broken"), make_task(clip, "fine")]))
    with pytest.raises(VideoError, match=f"task 'broken': .*{kind}") as caught:
        env.reset(options={"task_id": "broken"})
    assert (caught.value.task_id, caught.value.path) == ("broken", path) and caught.value.reason
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason
    with pytest.raises(RuntimeError, match="reset"):
        env.step(act(answer="B"))
    assert env.reset(options={"task_id": "fine"})[1]["frames_seen"] == 4


class HungReader:
    """A back end whose files never open."""

    release = threading.Event()

    def __init__(self, path: str) -> None:
        self.release.wait(60)
        raise RuntimeError("released")


def test_a_file_that_hangs_fails_at_the_deadline(make_env, monkeypatch):
    monkeypatch.setitem(BACKENDS, "hung", f"{__name__}:HungReader")
    env = make_env(reset_timeout=0.2, backend="hung")
    with pytest.raises(VideoError, match=r"longer than 0.2 s"):
        env.reset(seed=0)
    HungReader.release.set()


# --- life cycle -----------------------------------------------------------------------------------


def test_pickle_and_deepcopy_continue_the_episode_with_a_decoder_of_their_own(make_env):
    env = make_env()
    env.reset(seed=0)
    env.step(act((1, 2)))
    copies = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    assert env.simulation.video.started
    assert not any(one.simulation.video.started for one in copies)
    expected = env.step(act((3, 4)))
    for one in copies:
        assert same(one.step(act((3, 4))), expected)
        one.close()
    assert same([one.reset() for one in copies], [env.reset()] * 2)


def test_close_ends_the_threads_and_may_be_called_twice(make_env):
    before = set(threading.enumerate())
    env = make_env()
    env.close()
    env.reset(seed=0)
    started = set(threading.enumerate()) - before
    assert started
    env.close()
    env.close()
    for thread in started:
        thread.join(5)
    assert not any(thread.is_alive() for thread in started)


def test_returned_frames_are_copies(make_env):
    env = make_env()
    observation, _ = env.reset(seed=0)
    kept = observation["frames"].copy()
    observation["frames"][:] = 7
    np.testing.assert_array_equal(env.reset(seed=0)[0]["frames"], kept)


def test_info_is_json(make_env):
    *_, info = outcome(make_env(), act(CALL, (5, 2)), act(answer="B"))
    assert json.loads(json.dumps(info))["stop_reason"] == "answered"


def test_transcript_holds_what_was_said_and_run(make_env):
    env = make_env()
    play(
        env, call('{"start_time": 1, "end_time": 2}'), "<think>\nB it is</think><answer>B</answer>"
    )
    transcript = env.unwrapped.transcript
    assert [len(turn.crops) for turn in transcript.turns] == [1, 0]
    assert transcript.turns[1].parsed.answer == transcript.answer == "B"
    assert transcript.stop_reason == "answered" and transcript.task is env.task


# --- rendering ------------------------------------------------------------------------------------


def test_rgb_array_is_a_contact_sheet_of_one_size(make_env):
    env = make_env(render_mode="rgb_array")
    env.reset(seed=0, options={"task_id": "colour"})
    sheet = env.render()
    assert sheet.dtype == np.uint8 and sheet.shape == (
        3 * 36,
        4 * 68,
        3,
    )  # 12 tiles of 32 x 64 with a border of 2
    assert sheet[0, 0].tolist() == [90, 90, 90] and sheet[36, 0].tolist() == [0, 0, 0]
    env.step(act((1, 2)))
    assert env.render().shape == sheet.shape and env.render()[0, 0].tolist() == [230, 120, 30]


def test_ansi_tells_what_happened(make_env):
    env = make_env(render_mode="ansi")
    env.reset(seed=0, options={"task_id": "colour"})
    assert "overview: 4 frames, 0:03.8 to 0:26.2" in env.render()
    env.step(act((6, 8), (9, 2)))
    text = env.render()
    assert "call 1: 2 frames, 0:06.5 to 0:07.5" in text and "call 2: reversed" in text


def test_no_render_mode_renders_nothing(make_env):
    env = make_env()
    env.reset(seed=0)
    assert env.render() is None


def test_open_questions_that_nobody_would_judge_are_refused_when_the_environment_is_made(make_env):
    said = r"1 of 4 tasks are open, 'name' for one.*\"judge\".*open_metric=\"f1\""
    with pytest.raises(ValueError, match=said):
        make_env(reward="longvt")
    for remedy in (
        {"reward": "longvt", "scorer": lambda task, answer: 1.0},
        {"reward": {"preset": "longvt", "open_metric": "f1"}},
    ):
        *_, info = outcome(make_env(**remedy), act(answer="Ada"), task_id="name")
        assert info["correct"] == 1.0


def test_a_scorer_that_raises_costs_its_own_row_alone(make_vector):
    def scorer(task, answer):
        return {"B": 0.5}[answer]

    vector = make_vector(2, scorer=scorer)
    vector.reset(seed=0, options={"task_id": "colour"})
    actions = batch_actions([act(answer="B"), act(answer="Q")], 3)
    _, rewards, terminated, _, infos = vector.step(actions)
    assert terminated.all() and infos["correct"][0] == 0.5 and rewards[0] > 0 == rewards[1]
    assert infos["stop_reason"].tolist() == ["answered", "judge_error"]
    assert infos["error"][1] == "task 'colour': the scorer raised KeyError: 'Q'"
