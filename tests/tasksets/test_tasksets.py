"""Loaders of published data sets, on rows in the published schema."""

from __future__ import annotations

import pickle
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from support import published_rows as published
from support.published_rows import touch, write_rows

import paravt_env  # noqa: F401
from paravt_env.env import LongVideoEnv
from paravt_env.rewards.terms.answer import score_answer
from paravt_env.task import Subtitle, TaskError
from paravt_env.tasksets import TASKSETS, load_tasks
from paravt_env.tasksets.base import missing_videos
from paravt_env.tasksets.jsonl import FIELDS
from paravt_env.tasksets.published.options import split_options
from paravt_env.video.types import VideoError
from train.commands.data import described

SETS: dict[str, tuple[dict[str, Any], str, str]] = {
    # name: a row, where its annotations lie, where its video lies
    "video_mme": (
        published.VIDEO_MME,
        "videomme/test-00000-of-00001.parquet",
        "data/fFjv93ACGo8.mp4",
    ),
    "longvideobench": (
        published.LONGVIDEOBENCH,
        "validation-00000-of-00001.parquet",
        "videos/86CxyhFV9MI.mp4",
    ),
    "lvbench": (published.LVBENCH, "data/test-00000-of-00001.parquet", "Cm73ma6Ibcs.mp4"),
    "mlvu": (published.MLVU, "mlvu/test-00000-of-00001.parquet", "video/needle_32.mp4"),
    "mmvu": (published.MMVU, "validation.json", "videos/Art/0.mp4"),
    "charades_sta": (
        published.CHARADES_STA,
        "data/test-00000-of-00001.parquet",
        "Charades_v1_480/3MSZA.mp4",
    ),
    "longvideo_reason": (
        published.LONGVIDEO_REASON,
        "test.jsonl",
        "longvila_videos/I_Q3ajyOrcI.mp4",
    ),
    "paravt_rl": (
        published.PARAVT_RL,
        "paravt_rl_diverse_4k4.parquet",
        "longvt_source/videor1_1/a.mp4",
    ),
    "paravt_sft": (published.PARAVT_SFT, "paravt_sft_tvg_6k3.parquet", "museg/charades/3MSZA.mp4"),
}  # fmt: skip
SPLITS = {"longvideo_reason": "test"}


def load(name: str, root: Path, *rows: dict[str, Any], **options: Any) -> Any:
    """The set over `rows` (default: its one row)."""
    row, annotations, _ = SETS[name]
    write_rows(root / annotations, *(rows or (row,)))
    return load_tasks(name, root=root, **{"split": SPLITS.get(name), **options})


def one(name: str, root: Path, **changes: Any) -> Any:
    """The task of the set's row with changes."""
    return load(name, root, *published.changed([SETS[name][0]], **changes))[0]


def test_every_published_set_is_registered_and_tried():
    made, general = {"synthetic", "synthetic_brief", "atari", "zoom"}, {"jsonl", "mix"}
    images = {
        "vstar",
        "hrbench",
        "mathvision",
        "pyvision_rl",
        "qwen_vl",
    }  # tests/tasksets/test_published_images.py
    assert set(SETS) == set(TASKSETS) - made - general - images


@pytest.mark.parametrize("name", SETS)
def test_a_row_becomes_a_task(name: str, tmp_path: Path) -> None:
    touch(tmp_path, SETS[name][2])
    tasks = load(name, tmp_path)
    task = tasks[0]
    assert (len(tasks), tasks.name, task.source) == (1, name, name)
    assert task.video == str(tmp_path / SETS[name][2])
    assert missing_videos(tasks) == {}
    assert tasks.by_id(task.id) == task
    assert score_answer(task, task.answer) == 1.0
    assert pickle.loads(pickle.dumps(tasks))[0] == task


@pytest.mark.parametrize("name", SETS)
def test_a_missing_video_keeps_its_task_and_is_counted(name: str, tmp_path: Path) -> None:
    tasks = load(name, tmp_path)
    video = tasks[0].video
    assert missing_videos(tasks) == {video: 1}
    assert "missing: 1 of 1 videos (1 tasks)" in described("all", tasks)
    env = LongVideoEnv(tasks, frame_size=(8, 8))
    with pytest.raises(VideoError, match="cannot be opened") as caught:
        env.reset()
    env.close()
    assert caught.value.path == video


@pytest.mark.parametrize("name", SETS)
def test_a_renamed_field_is_an_error_with_file_row_and_field(name: str, tmp_path: Path) -> None:
    for field in TASKSETS[name].columns:
        row = {("x_" + key if key == field else key): v for key, v in SETS[name][0].items()}
        path = tmp_path / SETS[name][1]
        with pytest.raises(TaskError, match=rf"row 1: field '{field}': missing|line 1: field") as e:
            load(name, tmp_path, row)
        assert str(path) in str(e.value) and f"'{field}'" in str(e.value)


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("video_mme", {"answer": "E"}, "answer"),
        ("video_mme", {"options": "A. x"}, "options"),
        ("video_mme", {"question": " "}, "question"),
        ("video_mme", {"videoID": "../../x"}, "videoID"),
        ("longvideobench", {"correct_choice": 4}, "correct_choice"),
        ("longvideobench", {"option1": "N/A"}, "option1"),
        ("longvideobench", {"video_path": "/etc/passwd"}, "video_path"),
        ("longvideobench", {"starting_timestamp_for_subtitles": None},
         "starting_timestamp_for_subtitles"),
        ("lvbench", {"question": "What year?"}, "question"),
        ("lvbench", {"question_type": "reasoning"}, "question_type"),
        ("mlvu", {"answer": "Dances"}, "answer"),
        ("mmvu", {"question_type": "essay"}, "question_type"),
        ("mmvu", {"choices": {"A": "x", "C": "y"}}, "choices"),
        ("mmvu", {"video": "https://example.org/0.mp4"}, "video"),
        ("charades_sta", {"timestamp": [30.4, 24.3]}, "timestamp"),
        ("charades_sta", {"timestamp": [24.3]}, "timestamp"),
    ],
)  # fmt: skip
def test_a_bad_value_names_its_field(
    name: str, changes: dict[str, Any], field: str, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=f"row 1: field '{field}': "):
        one(name, tmp_path, **changes)


def test_all_problems_are_kept_where_the_set_is_not_strict(tmp_path: Path) -> None:
    bad = {**published.VIDEO_MME, "answer": "E", "question_id": "001-2"}
    twice = dict(published.VIDEO_MME)
    tasks = load("video_mme", tmp_path, published.VIDEO_MME, bad, twice, strict=False)
    assert tasks.ids == ("001-1", "001-1#3")
    assert [(p.place.number, p.field) for p in tasks.problems] == [(2, "answer")]
    assert [note.place.number for note in tasks.notes] == [3]
    with pytest.raises(TaskError, match=r"row 1: field 'answer'.*1 more"):
        load("video_mme", tmp_path, bad, bad)


# Video-MME and LongVideoBench: categories, options, subtitles


def test_video_mme_categories_and_options(tmp_path: Path) -> None:
    task = one("video_mme", tmp_path)
    assert (task.id, task.category, task.answer) == ("001-1", "short", "C")
    assert task.options == ("One.", "Two.", "Three.", "Four.")
    assert task.metadata["task_type"] == "Counting Problem"
    bare = one("video_mme", tmp_path, options=["One", "Two", "Three", "Four"])
    assert bare.options == ("One", "Two", "Three", "Four")


def test_video_mme_with_and_without_subtitles(clip: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(clip, tmp_path / "data" / "fFjv93ACGo8.mp4")
    write_rows(tmp_path / "test.parquet", published.VIDEO_MME)
    options = {"tasks": "video_mme", "tasks_kwargs": {"root": str(tmp_path), "split": "test"},
               "frame_size": (8, 8), "frame_budget": 3}  # fmt: skip
    with pytest.raises(ValueError, match="no task of 'video_mme' has any"):
        gym.make("ParaVT-LongVideo-v0", **options, subtitles=True)
    assert load_tasks("video_mme", root=tmp_path).missing_subtitles == [
        str(tmp_path / "subtitle" / "fFjv93ACGo8.srt")
    ]
    text = published.srt(("0:04", "0:06", "at five"), ("0:07", "0:09", "no"))
    (tmp_path / "subtitle").mkdir()
    (tmp_path / "subtitle" / "fFjv93ACGo8.srt").write_text(text)
    shown = []
    for subtitles in (False, True):
        env = gym.make("ParaVT-LongVideo-v0", **options, subtitles=subtitles)
        shown.append(env.reset(seed=0)[0]["subtitles"])  # frames at 5, 15 and 25 s
        env.close()
    assert shown == ["", "0\t4.0\t6.0\tat five"]


def test_longvideobench_options_and_shifted_subtitles(tmp_path: Path) -> None:
    said = [
        {"timestamp": [90.0, 99.0], "text": "before"},
        {"timestamp": [99.0, 101.0], "text": "across"},
        {"start": "00:01:50.000", "end": "00:01:52.500", "line": "inside"},
        {"timestamp": [120.0, None], "text": "open"},
    ]
    write_rows(tmp_path / "subtitles" / "86CxyhFV9MI_en.json", *said)
    task = one("longvideobench", tmp_path)
    assert (task.options, task.answer) == (
        ("promisc", "run away", "i was just scared", "countless"), "C",
    )  # fmt: skip
    assert list(task.subtitles) == [
        Subtitle(0.0, 1.0, "across"),
        Subtitle(10.0, 12.5, "inside"),
        Subtitle(20.0, float("inf"), "open"),
    ]
    assert task.category == "T2A" and task.metadata["duration_group"] == "600"
    assert one("longvideobench", tmp_path, subtitle_path=None).subtitles == ()


def test_longvideobench_answers_to_val_and_validation(tmp_path: Path) -> None:
    assert len(load("longvideobench", tmp_path, split="val")) == 1
    with pytest.raises(TaskError, match="no split 'test': use split='validation'"):
        load("longvideobench", tmp_path, split="test")


# LVBench, MLVU, MMVU, Charades-STA


@pytest.mark.parametrize(
    ("reference", "evidence"),
    [("00:15-00:19", ((15.0, 19.0),)), ("01:02:03-01:02:04", ((3723.0, 3724.0),)),
     ("00:15-00:15", ()), ("whole video", ())],
)  # fmt: skip
def test_lvbench_takes_options_and_evidence_out(
    reference: str, evidence: Any, tmp_path: Path
) -> None:
    task = one("lvbench", tmp_path, time_reference=reference)
    assert task.question == "What year appears in the caption?"
    assert (task.options, task.answer) == (("1636", "1366", "1363", "1633"), "D")
    assert task.evidence == evidence
    assert task.category == "key information retrieval, reasoning"


@pytest.mark.parametrize("answer", ["Takes a picture", "takes a  picture", "C", "(C)"])
def test_mlvu_takes_the_answer_as_text_or_letter(answer: str, tmp_path: Path) -> None:
    assert one("mlvu", tmp_path, answer=answer).answer == "C"


def test_mlvu_prefers_the_text_to_the_letter(tmp_path: Path) -> None:
    assert one("mlvu", tmp_path, candidates=["B", "C", "A"], answer="A").answer == "C"


def test_mmvu_scores_open_rows_as_open(tmp_path: Path) -> None:
    open_row = {"question_type": "open-ended", "answer": "Fauvism", "id": "validation_1",
                "choices": dict.fromkeys("ABCDE", "")}  # fmt: skip
    tasks = load("mmvu", tmp_path, published.MMVU, {**published.MMVU, **open_row})
    assert [(task.kind, task.family) for task in tasks] == [
        ("mcq", "multiple-choice"), ("open", "open-ended"),
    ]  # fmt: skip
    assert tasks[0].options == ("Cubism", "Fauvism", "Dada", "Baroque", "Pop")
    assert (tasks[1].options, tasks[1].answer, tasks[1].category) == ((), "Fauvism", "Art")
    assert score_answer(tasks[1], "fauvism") == 1.0


def test_charades_sta_is_grounding(tmp_path: Path) -> None:
    tasks = load("charades_sta", tmp_path, published.CHARADES_STA, published.CHARADES_STA)
    assert tasks.ids == ("3MSZA-1", "3MSZA-2")
    task = tasks[0]
    assert (task.kind, task.answer, task.evidence) == ("grounding", "24.3-30.4", ((24.3, 30.4),))
    assert "person turn a light on" in task.question
    assert score_answer(task, "no idea") == 0.0
    assert score_answer(task, "24.3 to 27.35") == pytest.approx(0.5)


# LongVideo-Reason


def test_longvideo_reason_in_both_layouts(tmp_path: Path) -> None:
    task = one("longvideo_reason", tmp_path)
    assert (task.question, task.answer, task.category) == (
        "What is the goal of the chase?", "B", "goal",
    )  # fmt: skip
    assert task.options == ("To eat", "To contrast", "To rest", "To sell")
    twice = "<answer>A</answer> no, <answer>B</answer>"
    assert one("longvideo_reason", tmp_path, answer=twice).answer == "B"
    touch(tmp_path, "longvideo_eval_subset3/I_Q3ajyOrcI.mp4")
    moved = one("longvideo_reason", tmp_path)
    assert moved.video == str(tmp_path / "longvideo_eval_subset3" / "I_Q3ajyOrcI.mp4")


def test_longvideo_reason_keeps_rows_without_options(tmp_path: Path) -> None:
    row = {**published.LONGVIDEO_REASON, "problem_id": 379, "problem": "Why does he leave?"}
    tasks = load("longvideo_reason", tmp_path, published.LONGVIDEO_REASON, row)
    assert tasks.ids == ("7", "379")
    assert (tasks[1].kind, tasks[1].answer, tasks[1].question) == (
        "open",
        "B",
        "Why does he leave?",
    )
    assert [(note.place.number, note.field) for note in tasks.notes] == [(2, "problem")]
    assert "note: " in described("test", tasks)


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        ("Q?\nA. one\nB. two", "Q?", ("one", "two")),
        ("Q?\n(A) one\n(B) two\nLetter only.", "Q?\nLetter only.", ("one", "two")),
        ("Q?\nA) one\n continued\nB) two", "Q?", ("one continued", "two")),
        ("Q?\nA. let me think\nA. one\nB. two\nC. three", "Q?\nA. let me think",
         ("one", "two", "three")),
        ("Q\nA. x\nB. y\nA. one\nB. two", "Q\nA. x\nB. y", ("one", "two")),
        ("Who? A. Ada B. Bob C. Cy", "Who?", ("Ada", "Bob", "Cy")),
        ("Plan A. Then what?", "Plan A. Then what?", ()),
        ("B. two\nC. three", "B. two\nC. three", ()),
        ("A. x\n" * 2000, ("A. x\n" * 2000).strip(), ()),
    ],
)  # fmt: skip
def test_options_inside_a_question(text: str, question: str, options: tuple[str, ...]) -> None:
    assert split_options(text) == (question, options)


# Where annotations are looked for, and the hub


def test_shards_are_read_in_order_and_formats_by_preference(tmp_path: Path) -> None:
    rows = published.changed([published.MLVU] * 2)
    for i, row in enumerate(rows):
        path = tmp_path / "data" / f"test-0000{i}-of-00002.parquet"
        write_rows(path, {**row, "question_id": str(i)})
    write_rows(tmp_path / "test.json", published.MLVU)
    tasks = load_tasks("mlvu", root=tmp_path, split="test")
    assert tasks.ids == ("0", "1")
    other = load_tasks("mlvu", root=tmp_path, annotations=tmp_path / "test.json")
    assert other.ids == ("needle_32_0",)


def test_absent_or_ambiguous_annotations_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"holds no annotations \(test.parquet or .*annotations="):
        load_tasks("mlvu", root=tmp_path)
    for folder in ("a", "b"):
        write_rows(tmp_path / folder / "test.parquet", published.MLVU)
    with pytest.raises(TaskError, match=r"annotations lie in .*give annotations="):
        load_tasks("mlvu", root=tmp_path)
    with pytest.raises(TaskError, match="give root="):
        load_tasks("mlvu")
    with pytest.raises(TaskError, match="is not a folder"):
        load_tasks("mlvu", root=tmp_path / "absent")
    with pytest.raises(TaskError, match="needs a split: use split='train' or 'test'"):
        load_tasks("longvideo_reason", root=tmp_path)


def test_videos_in_another_folder_of_the_root(tmp_path: Path) -> None:
    touch(tmp_path, "snapshots/abc/needle_32.mp4")
    task = load("mlvu", tmp_path, videos="snapshots/abc")[0]
    assert task.video == str(tmp_path / "snapshots" / "abc" / "needle_32.mp4")
    with pytest.raises(TaskError, match=r"field 'video_name': .* is not inside"):
        load("mlvu", tmp_path, videos="../elsewhere")


class FakeTable(list):
    """What `datasets.load_dataset` gives, as far as it is used."""

    @property
    def column_names(self) -> list[str]:
        return list(self[0])

    def select_columns(self, names: list[str]) -> list[dict[str, Any]]:
        return [{name: row[name] for name in names} for row in self]


def test_the_hub_is_read_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(name: str, config: str | None, split: str) -> FakeTable:
        calls.append((name, config, split))
        if split == "test" and name == "lmms-lab/LVBench":
            raise ValueError("Unknown split")
        row = published.LVBENCH if "LVBench" in name else published.VIDEO_MME
        return FakeTable([{**row, "bytes": b""}])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert load_tasks("video_mme", root=tmp_path, hub=True).ids == ("001-1",)
    assert load_tasks("video_mme", root=tmp_path, hub="me/copy").ids == ("001-1",)
    assert load_tasks("lvbench", root=tmp_path, hub=True).ids == ("55",)
    assert calls == [
        ("lmms-lab/Video-MME", "videomme", "test"),
        ("me/copy", "videomme", "test"),
        ("lmms-lab/LVBench", None, "test"),
        ("lmms-lab/LVBench", None, "train"),
    ]


def test_an_unreachable_hub_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("offline")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(TaskError, match=r"Video-MME cannot be loaded .*ConnectionError: offline"):
        load_tasks("video_mme", root=tmp_path, hub=True)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match=r"pip install 'paravt\[hub\]'"):
        load_tasks("video_mme", root=tmp_path, hub=True)


def test_the_documentation_lists_every_set_and_every_field_of_a_manifest() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    listed = {line.split("`")[1] for line in rows}
    assert set(FIELDS) | set(SETS) <= listed


def test_the_split_of_a_benchmark_is_never_guessed(tmp_path: Path) -> None:
    write_rows(tmp_path / "test.parquet", published.VIDEO_MME)
    with pytest.raises(TaskError, match="has no split 'train': use split='test'"):
        gym.make("ParaVT-LongVideo-v0", tasks="video_mme", tasks_kwargs={"root": str(tmp_path)})
    for options in (
        {"split": "test", "tasks_kwargs": {"root": str(tmp_path)}},
        {"tasks_kwargs": {"root": str(tmp_path), "split": "test"}},
    ):
        env = gym.make("ParaVT-LongVideo-v0", tasks="video_mme", **options)
        assert env.unwrapped.simulation.tasks.ids == ("001-1",)
        assert "video_mme" in env.spec.to_json()
        env.close()
