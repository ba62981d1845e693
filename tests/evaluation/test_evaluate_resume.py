"""Evaluations that are killed, continued, sharded and merged: no sample lost or counted twice."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.builders import ListTasks, make_task, write_manifest
from support.evaluations import HEADER, Always, Settings, row

from train.common.errors import ConfigError
from train.config.evaluation import Shard
from train.evaluation.evaluate import MemoryRows, evaluate, plan
from train.evaluation.row_file import RowFile, rows_path
from train.evaluation.scores import EvalReport
from train.evaluation.shards import merge

ROOT = Path(__file__).parents[2]


def opened(path, **changes):
    header = {**HEADER, **changes.pop("header", {})}
    return RowFile(path, header, **changes)


def many(clip, count=12):
    golds = "BBA" * count
    return ListTasks([make_task(clip, f"t{i:02d}", answer=golds[i]) for i in range(count)])


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "new" / "after.rows.jsonl"
    file = opened(path)
    file.add(("a", 4), row("a", 0.5, evidence=((1.0, 2.0), (3.0, 4.0)), usage={"cost": 1.0}))
    file.add(("b", None), row("b", turns=({"completion": "x", "crops": []},)))
    file.note_seconds(1.5)
    file.close()
    again = opened(path)
    assert again.done == {("a", 4), ("b", None)}
    assert again.load() == [
        row("a", 0.5, evidence=((1.0, 2.0), (3.0, 4.0)), usage={"cost": 1.0}),
        row("b", turns=({"completion": "x", "crops": []},)),
    ]
    assert again.seconds() == 1.5
    again.close()


@pytest.mark.parametrize("torn", [b"{", b'{"key": ["c", 4], "row": {"ta', b'{"key": ["c", 4]}'])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    path = tmp_path / "after.rows.jsonl"
    file = opened(path)
    file.add(("a", 4), row("a"))
    file.close()
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    file = opened(path)
    assert file.done == {("a", 4)}
    file.add(("b", 4), row("b"))
    file.close()
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["key"] for line in path.read_bytes().splitlines()[1:]] == [
        ["a", 4],
        ["b", 4],
    ]


def test_a_torn_header_starts_anew(tmp_path):
    path = tmp_path / "after.rows.jsonl"
    path.write_bytes(b'{"format": 1, "iden')
    file = opened(path)
    assert file.done == set()
    file.close()
    assert json.loads(path.read_text())["identity"] == {"seed": 0}


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "after.rows.jsonl"
    opened(path).close()
    path.write_bytes(path.read_bytes() + b'{"other": 1}\n')
    with pytest.raises(ConfigError, match="line 2: not a row"):
        opened(path)


def test_another_evaluation_is_not_continued(tmp_path):
    path = tmp_path / "after.rows.jsonl"
    file = opened(path)
    file.add(("a", 4), row("a"))
    file.close()
    other = {"identity": {"seed": 1}}
    with pytest.raises(ConfigError, match=r"seed: 0 there, 1 here.*resume=false"):
        opened(path, header=other)
    file = opened(path, header=other, resume=False)
    assert file.done == set()
    file.close()


def test_two_processes_do_not_write_one_file(tmp_path):
    path = tmp_path / "after.rows.jsonl"
    first = opened(path)
    with pytest.raises(ConfigError, match="another process is evaluating"):
        opened(path)
    first.close()
    opened(path).close()


def test_samples_with_errors_are_played_again_on_request(tmp_path):
    path = tmp_path / "after.rows.jsonl"
    file = opened(path)
    failed = row("a", 0.0, error="gone", error_kind="agent_error")
    file.add(("a", 4), failed)
    file.add(("b", 4), row("b"))
    file.close()
    file = opened(path, retry_errors=True)
    assert file.done == {("b", 4)}
    file.add(("a", 4), row("a", 1.0))
    assert sorted(r.task_id for r in file.load()) == ["a", "b"]
    assert all(r.score == 1.0 for r in file.load())
    file.close()
    file = opened(path)
    assert file.done == {("a", 4), ("b", 4)}
    file.close()


def test_an_evaluation_goes_on_where_it_stopped(clip, make_vector, tmp_path):
    tasks = many(clip, 6)
    env = make_vector(2, tasks=tasks)
    path = tmp_path / "after.rows.jsonl"

    class Stopped(Exception):
        pass

    def stop(done, total, accuracy, errors):
        if done == 3:
            raise Stopped

    file = opened(path)
    with pytest.raises(Stopped):
        evaluate(Always(), env, tasks, Settings(), stop, file)
    file.close()
    seen = []
    agent, file = Always(), opened(path)
    report = evaluate(agent, env, tasks, Settings(), lambda *said: seen.append(said), file)
    file.close()
    assert agent.asked == 3
    assert [said[:2] for said in seen] == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert seen[-1][2] == pytest.approx(4 / 6)
    whole = evaluate(Always(), env, tasks, Settings())
    assert report.rows == whole.rows


def test_shards_are_disjoint_and_complete():
    ids = [f"t{i}" for i in range(11)]
    whole = plan(ids, Settings(frame_budgets=(4, 8)))
    parts = [plan(ids, Settings(frame_budgets=(4, 8), shard=f"{i}/3")) for i in (1, 2, 3)]
    assert sorted(start for part in parts for start in part) == sorted(whole)
    assert [len(part) for part in parts] == [8, 7, 7]


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="write i/n"):
        Shard.parse(text)


def write_shards(clip, make_vector, folder, shards=("1/2", "2/2"), tasks=None):
    tasks = tasks or many(clip, 5)
    env = make_vector(2, tasks=tasks)
    for shard in shards:
        settings = Settings(shard=shard)
        header = {"shard": shard, "planned": len(plan(tasks.ids, settings))}
        path = rows_path(folder / "after.json", Shard.parse(shard))
        file = opened(path, header=header)
        evaluate(Always(), env, tasks, settings, None, file)
        file.close()
    return evaluate(Always(), env, tasks, Settings())


def test_merged_shards_equal_the_whole(clip, make_vector, tmp_path):
    whole = write_shards(clip, make_vector, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "after.rows-1of2.jsonl",
        "after.rows-2of2.jsonl",
    ]
    ((path, report),) = merge(tmp_path)
    assert path == tmp_path / "after.json"
    assert report.rows == whole.rows
    assert EvalReport.load(path).rows == whole.rows


def test_defect_21_a_lost_shard_does_not_vanish(clip, make_vector, tmp_path):
    write_shards(clip, make_vector, tmp_path)
    (tmp_path / "after.rows-1of2.jsonl").unlink()
    with pytest.raises(ConfigError, match="lacks the shards 1/2"):
        merge(tmp_path)
    assert not (tmp_path / "after.json").exists()


def test_defect_21_an_unfinished_shard_is_not_merged(clip, make_vector, tmp_path):
    write_shards(clip, make_vector, tmp_path)
    path = tmp_path / "after.rows-2of2.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(ConfigError, match=r"2of2.jsonl holds 1 of 2 rows"):
        merge(tmp_path)


@pytest.mark.parametrize("line", ['{"key": ["a", 4], "row": {"tas": 1}}', '{"row": {}}',
                                  '{"key": ["a", 4], "row": 1}', '{"seconds": "x"}'])  # fmt: skip
def test_rows_that_cannot_be_read_are_named(tmp_path, line):
    path = tmp_path / "after.rows.jsonl"
    opened(path).close()
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(ConfigError, match=r"after\.rows\.jsonl, line 2: not a row"):
        merge(tmp_path)
    if "row" in line:
        with pytest.raises(ConfigError, match="line 2: not a row"):
            opened(path).load()


@pytest.mark.parametrize("content", ["", '{"format": 1, "iden'])
def test_a_row_file_without_a_header_is_named(tmp_path, content):
    (tmp_path / "after.rows-1of2.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=r"rows-1of2\.jsonl is empty: finish that run first"):
        merge(tmp_path)


def test_shards_of_different_evaluations_are_not_merged(tmp_path):
    for shard, seed in (("1/2", 0), ("2/2", 7)):
        header = {"shard": shard, "planned": 0, "identity": {"seed": seed}}
        opened(rows_path(tmp_path / "after.json", Shard.parse(shard)), header=header).close()
    with pytest.raises(ConfigError, match="different evaluations: seed: 0 there, 7 here"):
        merge(tmp_path)


def test_a_folder_without_rows_says_so(tmp_path):
    with pytest.raises(ConfigError, match="holds no rows"):
        merge(tmp_path)


def test_blind_rows_are_joined_when_merging(clip, make_vector, tmp_path):
    whole = write_shards(clip, make_vector, tmp_path)
    blinded = [replace(r.rollout, correct=0.25, frame_budget=0) for r in whole.rows]
    rows = [replace(r, rollout=one) for r, one in zip(whole.rows, blinded, strict=True)]
    blind = opened(tmp_path / "after.blind.rows.jsonl", header={"planned": len(rows)})
    for r in rows:
        blind.add((r.task_id, 0), r)
    blind.close()
    ((_, report),) = merge(tmp_path)
    assert {r.blind for r in report.rows} == {0.25}
    assert report.summary()["overall"]["blind"] == 0.25


def test_rows_in_memory_are_done_when_added():
    rows = MemoryRows()
    rows.add(("a", 4), row("a"))
    assert rows.done == {("a", 4)}
    assert rows.load() == [row("a")]


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from support.evaluations import HEADER, Always, Settings
from paravt_env.vector import LongVideoVectorEnv
from train.evaluation.evaluate import evaluate
from train.evaluation.row_file import RowFile

class Slow(Always):
    def act(self, observations, rows):
        time.sleep(float(sys.argv[4]))
        return super().act(observations, rows)

env = LongVideoVectorEnv(2, sys.argv[1], frame_size=(32, 64), max_crops=3, frame_budget=4)
file = RowFile(Path(sys.argv[2]), HEADER)
agent = Slow()
report = evaluate(agent, env, env.simulation.tasks, Settings(), None, file)
file.close()
print(len(report.rows), agent.asked)
"""


def test_a_killed_process_loses_and_repeats_nothing(clip, tmp_path):
    manifest = write_manifest(Path(clip).with_name("killed.jsonl"), many(clip, 16).tasks)
    rows = tmp_path / "after.rows.jsonl"
    words = [sys.executable, "-c", KILLED, manifest, str(rows), str(ROOT / "tests")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*words, "0.2"], cwd=ROOT, env=environment) as process:
        while process.poll() is None and (
            not rows.exists() or rows.read_bytes().count(b"\n") < 4  # the header and three rows
        ):
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    there = rows.read_bytes().count(b"\n") - 1
    assert 3 <= there < 16
    with rows.open("ab") as file:  # what a kill within the write would leave
        file.write(b'{"key": ["t0')
    done = subprocess.run(
        [*words, "0"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["16", str(16 - there)]
    keys = [json.loads(line)["key"][0] for line in rows.read_bytes().splitlines()[1:]]
    assert sorted(keys) == [f"t{i:02d}" for i in range(16)]
