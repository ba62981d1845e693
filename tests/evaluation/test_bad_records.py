"""A record's error is that row's: counted and named, and the evaluation goes on after it."""

import codecs
import json

import pytest
from support.builders import SIZE, ListTasks, make_task
from support.evaluations import Always, Settings, report, row
from support.published_rows import srt

from paravt_env.env import LongVideoEnv
from paravt_env.tasksets.subtitle_files import load_subtitles
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.video.types import VideoError
from train import cli
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.run import RunConfig, TrainConfig
from train.evaluation.evaluate import evaluate
from train.evaluation.measure import measure
from train.evaluation.scores import EvalReport
from train.evaluation.shards import merge
from train.evaluation.tables import table
from train.report.tables import accuracy_table

GOOD = srt(("00:00:01,000", "00:00:29,000", "hello"))
BAD = {
    "html": b"<!doctype html><html>404 not found</html>",
    "wide": "no mark".encode("utf-16-le"),
    "entry": b'[{"start": 1, "end": 2, "line": "a"}, {"start": 3, "end": 1, "line": "b"}]',
}


@pytest.fixture
def manifest(clip, tmp_path):
    """Three questions with bad files of subtitles, the first one among them, and a good one."""
    (tmp_path / "clip.mp4").hardlink_to(clip)
    (tmp_path / "good.srt").write_text(GOOD)
    names = {"html": "a.srt", "wide": "b.srt", "entry": "c.json"}
    rows = []
    for name, file in (*names.items(), ("good", "good.srt")):
        if name in BAD:
            (tmp_path / file).write_bytes(BAD[name])
        rows.append(
            {
                "id": name, "video": "clip.mp4", "question": "Which?", "kind": "mcq",
                "options": ["red", "blue"], "answer": "B", "subtitles": file,
            }
        )  # fmt: skip
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def arguments(manifest):
    return {
        "tasks": str(manifest), "frame_size": SIZE, "max_crops": 3, "frame_budget": 4,
        "subtitles": True,
    }  # fmt: skip


def test_bad_subtitles_are_an_error_of_their_own_rows(manifest):
    env = LongVideoVectorEnv(2, **arguments(manifest))
    found = evaluate(Always(), env, env.simulation.tasks, Settings())
    assert {one.task_id: bool(one.error) for one in found.rows} == {
        "html": True, "wide": True, "entry": True, "good": False,
    }  # fmt: skip
    assert found.accuracy().mean == 0.25 and found.errors == {"video_error": 3}
    said = {one.task_id: one.error for one in found.rows}
    folder = manifest.parent
    assert said["html"].startswith(f"task 'html': {folder / 'a.srt'}: no times such as")
    assert said["entry"].startswith(f"task 'entry': {folder / 'c.json'}: subtitle 2: ")
    env.close()


def test_a_single_environment_raises_for_that_task_alone(manifest):
    env = LongVideoEnv(**arguments(manifest))
    for _ in range(2):
        with pytest.raises(VideoError, match=r"task 'wide': .*b\.srt: no times"):
            env.reset(seed=0, options={"task_id": "wide"})
    observation, _ = env.reset(options={"task_id": "good"})
    assert "hello" in observation["subtitles"]
    env.close()
    without = LongVideoEnv(**{**arguments(manifest), "subtitles": False})
    assert without.reset(options={"task_id": "wide"})[1]["task_id"] == "wide"


def test_subtitles_in_utf_16_with_a_mark_are_read(tmp_path):
    for mark, codec in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        path = tmp_path / f"{codec}.srt"
        path.write_bytes(mark + GOOD.encode(codec))
        assert [line.text for line in load_subtitles(str(path))] == ["hello"]


def test_validate_open_finds_them(manifest, capsys):
    assert cli.main(["data", "validate", str(manifest)]) == 0
    capsys.readouterr()
    assert cli.main(["data", "validate", str(manifest), "--open"]) == 1
    lines = capsys.readouterr().out.splitlines()
    named = [f"{manifest}, line {n}: field 'subtitles': {manifest.parent}/" for n in (1, 2, 3)]
    assert all(line.startswith(start) for line, start in zip(lines, named, strict=False))
    assert lines[-1] == "  3 problems"


def test_a_gold_answer_that_is_none_is_its_rows_error(clip):
    """A task set of one's own is not checked row by row, as files are."""
    odd = make_task(clip, "odd", kind="grounding", options=(), answer="later")
    tasks = ListTasks([odd, make_task(clip)])
    env = LongVideoVectorEnv(2, tasks=tasks, frame_size=SIZE, max_crops=3)
    found = evaluate(Always(), env, tasks, Settings(frame_budgets=(2,)))
    one, other = sorted(found.rows, key=lambda each: each.task_id)
    assert (one.score, one.error) == (1.0, "")
    assert other.error == "task 'odd': gold answer 'later' is not start-end"
    assert (other.score, other.span_iou, other.error_kind) == (0.0, 0.0, "judge_error")
    env.close()


@pytest.fixture
def partly(manifest):
    """The same with two lines that are no tasks, loaded with `strict: false`."""
    with manifest.open("a") as file:
        file.write('{"id": "half"}\nnothing\n')
    return EnvConfig(
        tasks=str(manifest), tasks_kwargs={"strict": False}, frame_size=SIZE, max_crops=3
    )


def test_rows_that_are_left_out_are_counted_and_named(partly, manifest, tmp_path, capsys):
    settings = EvalConfig(frame_budgets=(2,), num_envs=2, resamples=20, split="val")
    config = TrainConfig(env=partly, evaluation=settings, run=RunConfig(folder=str(tmp_path)))
    path = tmp_path / "out" / "after.json"
    found = measure(config, lambda env: Always(), path)
    said = capsys.readouterr().out
    line = f"2 rows are no tasks, left out and counted nowhere: {manifest}, line 5: field 'video': "
    assert f"  tasks: {line}" in said and f"; {manifest}, line 6: not JSON" in said
    assert len(found.rows) == 4 and len(found.left_out) == 2
    assert EvalReport.load(path).left_out == found.left_out
    assert json.loads(path.read_text())["summary"]["left_out"] == 2
    assert table(found).splitlines()[-1].startswith(line)
    assert "2 rows are no tasks" in accuracy_table(None, found)
    ((_, joined),) = merge(path.parent)
    assert joined.left_out == found.left_out


def test_a_report_of_a_whole_set_says_nothing_of_it():
    whole = report(row("a"))
    assert "left out" not in table(whole) and "left out" not in accuracy_table(None, whole)
    assert whole.summary()["left_out"] == 0


def test_one_row_that_is_left_out_is_said_in_the_singular():
    one = report(row("a"))
    assert "1 row is no task" in table(EvalReport(one.rows, one.settings, left_out=("a: b",)))
