"""Published sets about images, in the published schema: V* bench, HR-Bench, Qwen-VL manifests."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paravt_env.common.images import encode_jpeg, encode_png
from paravt_env.task import TaskError
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.base import missing_videos

PICTURE = encode_jpeg(np.full((8, 8, 3), 90, np.uint8))


def lines(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


STAR = {
    "image": "direct_attributes/sa_4690.jpg",
    "text": "What is the material of the glove?\n(A) rubber\n(B) cotton\n(C) kevlar\n(D) leather\n"
    "Answer with the option's letter from the given choices directly.",
    "category": "direct_attributes",
    "label": "A",
    "question_id": 0,
}


def test_v_star(tmp_path):
    (tmp_path / "direct_attributes").mkdir()
    (tmp_path / STAR["image"]).write_bytes(PICTURE)
    other = {**STAR, "image": "relative_position/sa_1.jpg", "label": "C", "question_id": 1}
    lines(tmp_path / "test_questions.jsonl", STAR, other)
    tasks = load_tasks("vstar", root=tmp_path)
    first = tasks[0]
    assert first.question == "What is the material of the glove?"
    assert first.options == ("rubber", "cotton", "kevlar", "leather")
    assert (first.id, first.answer, first.video) == ("direct_attributes-0", "A", "")
    assert first.images == (str(tmp_path.resolve() / STAR["image"]),)
    assert list(missing_videos(tasks).values()) == [1]


def test_v_star_without_options_names_the_row(tmp_path):
    lines(tmp_path / "test_questions.jsonl", {**STAR, "text": "What is it?"})
    with pytest.raises(TaskError, match=r"line 1: field 'text'.*options"):
        load_tasks("vstar", root=tmp_path)


HIGH = {
    "index": 3,
    "question": "What is the number displayed above the entrance?",
    "answer": "B",
    "category": "single",
    "A": "27B",
    "B": "37B",
    "C": "27D",
    "D": "27E",
    "cycle_category": "1",
    "image": base64.b64encode(PICTURE).decode(),
}


def test_hr_bench_writes_each_picture_once(tmp_path):
    rows = [HIGH, {**HIGH, "index": 4, "answer": "C", "cycle_category": "2"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hr_bench_4k.parquet")
    tasks = load_tasks("hrbench", root=tmp_path, split="4k")
    assert [task.answer for task in tasks] == ["B", "C"]
    assert tasks[0].options == ("27B", "37B", "27D", "27E") and tasks[0].id == "4k-3"
    assert tasks[1].metadata == {"cycle": "2"} and tasks[0].category == "single"
    assert tasks[0].images == tasks[1].images
    assert Path(tasks[0].images[0]).read_bytes() == PICTURE
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == [
        Path(tasks[0].images[0]).name
    ]


@pytest.mark.parametrize("image", ["???", base64.b64encode(b"GIF89a").decode()])
def test_hr_bench_with_no_picture_is_a_problem(tmp_path, image):
    pq.write_table(
        pa.Table.from_pylist([HIGH, {**HIGH, "image": image}]), tmp_path / "hr_bench_8k.parquet"
    )
    tasks = load_tasks("hrbench", root=tmp_path, split="8k", strict=False)
    assert len(tasks) == 1 and "field 'image'" in str(tasks.problems[0])


VISION = {
    "id": "7",
    "question": "Which kite has the longest string?\n<image1>",
    "options": ["A", "B", "C"],
    "image": "images/7.jpg",
    "answer": "C",
    "solution": None,
    "level": 1,
    "subject": "metric geometry - length",
}


def test_math_vision(tmp_path):
    open_row = {**VISION, "id": "8", "options": [], "answer": "24", "question": "<image1> Area?"}
    pq.write_table(
        pa.Table.from_pylist([VISION, open_row]), tmp_path / "testmini-00000-of-00001-a1.parquet"
    )
    (tmp_path / "images").mkdir()
    (tmp_path / "images/7.jpg").write_bytes(PICTURE)
    first, second = load_tasks("mathvision", root=tmp_path, split="testmini")
    assert (first.id, first.kind, first.options, first.answer) == ("7", "mcq", ("A", "B", "C"), "C")
    assert first.question == "Which kite has the longest string?"
    assert first.images == (str(tmp_path.resolve() / "images/7.jpg"),)
    assert (first.family, first.metadata) == ("metric geometry - length", {"level": "1"})
    assert (second.kind, second.answer, second.question) == ("open", "24", "Area?")


def test_math_vision_whose_answer_is_no_option_is_a_problem(tmp_path):
    lines(tmp_path / "test.jsonl", VISION, {**VISION, "id": "9", "answer": "D"})
    tasks = load_tasks("mathvision", root=tmp_path, split="test", strict=False)
    assert len(tasks) == 1 and "'D' is not a letter of ABC" in str(tasks.problems[0])


SEARCH = {
    "id": "0",
    "question": "What is the material of the glove?\n(A) rubber\n(B) cotton\n(C) kevlar\n"
    "(D) leather\nAnswer with the option's letter from the given choices directly.",
    "answer": "A",
    "ability": "visual_search",
    "data_source": "vstar",
    "image_path": "/path/to/vstar_bench/direct_attributes/sa_4690.jpg",
}


def test_pyvision_rl(tmp_path):
    sum_of = {**SEARCH, "id": "1", "question": "What is x?", "answer": "3/4", "ability": "math"}
    rows = [SEARCH, {**sum_of, "data_source": "mmk12", "image_path": "/elsewhere/mmk12/1.png"}]
    (tmp_path / "pyvision_image_rl_data.json").write_text(json.dumps(rows))
    (tmp_path / "vstar_bench/direct_attributes").mkdir(parents=True)
    (tmp_path / "vstar_bench/direct_attributes/sa_4690.jpg").write_bytes(PICTURE)
    (tmp_path / "sa_4690.jpg").write_bytes(PICTURE)  # another one of that name
    first, second = load_tasks("pyvision_rl", root=tmp_path, split="train")
    assert (first.id, first.answer, first.source, first.family) == (
        "vstar-0", "A", "vstar", "visual_search",
    )  # fmt: skip
    assert first.question == "What is the material of the glove?" and len(first.options) == 4
    assert first.images[0].endswith("/vstar_bench/direct_attributes/sa_4690.jpg")
    assert (second.kind, second.answer, second.family) == ("open", "3/4", "math")
    assert second.images[0].startswith(str(tmp_path.resolve()))  # missing, and still below root


@pytest.mark.parametrize("path", ["../../etc/passwd", "/"])
def test_pyvision_rl_leaves_its_root_nowhere(tmp_path, path):
    (tmp_path / "train.json").write_text(json.dumps([SEARCH, {**SEARCH, "image_path": path}]))
    tasks = load_tasks("pyvision_rl", root=tmp_path, split="train", strict=False)
    assert len(tasks) == 1 and tasks.problems[0].field == "image_path"


def test_qwen_vl(tmp_path):
    said = [
        {"from": "human", "value": "<image>\n<image>\nWhich is red?\nA. left\nB. right"},
        {"from": "gpt", "value": "B"},
    ]
    asked = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "tea"}]
    rows = (
        {"id": "a", "image": ["l.png", "r.png"], "conversations": said},
        {"video": "v.mp4", "conversations": asked},
        {"image": "l.png", "conversations": asked[:1]},
    )
    path = lines(tmp_path / "data.jsonl", *rows)
    tasks = load_tasks("qwen_vl", root=tmp_path, split="train", annotations=path, strict=False)
    assert [Path(one).name for one in tasks[0].images] == ["l.png", "r.png"]
    assert (tasks[0].question, tasks[0].options) == ("Which is red?", ("left", "right"))
    assert (tasks[0].answer, tasks[1].answer, tasks[1].kind) == ("B", "tea", "open")
    assert tasks[1].video.endswith("v.mp4") and tasks[1].id == "row-2"
    assert [str(problem) for problem in tasks.problems] == [
        f"{path}, line 3: field 'conversations': no text of gpt in it"
    ]


def test_a_manifest_of_ours(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((2, 2, 3), np.uint8)))
    base = {"id": "one", "question": "?", "kind": "open", "answer": "x"}
    path = lines(
        tmp_path / "tasks.jsonl",
        {**base, "images": ["a.png"]},
        {**base, "id": "two", "images": ["../b.png"]},
        {**base, "id": "three", "images": ["a.png"], "video": "v.mp4"},
        {**base, "id": "four"},
    )
    tasks = load_tasks(str(path), strict=False)
    assert [task.id for task in tasks] == ["one"] and tasks[0].video == ""
    assert tasks[0].images == (str(tmp_path.resolve() / "a.png"),)
    said = [problem.field for problem in tasks.problems]
    assert said == ["images", "images", "video"]
