"""Task sets read from a JSONL manifest, and task sets by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paravt_env.task import TaskError
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.jsonl import JsonlTasks

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows, each the changes to a valid one, as a manifest."""

    def _write(*rows: dict[str, Any]) -> Path:
        base = {"id": "a", "video": "v.mp4", "question": "?", "kind": "open", "answer": "x"}
        path = tmp_path / "tasks.jsonl"
        path.write_text("".join(json.dumps({**base, **row}) + "\n" for row in rows))
        return path

    return _write


def test_jsonl_reads_every_field(write: Write, tmp_path: Path) -> None:
    path = write(
        {
            "video": "sub/v.mp4",
            "kind": "mcq",
            "options": ["x", "y"],
            "answer": "B",
            "evidence": [[1, 2.5]],
            "subtitles": [{"start": 0, "end": 1, "text": "hi"}],
            "metadata": {"k": 1},
        }
    )
    tasks = load_tasks(str(path))
    task = tasks[0]
    assert (tasks.name, len(tasks), tasks.ids) == ("tasks", 1, ("a",))
    assert task.video == str(tmp_path / "sub" / "v.mp4")
    assert (task.options, task.evidence) == (("x", "y"), ((1.0, 2.5),))
    assert (task.subtitles[0].text, task.metadata) == ("hi", {"k": 1})


def test_jsonl_filters_by_split(write: Write) -> None:
    path = write({"id": "a", "split": "train"}, {"id": "b", "split": "test"}, {"id": "c"})
    assert JsonlTasks(path).ids == ("a", "b", "c")
    assert JsonlTasks(path, split="test").ids == ("b", "c")
    path = write({"id": "a", "split": "train"})
    with pytest.raises(TaskError, match="no tasks in split 'val'; it has train"):
        JsonlTasks(path, split="val")


@pytest.mark.parametrize("video", ["../v.mp4", "/etc/passwd", "a/../../v.mp4", "link/v.mp4", "."])
def test_a_video_may_not_leave_its_root(write: Write, tmp_path: Path, video: str) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(TaskError, match=r"line 1: field 'video': .* is not inside"):
        JsonlTasks(write({"video": video}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": 3}, "field 'question': text expected, not 3"),
        ({"questoin": "?"}, "did you mean 'question'"),
        ({"kind": "quiz"}, "line 2: field .kind.: kind .quiz."),
        ({"options": "AB"}, "field 'options': a list of texts"),
        ({"evidence": [[3, 1]]}, r"field 'evidence': \(3.0, 1.0\) is not a span"),
        ({"evidence": [[0, float("nan")]]}, "field 'evidence'"),
        ({"evidence": [[0, 10**400]]}, "field 'evidence'"),
        ({"evidence": 3}, "field 'evidence'"),
        ({"subtitles": [{"start": 0}]}, "field 'subtitles'"),
        ({"id": "a"}, "field 'id': 'a' occurs twice"),
    ],
)
def test_a_bad_row_names_its_line_and_field(
    write: Write, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        JsonlTasks(write({}, {"id": "b", **row}))
    assert "tasks.jsonl, line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no tasks"),
        ("{", "line 1: not JSON"),
        ("[1]", "not list"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"id": "a"}', "field 'video': missing; there are id"),
    ],
)
def test_a_bad_manifest_is_a_clear_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(TaskError, match=message):
        JsonlTasks(path)
    with pytest.raises(TaskError, match="cannot read"):
        JsonlTasks(tmp_path / "absent.jsonl")


def test_unknown_task_sets_and_arguments_are_clear_errors(write: Write) -> None:
    with pytest.raises(TaskError, match="did you mean 'synthetic'"):
        load_tasks("syntetic")
    with pytest.raises(
        TaskError, match=r"task set 'jsonl': .*unexpected keyword argument 'videos'"
    ):
        load_tasks(str(write({})), videos=3)


def test_every_problem_is_found_and_every_good_line_kept(write: Write, tmp_path: Path) -> None:
    path = write(
        {"id": "good"},
        {"id": "many", "video": "../v.mp4", "kind": "quiz", "evidence": [["1", "2"]], "extra": 1},
        {"id": "good"},
        {"id": "", "question": " ", "answer": " "},
        {"id": "mcq", "kind": "mcq", "options": ["x"], "answer": "B"},
        {"id": "when", "kind": "grounding", "answer": "soon"},
        {"id": "late", "evidence": [[1]], "metadata": [], "split": 3, "subtitles": "s.txt"},
        {"id": "also good"},
    )
    with path.open("a") as file:
        file.write("{\n[]\n{}\n")
    tasks = JsonlTasks(path, strict=False)
    assert tasks.ids == ("good", "also good")
    found = [(problem.place.number, problem.field) for problem in tasks.problems]
    assert found == [
        (2, "video"), (2, "kind"), (2, "evidence"), (2, "extra"),
        (3, "id"),
        (4, "id"), (4, "question"), (4, "answer"),
        (5, "answer"),
        (6, "answer"),
        (7, "evidence"), (7, "metadata"), (7, "split"), (7, "subtitles"),
        (9, ""), (10, ""),
        (11, "id"), (11, "video"), (11, "question"), (11, "kind"),
    ]  # fmt: skip
    assert all(str(problem).startswith(f"{path}, line ") for problem in tasks.problems)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": ""}, "field 'answer': empty: no answer would ever be right"),
        ({"kind": "grounding", "answer": "12"}, "field 'answer': '12' is not start-end"),
        (
            {"kind": "grounding", "answer": "20-10"},
            "field 'answer': gold answer '20-10' ends before",
        ),
        ({"kind": "grounding", "answer": "5-5"}, "gold answer '5-5' ends before it starts, or at"),
        ({"kind": "mcq", "answer": "A"}, "field 'options': a mcq task has 0 options"),
        ({"kind": "mcq", "answer": "K", "options": list("abcdefghijk")}, "field 'options': 11"),
        ({"evidence": ["12"]}, "field 'evidence': '12' is not"),
        ({"evidence": [[True, 2]]}, "field 'evidence': "),
        ({"metadata": {"x": float("nan")}}, "field 'metadata': Out of range"),
        ({"subtitles": [{"start": 2, "end": 1, "text": "x"}]}, "field 'subtitles': subtitle 1: "),
        ({"subtitles": "absent.srt"}, "field 'subtitles': 'absent.srt' is not there"),
        ({"subtitles": "../s.srt"}, "field 'subtitles': .* is not inside"),
    ],
)
def test_what_no_reward_could_score_is_a_problem(
    write: Write, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        JsonlTasks(write(row))


def test_subtitles_from_a_file_beside_the_manifest(write: Write, tmp_path: Path) -> None:
    (tmp_path / "s.srt").write_text("1\n00:00:01,000 --> 00:00:02,500\nHello\n")
    task = JsonlTasks(write({"subtitles": "s.srt"}))[0]
    assert [(line.start, line.end, line.text) for line in task.subtitles] == [(1.0, 2.5, "Hello")]
