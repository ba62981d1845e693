"""ParaVT-Parquet: the RL rows, the SFT conversations, and materialised files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import published_rows as published
from support.published_rows import CONVERSATION, PARAVT_RL, PARAVT_SFT, touch, write_rows

from paravt_env.task import TaskError
from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.base import missing_videos
from paravt_env.tasksets.published.materialize import materialize


def gold(**info: Any) -> str:
    return json.dumps(info)


def rl(root: Path, **changes: Any) -> Any:
    """The task of the RL row with changes."""
    write_rows(root / "paravt_rl_x.parquet", {**PARAVT_RL, **changes})
    return load_tasks("paravt_rl", root=root)[0]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_rl_multiple_choice(tmp_path: Path) -> None:
    task = rl(tmp_path)
    assert (task.kind, task.question, task.options, task.answer) == (
        "mcq", "Which colour is the car?", ("red", "blue"), "B",
    )  # fmt: skip
    assert (task.id, task.category) == ("paravt_rl-1", "longvt_source")


@pytest.mark.parametrize("answer", ["12.0-19.5", "[12.0, 19.5]", [12.0, 19.5], "12 s to 19.5 s"])
def test_rl_grounding(answer: Any, tmp_path: Path) -> None:
    task = rl(
        tmp_path, prompt=said("<video>When?"), extra_info=gold(answer=answer, question_type="tvg")
    )
    assert (task.kind, task.question, task.answer) == ("grounding", "When?", "12.0-19.5")
    assert task.evidence == ((12.0, 19.5),)


def test_rl_open_and_info_as_an_object(tmp_path: Path) -> None:
    info = {"answer": "a red car", "question_type": "oe"}
    task = rl(tmp_path, prompt=said("What\n<video>?"), extra_info=info)
    assert (task.kind, task.question, task.answer) == ("open", "What\n?", "a red car")


def test_rl_choice_without_options_is_noted_and_kept(tmp_path: Path) -> None:
    write_rows(tmp_path / "paravt_rl_x.parquet", {**PARAVT_RL, "prompt": said("Which?")})
    tasks = load_tasks("paravt_rl", root=tmp_path)
    assert (tasks[0].kind, tasks[0].answer, len(tasks.notes)) == ("open", "B", 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra_info": "{"}, "field 'extra_info': not JSON"),
        ({"extra_info": "3"}, "field 'extra_info': an object"),
        ({"extra_info": gold(answer="B", question_type="quiz")}, "question_type 'quiz': mcq, tvg"),
        ({"extra_info": gold(question_type="oe")}, "field 'extra_info': 'answer' is missing"),
        (
            {"extra_info": gold(answer="soon", question_type="tvg")},
            "field 'extra_info': 'soon' is not start-end",
        ),
        ({"videos": []}, "field 'videos': one video"),
        ({"videos": [{"video": "a.mp4"}, {"video": "b.mp4"}]}, "field 'videos': one video"),
        ({"videos": [{"video": "../a.mp4"}]}, "field 'videos': .* is not inside"),
        ({"videos": [{"video": "file:///etc/passwd"}]}, "field 'videos': .* is not inside"),
        ({"videos": [{"video": "https://x/a.mp4"}]}, "field 'videos': .* is a URL"),
        ({"prompt": [{"role": "system", "content": "x"}]}, "field 'prompt': no message"),
        ({"prompt": "Which?"}, "field 'prompt': a list of messages"),
    ],
)
def test_rl_errors_name_the_field(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=message):
        rl(tmp_path, **changes)


def test_sft_conversations(tmp_path: Path) -> None:
    write_rows(tmp_path / "paravt_sft_tvg_6k3.parquet", PARAVT_SFT)
    write_rows(tmp_path / "paravt_sft_videor1_50k.parquet", PARAVT_SFT)
    tasks = load_tasks("paravt_sft", root=tmp_path)
    assert tasks.ids == ("paravt_sft-1", "paravt_sft-2")
    task = tasks[0]
    assert (task.kind, task.question) == ("grounding", "When does the light go on?")
    assert (task.answer, task.evidence) == ("24.3-30.4", ((24.3, 30.4),))
    assert json.loads(task.metadata["messages"]) == CONVERSATION
    assert list(missing_videos(tasks).values()) == [2]


def test_sft_names_what_a_conversation_lacks(tmp_path: Path) -> None:
    for messages, message in (
        ([*CONVERSATION[:-1], {"role": "assistant", "content": "no"}], "holds no <answer>"),
        ([turn for turn in CONVERSATION if turn["role"] != "user"], "no message has the role"),
        ({"role": "user"}, "a list of messages"),
    ):
        write_rows(tmp_path / "paravt_sft_x.parquet", {"messages": json.dumps(messages)})
        with pytest.raises(TaskError, match=f"row 1: field 'messages': .*{message}"):
            load_tasks("paravt_sft", root=tmp_path)
    asked = [{"role": "user", "content": "When?"}, *CONVERSATION[2:]]
    write_rows(tmp_path / "paravt_sft_x.parquet", {"messages": json.dumps(asked)})
    with pytest.raises(TaskError, match="field 'messages': a path expected, not None"):
        load_tasks("paravt_sft", root=tmp_path)


# Materialise


def test_materialised_files_differ_in_their_paths_alone(tmp_path: Path) -> None:
    root, out = tmp_path / "source", tmp_path / "out"
    touch(root, "longvt_source/videor1_1/a.mp4")
    sources = [
        write_rows(tmp_path / "in" / "paravt_rl_x.parquet", *[PARAVT_RL] * 300),
        write_rows(tmp_path / "in" / "paravt_sft_x.parquet", PARAVT_SFT),
    ]
    done = materialize([tmp_path / "in"], root, out)
    assert (done.rows, done.problems) == (301, [])
    assert dict(done.buckets) == {"museg": 1}
    before, after = (
        pq.read_table(folder / "paravt_rl_x.parquet") for folder in (sources[0].parent, out)
    )
    assert before.schema == after.schema
    assert before.drop(["videos"]) == after.drop(["videos"])
    video = f"file://{root}/longvt_source/videor1_1/a.mp4"
    assert after["videos"].to_pylist() == [[{"video": video}]] * 300
    (row,) = pq.read_table(out / "paravt_sft_x.parquet").to_pylist()
    messages = json.loads(row["messages"])
    url = f"file://{root}/museg/charades/3MSZA.mp4"
    assert messages[1]["content"][0]["video_url"]["url"] == url
    messages[1]["content"][0]["video_url"]["url"] = "museg/charades/3MSZA.mp4"
    assert messages == CONVERSATION
    assert sorted(path.name for path in out.iterdir()) == [s.name for s in sources]


def test_materialised_files_are_the_same_tasks(tmp_path: Path) -> None:
    write_rows(tmp_path / "paravt_rl_x.parquet", PARAVT_RL)
    out = tmp_path / "out"
    materialize([tmp_path / "paravt_rl_x.parquet"], tmp_path, out)
    plain = load_tasks("paravt_rl", root=tmp_path, annotations=tmp_path / "paravt_rl_x.parquet")
    again = load_tasks("paravt_rl", root=tmp_path, annotations=out / "paravt_rl_x.parquet")
    assert plain[0] == again[0]


def test_materialise_refuses_paths_that_leave_the_root(tmp_path: Path) -> None:
    rows = published.changed([PARAVT_RL], videos=[{"video": "../secret.mp4"}])
    source = write_rows(tmp_path / "paravt_rl_x.parquet", PARAVT_RL, *rows)
    done = materialize([source], tmp_path, tmp_path / "out")
    assert [(p.place.number, p.field) for p in done.problems] == [(2, "videos")]
    table = pq.read_table(tmp_path / "out" / "paravt_rl_x.parquet").to_pylist()
    assert table[1]["videos"] == [{"video": "../secret.mp4"}]


def test_materialise_says_what_it_cannot_do(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.parquet", {"x": 1})
    with pytest.raises(TaskError, match="neither videos nor messages among x"):
        materialize([source], tmp_path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(TaskError, match="would overwrite itself"):
        materialize([source], tmp_path, tmp_path)
    with pytest.raises(TaskError, match="no Parquet file in"):
        materialize([tmp_path / "out"], tmp_path, tmp_path / "out")
    with pytest.raises(TaskError, match="is not a folder"):
        materialize([source], tmp_path / "absent", tmp_path / "out")
    (tmp_path / "bad.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(TaskError, match=r"bad\.parquet"):
        materialize([tmp_path / "bad.parquet"], tmp_path, tmp_path / "out")
