"""Studies: which runs there are, that none runs twice, and what their table says."""

import math
import os
from dataclasses import replace

import pytest
import yaml
from builders import SIZE, make_task, write_manifest
from test_evaluate import report, row

import train.launch
from train import study
from train.config import TrainConfig
from train.errors import ConfigError
from train.study import Arm, Cell, Start, StudyConfig
from train.study_report import Result, difference, figure, necessity_gap, pooled, table, write


def test_every_arm_of_the_search_is_vanilla_and_stays_off_the_test_split(tmp_path):
    regimes = study.load("regimes")
    found = [c.config for c in study.cells(regimes, tmp_path, [*regimes.arms], [0], False)]
    assert {c.env.reward for c in found} == {"vanilla"}
    assert {c.evaluation.split for c in found} == {"val"}
    settings = [(c.agent, c.algorithm, c.env) for c in found]
    assert all(settings.count(one) == 1 for one in settings)


def test_every_arm_of_the_packaged_study_is_a_valid_recipe(tmp_path):
    paradox = study.load("paradox")
    found = {
        cell.arm: cell.config for cell in study.cells(paradox, tmp_path, [*paradox.arms], [0], True)
    }
    assert set(found) == set(paradox.arms)
    vanilla, anchoring, gating, both = (found[name] for name in paradox.main)
    assert [c.env.frame_budget == 16 for c in (vanilla, anchoring, gating, both)] == [
        True,
        True,
        False,
        False,
    ]
    assert [c.agent.forced_prefix for c in (vanilla, anchoring, gating, both)] == [
        "",
        "<think>\n",
        "",
        "<think>\n",
    ]
    assert {c.agent.checkpoint for c in (vanilla, both)} == {str(tmp_path / "starts" / "strong")}


def test_seeds_come_one_after_the_other_and_a_start_is_played_once(tmp_path):
    paradox = study.load("paradox")
    found = study.cells(paradox, tmp_path, ["vanilla", "start"], [3, 4], False)
    assert [(cell.arm, cell.seed) for cell in found] == [
        ("vanilla", 3),
        ("start", 3),
        ("vanilla", 4),
    ]
    assert [cell.folder.name for cell in found] == ["vanilla-3", "start", "vanilla-4"]
    assert found[0].config.run.seed == 3


@pytest.mark.parametrize(
    "arms, message", [(["vanila"], "vanilla"), (["typo"], "learning_rate")], ids=["arm", "override"]
)
def test_a_mistake_names_what_was_meant(tmp_path, arms, message):
    paradox = study.load("paradox")
    paradox.arms["typo"] = Arm(start="weak", overrides={"algorithm.learningrate": 1})
    with pytest.raises(ConfigError, match=message):
        study.cells(paradox, tmp_path, arms, [0], False)


def test_an_unknown_study_or_start_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="paradox"):
        study.load("paradoxx")
    path = tmp_path / "s.yaml"
    path.write_text(
        yaml.safe_dump({"starts": {"a": {}}, "arms": {"x": {"start": "b"}}, "baseline": "x"})
    )
    with pytest.raises(ConfigError, match="'b'"):
        study.load(str(path))


@pytest.fixture
def scripted(tmp_path, clip):
    """A study of two scripted policies on one tiny task."""
    os.link(clip, tmp_path / "clip.mp4")
    tasks = write_manifest(tmp_path / "tasks.jsonl", [make_task(str(tmp_path / "clip.mp4"))])
    return StudyConfig(
        overrides={
            "env.tasks": tasks,
            "env.tasks_kwargs": None,
            "env.frame_size": list(SIZE),
            "evaluation.frame_budgets": [2],
        },
        starts={"none": Start()},
        arms={
            name: Arm(evaluate_only=True, overrides={"evaluation.policy": name})
            for name in ("majority", "oracle")
        },
        main=("majority", "oracle"),
        baseline="majority",
    )


def test_a_study_runs_what_is_missing_and_nothing_twice(scripted, tmp_path):
    said: list[str] = []
    first = study.run(scripted, tmp_path / "runs", jobs=1, say=said.append)
    assert [cell.arm for cell in first] == ["majority", "oracle"]
    stamps = [(cell.folder / study.SAMPLED).stat().st_mtime_ns for cell in first]
    second = study.run(scripted, tmp_path / "runs", jobs=1, say=said.append)
    assert [(cell.folder / study.SAMPLED).stat().st_mtime_ns for cell in second] == stamps
    assert said[-1] == f"2 runs in {tmp_path / 'runs'}, 2 of them finished before"
    table_path, figure_path, text = write(scripted, second, tmp_path / "runs")
    assert table_path.read_text() == text and figure_path.is_file()
    assert "| oracle | 1 | 100.0 % [100.0, 100.0] |" in text


def test_a_run_that_fails_is_said_and_the_others_go_on(scripted, tmp_path):
    scripted.arms["broken"] = Arm(
        start="none", evaluate_only=True, overrides={"agent.checkpoint": "none"}
    )
    said: list[str] = []
    finished = study.run(
        scripted, tmp_path / "runs", ["broken", "majority"], jobs=1, say=said.append
    )
    assert [cell.arm for cell in finished] == ["majority"]
    assert any("broken, seed 0: failed" in line for line in said)


def test_a_cell_that_was_stopped_goes_on(tmp_path, monkeypatch):
    seen = []

    def train_(config):
        seen.append(config.run.resume)
        return tmp_path / "model"

    monkeypatch.setattr(train.launch, "train", train_)
    monkeypatch.setattr(study, "measure", lambda config, agent, path: path.write_text("{}"))
    config = TrainConfig()
    config = replace(config, run=replace(config.run, folder=str(tmp_path), name="a-0"))
    cell = Cell("a", 0, config, False)
    study.run_cell(cell)
    (cell.folder / "checkpoints" / "step-000001").mkdir(parents=True)
    study.run_cell(cell)
    assert seen == [False, True]
    assert cell.done


def result(arm, *rows, steps=()):
    return Result(arm, arm, len(rows), rows, rows, steps or tuple([] for _ in rows))


def test_seeds_are_pooled_and_arms_paired_by_task():
    ours = [report(row("a", 1.0), row("b", 0.0)), report(row("a", 1.0), row("b", 1.0))]
    theirs = [report(row("a", 0.0), row("b", 0.0))]
    assert pooled(ours, lambda r: r.score).mean == 0.75
    assert pooled(ours, lambda r: r.score).rows == 4
    gap = difference(ours, theirs, lambda r: r.score)
    assert (gap.mean, gap.rows) == (0.75, 2)
    with pytest.raises(ValueError, match="different tasks"):
        difference(ours, [report(row("a"))], lambda r: r.score)


def test_the_necessity_gap_compares_callers_with_skippers_at_one_budget():
    rows = report(
        row("a", 1.0, calls=2),
        row("b", 0.5, calls=1),
        row("c", 0.25, calls=0),
        row("d", 1.0, calls=0, frame_budget=8),
    )
    assert necessity_gap([rows], 4) == 0.5
    assert math.isnan(necessity_gap([rows], 8))


def test_the_table_marks_differences_that_exclude_zero():
    config = StudyConfig(starts={"s": Start()}, arms={"a": Arm(), "b": Arm()}, baseline="a")
    names = [str(n) for n in range(20)]
    low = report(*(row(n, 0.0) for n in names))
    high = report(*(row(n, 1.0) for n in names))
    text = table(config, [result("a", low), result("b", high)])
    assert "**+100.0 [+100.0, +100.0]**" in text.splitlines()[3]
    assert "minus a" in text.splitlines()[0]


def test_the_figure_draws_the_mean_of_the_seeds():
    steps = tuple([{"step": 0, "accuracy": value}] for value in (0.0, 0.5))
    drawn = figure([result("a", report(row()), report(row()), steps=steps)])
    assert drawn.startswith("<svg xmlns=") and "a: 0.25" in drawn
