"""Recordings: what a folder holds, that it can be read anywhere, and `paravt replay`."""

from __future__ import annotations

import base64
import json
import shutil
import sys
import zlib

import av
import gymnasium as gym
import numpy as np
import pytest
from support.builders import ListTasks, act, make_task

from paravt_env.common.images import data_uri, encode_jpeg, encode_png
from paravt_env.protocol import render_completion
from paravt_env.show.recording import RecordingError, load_episodes
from paravt_env.spaces import batch_actions
from paravt_env.video.types import VideoError
from paravt_env.wrappers import (
    ArrayAction,
    ArrayObservation,
    CompletionAction,
    RecordEpisodes,
    RecordRewardTerms,
    VectorCompletionAction,
    VectorRecordEpisodes,
    VectorRecordRewardTerms,
)
from train import cli

HOSTILE = "</pre><script>alert(1)</script>\x1b[31m\ud800"


def decode(path_or_bytes):
    """A picture file as a uint8 (H, W, 3) array."""
    with av.open(path_or_bytes) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "recording"


# --- pictures -------------------------------------------------------------------------------------


def test_png_is_lossless_and_jpeg_is_close(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(image))
    rest = encode_png(image)[8:]
    while rest:  # each chunk: length, name, data, check sum of name and data
        end = 8 + int.from_bytes(rest[:4])
        assert int.from_bytes(rest[end : end + 4]) == zlib.crc32(rest[4:end])
        rest = rest[end + 4 :]
    np.testing.assert_array_equal(decode(str(tmp_path / "a.png")), image)
    smooth = np.full((9, 6, 3), 90, np.uint8)
    (tmp_path / "a.jpeg").write_bytes(encode_jpeg(smooth))
    back = decode(str(tmp_path / "a.jpeg"))
    assert back.shape == (8, 6, 3) and abs(back.astype(int) - 90).max() < 6
    head, _, data = data_uri(image, "png").partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(data) == encode_png(image)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="an image is uint8"):
        encode_png(image)
    with pytest.raises(ValueError, match="two pixels"):
        encode_jpeg(np.zeros((1, 4, 3), np.uint8))


# --- what is written ------------------------------------------------------------------------------


def test_an_episode_is_recorded_as_it_was_seen_and_played(make_env, folder):
    env = RecordEpisodes(make_env(), str(folder))
    first, _ = env.reset(seed=0, options={"task_id": "colour"})
    second, *_ = env.step(act((1, 3), (9, 2)))
    *_, info = env.step(act(answer="B"))
    (episode,) = load_episodes(folder)
    assert (episode["version"], episode["episode"], episode["row"]) == (1, 0, 0)
    assert episode["finished"] and episode["frame_budget"] == 4 and episode["frames_seen"] == 6
    assert episode["task"]["question"] == "Which colour?\nA. red\nB. blue\nC. green"
    assert episode["task"]["answer"] == "B" and episode["task"]["evidence"] == [[10.0, 20.0]]
    assert episode["video"] == {
        "name": "clip.mp4",
        "duration": 30.0,
        "fps": 4.0,
        "width": 128,
        "height": 64,
    }
    look, reply, end = episode["turns"]
    assert [frame["time"] for frame in look["frames"]] == [3.75, 11.25, 18.75, 26.25]
    assert [frame["window"] for frame in look["frames"]] == [0, 0, 0, 0]
    for turn, observation in ((look, first), (reply, second)):
        for i, frame in enumerate(turn["frames"]):
            pixels = decode(str(folder / frame["file"]))
            np.testing.assert_array_equal(pixels, observation["frames"][i])
    assert look["action"]["completion"] == "" and look["action"]["answer"] == ""
    assert [crop["window"] for crop in look["action"]["crops"]] == [[1.0, 3.0], [9.0, 2.0]]
    assert [crop["status"] for crop in look["action"]["crops"]] == ["ok", "reversed"]
    assert [(frame["time"], frame["window"]) for frame in reply["frames"]] == [(1.5, 1), (2.5, 1)]
    assert reply["feedback"].startswith("call 2: reversed") and not reply["must_answer"]
    assert reply["action"] == {"completion": "", "answer": "B", "crops": []}
    assert end["action"] is None and end["frames"] == []
    assert (episode["stop_reason"], episode["answer"], episode["correct"]) == ("answered", "B", 1.0)
    assert episode["reward_terms"] == info["reward_terms"]
    assert episode["reward"] == info["reward_terms"]["total"]


def test_completions_are_recorded_from_either_side_of_the_wrapper(make_env, folder):
    call, answer = render_completion("Look.", [(1, 3)]), render_completion("Blue.", answer="B")
    for env in (
        CompletionAction(RecordEpisodes(make_env(), str(folder))),
        RecordEpisodes(CompletionAction(make_env()), str(folder)),
    ):
        env.reset(seed=0, options={"task_id": "colour"})
        env.step(call)
        env.step(answer)
    one, two = load_episodes(folder)
    assert [turn["action"]["completion"] for turn in one["turns"][:2]] == [call, answer]
    assert one["turns"][1]["action"]["answer"] == "B"
    assert (one["episode"], two["episode"]) == (0, 1) and one["turns"] == two["turns"]


def test_equal_frames_are_one_file_and_folders_move(make_env, folder, tmp_path):
    env = RecordEpisodes(make_env(), str(folder))
    for _ in range(3):
        env.reset(seed=0, options={"task_id": "colour"})
        env.step(act(answer="A"))
    assert len(list((folder / "frames").iterdir())) == 4
    moved = shutil.move(folder, tmp_path / "elsewhere")
    for episode in load_episodes(moved):
        assert all((moved / f["file"]).is_file() for f in episode["turns"][0]["frames"])


def test_frames_may_be_jpeg(make_env, folder, tmp_path):
    env = RecordEpisodes(make_env(), str(folder), "jpeg")
    observation, _ = env.reset(seed=0, options={"task_id": "colour"})
    env.close()
    for i, frame in enumerate(load_episodes(folder)[0]["turns"][0]["frames"]):
        assert frame["file"].endswith(".jpeg")
        pixels = decode(str(folder / frame["file"])).astype(int)
        assert abs(pixels - observation["frames"][i]).mean() < 20
    with pytest.raises(ValueError, match="did you mean 'jpeg'"):
        RecordEpisodes(make_env(), str(tmp_path / "x"), "jpg")


def test_an_episode_that_is_cut_short_is_there_and_says_so(make_env, folder):
    env = RecordEpisodes(make_env(), str(folder))
    env.reset(seed=0)
    env.step(act((1, 2)))
    env.reset(seed=1)
    assert [episode["finished"] for episode in load_episodes(folder)] == [False]
    env.close()
    cut, never = load_episodes(folder)
    assert not cut["finished"] and len(cut["turns"]) == 2 and "stop_reason" not in cut
    assert not never["finished"] and never["turns"][0]["action"] is None


def test_a_recording_is_continued(make_env, folder):
    for _ in range(2):
        env = RecordEpisodes(make_env(), str(folder))
        env.reset(seed=0)
        env.close()
    assert [episode["episode"] for episode in load_episodes(folder)] == [0, 1]


def test_a_video_that_cannot_be_read_is_recorded_and_still_raises(make_env, folder):
    gone = ListTasks([make_task("/nowhere/gone.mp4", "gone")])
    env = RecordEpisodes(make_env(tasks=gone), str(folder))
    with pytest.raises(VideoError):
        env.reset(seed=0)
    (episode,) = load_episodes(folder)
    assert episode["finished"] and episode["stop_reason"] == "video_error"
    assert "gone.mp4" in episode["error"] and episode["turns"] == []
    assert "/nowhere" not in json.dumps(episode["video"])


def test_malformed_windows_are_null(make_env, folder):
    env = CompletionAction(RecordEpisodes(make_env(), str(folder)))
    env.reset(seed=0)
    env.step('<tool_call>{"name": "crop_video", "arguments": oops}</tool_call>')
    env.close()
    (crop,) = load_episodes(folder)[0]["turns"][0]["action"]["crops"]
    assert crop["window"] == [None, None] and crop["status"] == "malformed"


def test_rows_of_a_vector_environment(make_vector, clip, folder):
    tasks = ListTasks([make_task(clip, "fine"), make_task("/nowhere/gone.mp4", "gone")])
    vector = VectorRecordEpisodes(make_vector(3, tasks=tasks), str(folder))
    vector.reset(seed=0, options={"task_id": ["fine", "gone", "fine"]})
    vector.step(batch_actions([act((1, 2)), None, act(answer="A")], 3))
    vector.step(batch_actions([act(answer="B"), None, None], 3))
    vector.step(batch_actions([None, None, None], 3))
    episodes = {episode["row"]: episode for episode in load_episodes(folder)}
    assert len(load_episodes(folder)) == 3
    assert [episodes[row]["stop_reason"] for row in range(3)] == [
        "answered",
        "video_error",
        "answered",
    ]
    assert [episodes[row]["answer"] for row in (0, 2)] == ["B", "A"]
    assert [len(episodes[row]["turns"]) for row in range(3)] == [3, 0, 2]
    assert len(list((folder / "frames").iterdir())) == 4 + 1
    vector.reset(options={"reset_mask": np.array([True, False, False]), "task_id": "fine"})
    vector.close()
    assert [e["finished"] for e in load_episodes(folder)] == [True, True, True, False]


def test_a_vector_of_texts(make_vector, folder):
    vector = VectorRecordEpisodes(VectorCompletionAction(make_vector(1)), str(folder))
    vector.reset(seed=0)
    text = render_completion("Blue.", answer="B")
    vector.step([text])
    action = load_episodes(folder)[0]["turns"][0]["action"]
    assert action["completion"] == text and action["answer"] == "B"


def test_only_the_environments_own_observations_are_recorded(make_env, folder, clip):
    with pytest.raises(ValueError, match="put it under"):
        RecordEpisodes(ArrayObservation(make_env()), str(folder))
    with pytest.raises(TypeError, match="LongVideoEnv"):
        RecordEpisodes(gym.make("CartPole-v1"), str(folder))
    letters = ListTasks([make_task(clip)])
    env = ArrayObservation(RecordEpisodes(ArrayAction(make_env(tasks=letters)), str(folder)))
    env.reset(seed=0, options={"task_id": "colour"})
    env.step(np.array([0, 0, 0, 2]))
    assert load_episodes(folder)[0]["turns"][0]["action"]["answer"] == "B"


# --- what is read ---------------------------------------------------------------------------------


@pytest.fixture
def recorded(make_env, folder):
    env = CompletionAction(RecordEpisodes(make_env(), str(folder)))
    env.reset(seed=0, options={"task_id": "colour"})
    env.step(render_completion(f"Look. {HOSTILE}", [(1, 3), (9, 4)]))
    env.step(render_completion("Blue.", answer="B"))
    env.reset(seed=0, options={"task_id": "colour"})
    env.close()
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[:-9], ":1: not JSON"),
        (lambda line: line.replace('"version": 1', '"version": 2'), "version 1"),
        (lambda line: line.replace("frames/", "../"), "not the name of a frame"),
        (lambda line: line.replace("frames/", "../frames/"), "not the name of a frame"),
        (lambda line: line.replace("frames/", "/etc/"), "not the name of a frame"),
        (lambda line: line.replace('"window": [1.0, 3.0]', '"window": 3'), "wrong type"),
        (lambda line: line.replace('"turns"', '"rounds"'), "missing"),
    ],
)
def test_a_broken_recording_says_file_line_and_why(recorded, change, message):
    path = recorded / "episodes.jsonl"
    first, rest = path.read_text().split("\n", 1)
    assert change(first) != first
    path.write_text(f"{change(first)}\n{rest}")
    with pytest.raises(RecordingError, match=message) as caught:
        load_episodes(recorded)
    assert "episodes.jsonl:1: " in str(caught.value)


def test_replay_prints_the_episodes_and_writes_their_page(recorded, capsys):
    assert cli.main(["replay", str(recorded)]) == 0
    out = capsys.readouterr().out
    assert "episode 0 · task colour · gold B · K = 4" in out
    assert "turn 1: overview: 4 frames, 0:03.8 to 0:26.2" in out
    assert "crop 1.0-3.0 s: ok, 2 frames" in out and "crop 9.0-4.0 s: reversed, 0 frames" in out
    assert "turn 2: call 1: 2 frames, 0:01.5 to 0:02.5" in out
    assert "turn 2: call 2: reversed" in out
    assert "answer 'B', answered, reward: answer 1.00" in out and "unfinished" in out
    assert "\x1b" not in out
    assert out.splitlines()[-1] == str(recorded / "replay.html")
    page = (recorded / "replay.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in page
    sources = page.split('src="')[1:]
    assert len(sources) == 4 + 2 + 4
    assert all((recorded / source.partition('"')[0]).is_file() for source in sources)
    assert "<svg" in page


def test_replay_of_one_episode(recorded, capsys):
    assert cli.main(["replay", str(recorded), "--episode", "1"]) == 0
    out = capsys.readouterr().out
    assert "episode 1" in out and "episode 0" not in out
    assert cli.main(["replay", str(recorded), "--episode", "7"]) == 2
    assert "holds episodes 0 to 1" in capsys.readouterr().err


def test_replay_opens_the_page_where_asked(recorded, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or len(opened) == 1)
    assert cli.main(["replay", str(recorded), "--open"]) == 0
    assert opened == [(recorded / "replay.html").as_uri()]
    assert cli.main(["replay", str(recorded), "--open"]) == 2
    assert "open it yourself" not in capsys.readouterr().out


def test_replay_of_a_folder_without_a_recording_is_one_line(tmp_path, capsys):
    assert cli.main(["replay", str(tmp_path)]) == 2
    assert "holds no episodes.jsonl" in capsys.readouterr().err


def test_replay_needs_the_core_alone(recorded):
    import subprocess

    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'jsonargparse', 'yaml', 'rich', 'wandb'):\n"
        "    sys.modules[name] = None\n"
        f"from train.cli import main\nsys.exit(main(['replay', {str(recorded)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- reward terms ---------------------------------------------------------------------------------


def test_reward_terms_stand_beside_the_return(make_env):
    env = RecordRewardTerms(make_env(), buffer_length=2)
    for answer in ("B", "A", "B"):
        env.reset(seed=0, options={"task_id": "colour"})
        assert "episode" not in env.step(act((1, 2)))[-1]
        *_, reward, _, _, info = env.step(act(answer=answer))
        statistics = info["episode"]
        terms = {k: v for k, v in info["reward_terms"].items() if k != "total"}
        assert statistics["r"] == reward == pytest.approx(sum(terms.values()))
        assert statistics["l"] == 2
        assert {k: v for k, v in statistics.items() if k not in "rlt"} == terms
    assert list(env.term_queues["answer"]) == [0.0, 1.0]
    assert len(env.return_queue) == 2 and env.unscored == 0


def test_unscored_episodes_are_counted_and_not_averaged(make_env):
    env = RecordRewardTerms(make_env())
    env.reset(seed=0, options={"task_id": "colour"})
    step = env.env.step

    def unscored(action):
        *result, info = step(action)
        nothing = dict.fromkeys(info["reward_terms"], float("nan"))
        return *result, {**info, "reward_terms": nothing}

    env.env.step = unscored
    env.step(act(answer="B"))
    assert env.unscored == 1 and env.term_queues == {}


def test_reward_terms_of_rows(make_vector, clip):
    tasks = ListTasks([make_task(clip, "fine"), make_task("/nowhere/gone.mp4", "gone")])
    vector = VectorRecordRewardTerms(make_vector(3, tasks=tasks))
    vector.reset(seed=0, options={"task_id": ["fine", "gone", "fine"]})
    infos = vector.step(batch_actions([act(answer="B"), None, act((1, 2))], 3))[-1]
    assert infos["_episode"].tolist() == [True, True, False]
    answers = infos["episode"]["answer"]
    assert answers[0] == 1.0 and np.isnan(answers[1:]).all()
    assert vector.unscored == 1
    infos = vector.step(batch_actions([None, None, act(answer="A")], 3))[-1]
    assert infos["_episode"].tolist() == [False, False, True]
    assert infos["episode"]["answer"][2] == 0.0
    assert list(vector.term_queues["answer"]) == [1.0, 0.0]
    assert set(vector.term_queues) == {"answer", "format_anchor", "tool_gain"}
    assert "episode" not in vector.step(batch_actions([None] * 3, 3))[-1]


def test_wrapped_environments_can_be_made_again_from_their_spec(clip, tmp_path):
    from pathlib import Path

    from support.builders import write_manifest

    manifest = write_manifest(Path(clip).parent / "recording.jsonl", [make_task(clip)])
    env = gym.make("paravt_env:ParaVT-LongVideo-v0", tasks=manifest, frame_size=[32, 64])
    env = RecordRewardTerms(RecordEpisodes(env, str(tmp_path / "r"), "jpeg"), buffer_length=7)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, RecordRewardTerms) and again.return_queue.maxlen == 7
    assert isinstance(again.env, RecordEpisodes) and again.env.writer.image == "jpeg"
    env.close()
    again.close()
