"""Which runs are found, what is read of files that grow, and what lists are filtered by."""

import json
import os

import pytest
from support.evaluations import HEADER, row
from support.viewed_runs import record, write_run

from train.common.errors import ConfigError
from train.common.rollout_file import FOLDER, INDEX, VERSION, IndexLine, write_step
from train.evaluation.row_file import RowFile
from train.viewer import rollout_list, run_data
from train.viewer import runs as module
from train.viewer.errors import CannotShow
from train.viewer.listing import OUTCOMES, Filter, Source
from train.viewer.rollout_list import part_of
from train.viewer.runs import Runs
from train.viewer.tail import Tail


def test_runs_are_found_in_folders_and_folders_of_folders(tmp_path):
    for name in ("a/x", "a/y", "b/x"):
        write_run(tmp_path / name, "/v.mp4", 1)
    (tmp_path / "a" / "nothing").mkdir()
    runs = Runs([tmp_path / "a", tmp_path / "b" / "x"])
    assert list(runs.folders()) == ["x", "y", "x (2)"]
    assert runs.folder("x (2)") == tmp_path / "b" / "x"
    for name in ("nothing", "../b/x", "", "a/x", str(tmp_path / "a" / "x")):
        with pytest.raises(CannotShow):
            runs.folder(name)
    write_run(tmp_path / "a" / "z", "/v.mp4", 1)
    assert "z" in runs.folders(), "a run that was started later"
    with pytest.raises(ConfigError, match="no folder"):
        Runs([tmp_path / "absent"])
    with pytest.raises(ConfigError, match="no run there"):
        Runs([tmp_path / "a" / "nothing"])


def test_a_file_that_grows_is_read_from_where_it_ended(tmp_path):
    path = tmp_path / "f"
    tail = Tail(path)
    assert tail.read() == (False, b"")
    path.write_bytes(b"a\nb")
    assert tail.read() == (False, b"a\n")
    with path.open("ab") as file:
        file.write(b"c\n")
    assert tail.read() == (False, b"bc\n")
    assert tail.read() == (False, b"")
    (tmp_path / "g").write_bytes(b"new\nfile\nof more bytes\n")
    os.replace(tmp_path / "g", path)
    assert tail.read() == (True, b"new\nfile\nof more bytes\n")
    path.unlink()
    assert tail.read() == (True, b"")


def test_steps_and_lists_grow_and_start_again_with_a_resumed_run(tmp_path):
    folder = write_run(tmp_path / "r", "/v.mp4", 2)
    runs = Runs([folder])
    assert [step["step"] for step in runs.steps("r")] == [0, 1]
    assert sorted(runs.kept("r")) == [0, 1] and runs.kept("r")[0].size > 0
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "reward": 1}\nnonsense\n{"step": 3')
    write_step(folder, 2, [record("/v.mp4")])
    with (folder / FOLDER / INDEX).open("a") as file:
        head = {"version": VERSION, "step": 9, "bytes": 1, "count": 1}
        head |= {"families": [], "frame_budgets": []}
        file.write(json.dumps(head | {"rollouts": [["x"] * 14]}) + "\n")
    assert [step["step"] for step in runs.steps("r")] == [0, 1, 2]
    kept = {step: line.rollouts for step, line in runs.kept("r").items()}
    assert kept == {0: 4, 1: 4, 2: 1, 9: 1}
    assert runs.listed("r", [9]) == [] == runs.listed("r", [7]), "damaged, and absent"
    assert [one.member for _, one in runs.listed("r", [0])] == [0, 1, 2, 3]
    write_step(folder, 0, [record("/v.mp4", 7)])
    assert [one.member for _, one in runs.listed("r", [0])] == [7], "played again"
    (folder / "new").write_text('{"step": 0, "reward": 1}\n')
    os.replace(folder / "new", folder / "metrics.jsonl")
    assert [step["step"] for step in runs.steps("r")] == [0]


def test_only_some_runs_steps_and_reports_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT_RUNS", 2)
    monkeypatch.setattr(module, "KEPT_STEPS", 2)
    monkeypatch.setattr(module, "KEPT_REPORTS", 1)
    for name in "abc":
        write_run(tmp_path / name, "/v.mp4", 3)
    runs = Runs([tmp_path])
    for name in "abc":
        assert len(runs.steps(name)) == 3 and len(runs.report(name, "after").rows) == 2
        for step in range(3):
            assert runs.shown(name, Source(step), 0).task_id == "colour"
    assert (len(runs._runs), len(runs._rollouts), len(runs._reports)) == (2, 2, 1)
    assert len(runs.steps("a")) == 3, "read again"


@pytest.mark.parametrize(
    ("outcome", "members"),
    [
        ("", [0, 1, 2, 3]),
        ("right", [1, 3]),
        ("wrong", [0, 2]),
        ("no call", [3]),
        ("form lost", [1]),
        ("call failed", [0, 1, 2]),
        ("forced answer", [2]),
        ("not scored", []),
    ],
)
def test_lists_are_filtered_by_outcome(tmp_path, outcome, members):
    runs = Runs([write_run(tmp_path / "r", "/v.mp4", 1)])
    rows = [one for _, one in runs.listed("r", [0])]
    assert [one.member for one in rows if Filter(outcome).keeps(one)] == members
    assert set(OUTCOMES) >= {outcome} - {""}


def test_a_page_of_all_steps_reads_the_steps_that_it_shows_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(rollout_list, "PAGE", 6)
    folder = tmp_path / "r"
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    for step in range(5):
        changes = {"family": "order" if step else "count", "frame_budget": 4 * (step + 1)}
        write_step(folder, step, [record("/v.mp4", member, **changes) for member in range(4)])
    read = []
    rows_of = IndexLine.rows
    monkeypatch.setattr(IndexLine, "rows", lambda line: [read.append(line.step), rows_of(line)][1])

    def shown(page, *wanted):
        part = part_of(Runs([folder]), "r", Source(), Filter(*wanted), page)
        places = [(where.step, one.member) for where, one in part.rows]
        return part.found, part.of, part.page, places

    assert shown(1) == (20, 20, 1, [(3, 2), (3, 3), *((2, member) for member in range(4))])
    assert read == [3, 2]
    assert shown(9)[2:] == (3, [(0, 2), (0, 3)])
    read.clear()
    assert shown(0, "wrong", 12) == (2, 20, 0, [(2, 0), (2, 2)]) and read == [2]
    assert shown(0, "", None, "count")[:2] == (4, 20)
    assert shown(1, "right")[3] == [(1, 1), (1, 3), (0, 1), (0, 3)]
    part = part_of(Runs([folder]), "r", Source(), Filter(), 0)
    assert (part.families, part.frame_budgets) == ({"order", "count"}, {4, 8, 12, 16, 20})


def test_the_list_of_runs_reads_the_end_of_the_metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(run_data, "RECENT_BYTES", 100)
    folder = write_run(tmp_path / "r", "/v.mp4", 30)
    runs = Runs([folder])
    assert [step["step"] for step in runs.recent("r", 9)] == [29], "of the last 100 bytes"
    monkeypatch.setattr(run_data, "RECENT_BYTES", 10_000)
    assert [step["step"] for step in runs.recent("r", 2)] == [28, 29]
    assert len(runs.steps("r")) == 30
    monkeypatch.setattr(run_data, "RECENT_BYTES", 0)
    assert [step["step"] for step in runs.recent("r", 2)] == [28, 29], "in memory"


def test_settings_are_parsed_again_only_when_they_change(tmp_path):
    folder = write_run(tmp_path / "r", "/v.mp4", 1)
    runs = Runs([folder])
    assert runs.setting("r", "env", "max_turns", default=3) == 2
    assert runs._parsed("r") is runs._parsed("r")
    (folder / "config.yaml").write_text("env: {max_turns: 5}\n")
    assert runs.setting("r", "env", "max_turns", default=3) == 5
    (folder / "config.yaml").write_text("env: [: broken\n")
    assert runs.setting("r", "env", "max_turns", default=3) == 3


def test_lists_are_filtered_by_frames_and_family(tmp_path):
    runs = Runs([write_run(tmp_path / "r", "/v.mp4", 1)])
    ((_, one), *_) = runs.listed("r", [0])
    for wanted, kept in (
        (Filter(frame_budget=4), True),
        (Filter(frame_budget=8), False),
        (Filter(family="colour"), True),
        (Filter(family="order"), False),
        (Filter("wrong", 4, "colour"), True),
        (Filter("right", 4, "colour"), False),
    ):
        assert wanted.keeps(one) == kept


def test_rows_of_an_evaluation_are_grouped_by_task(tmp_path):
    runs = Runs([write_run(tmp_path / "r", "/v.mp4", 1)])
    rows = runs.rows("r", "after")
    assert [(one.group, one.member, one.correct, one.forced) for one in rows] == [
        (0, 0, 1.0, False),
        (1, 0, 0.0, False),
    ]
    with pytest.raises(CannotShow):
        runs.rows("r", "../after")


def test_an_evaluation_that_goes_on_shows_its_rows_so_far(tmp_path):
    folder = write_run(tmp_path / "r", "/v.mp4", 1)
    runs = Runs([folder])
    assert list(runs.evaluations("r")) == ["after"]
    for name in ("after.rows", "paravt7/mlvu/after.rows-1of2"):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = RowFile(path, HEADER)
        if "mlvu" not in name:
            assert "after.rows" not in runs.evaluations("r"), "the whole report is there"
            (folder / "after.json").unlink()
        with pytest.raises(CannotShow, match="no row yet"):
            runs.report("r", name)
        rows.add(("a", 4), row("a", 1.0))
        assert [one.task_id for one in runs.report("r", name).rows] == ["a"]
        rows.add(("b", 4), row("b", 0.0))
        assert [one.correct for one in runs.rows("r", name)] == [1.0, 0.0]
        rows.close()
    assert list(runs.evaluations("r")) == ["after.rows", "paravt7/mlvu/after.rows-1of2"]


@pytest.mark.parametrize("text", ["", "step:", "step:-1", "step:x", "eval:", "../x", "step:1e3"])
def test_sources_are_known_or_refused(text):
    with pytest.raises(CannotShow):
        Source.parse(text)


@pytest.mark.parametrize(
    "damage",
    [
        {"evidence": [["x", 1]]},
        {"reward": "NaN"},
        {"terms": 3},
        {"turns": [{"crops": [{"window": [1]}]}]},
        {"conversations": [{"kind": "main"}]},
        {"duration": None},
    ],
)
def test_a_damaged_rollout_is_not_shown(tmp_path, damage):
    runs = Runs([write_run(tmp_path / "r", "/v.mp4", 1, **damage)])
    with pytest.raises(CannotShow, match="damaged") as refused:
        runs.shown("r", Source(0), 0)
    assert refused.value.status == 422


def test_curves_are_drawn_again_only_for_new_steps(tmp_path, monkeypatch):
    drawn = []

    def draw(steps):
        drawn.append(len(steps))
        return str(len(steps))

    monkeypatch.setattr(run_data, "curves", draw)
    folder = write_run(tmp_path / "r", "/v.mp4", 2)
    runs = Runs([folder])
    assert runs.charts("r") == runs.charts("r") == "2"
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "reward": 1}\n')
    assert runs.charts("r") == "3" and drawn == [2, 3]
