"""Studies over two dials: their starts and arms, the map of what lives, and predictions held."""

import math
from pathlib import Path

import pytest

from train.lab.study import study
from train.lab.study.arms import Arm, StartingPolicy
from train.lab.study.grid import Axis, Grid, with_setting
from train.lab.study.phase import drift_lines, fate, phase_figure, phase_table
from train.lab.study.results import Result
from train.lab.study.settings import StudyConfig, load

PLANE = {
    "x": Axis("native share", "traces.native", (0.25, 0.5)),
    "y": Axis("steps", "stages.0.steps", (10, 20)),
    "start": StartingPolicy(
        checkpoint="paravt_mini",
        sft="sft_mini",
        overrides={
            "traces": {"call": 0.4},
            "stages": [{"steps": 1, "rollouts": 8, "conversations": 2}],
        },
    ),
    "arms": {"vanilla": Arm(title="vanilla GRPO"), "both": Arm(overrides={"run.steps": 3})},
}


@pytest.fixture
def grid():
    return Grid(**PLANE)


def test_a_grid_has_a_start_for_each_pair_and_its_arms_from_each(grid, tmp_path):
    made = StudyConfig(grid=grid, seeds=(0,), greedy=False)
    assert list(made.starts) == [
        "native0.25-steps10", "native0.5-steps10", "native0.25-steps20", "native0.5-steps20"
    ]  # fmt: skip
    assert made.baseline == made.main[0] == "native0.25-steps10-vanilla" and len(made.main) == 8
    arm = made.arms["native0.5-steps20-both"]
    assert (arm.start, arm.control) == ("native0.5-steps20", "native0.5-steps20-vanilla")
    start = study.start_config(made, tmp_path, arm.start)
    assert (start.traces.native, start.traces.call, start.stages[0].steps) == (0.5, 0.4, 20)
    assert PLANE["start"].overrides["stages"][0]["steps"] == 1, "nothing shared is changed"
    cells = study.cells(made, tmp_path, made.main, (0,), quick=False)
    assert {cell.evaluations for cell in cells} == {(study.SAMPLED,)}
    assert cells[7].config.run.steps == 3
    assert cells[7].folder == tmp_path / "native0.5-steps20-both-0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": Axis("", "traces.native", ())}, "needs a setting and different values"),
        ({"x": Axis("", "traces.native", (1.0, 1.0))}, "needs a setting and different values"),
        ({"y": Axis("", "traces.native", (1.0,))}, "both axes of the grid change traces.native"),
        ({"arms": {}}, "needs arms"),
        ({"start": StartingPolicy(checkpoint="paravt_mini")}, "a start with an sft"),
    ],
)
def test_a_grid_that_draws_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Grid(**{**PLANE, **changes})


@pytest.mark.parametrize("setting", ["stages.3.steps", "stages.x.steps", "stages.0.steps.more"])
def test_a_dial_that_leads_nowhere_is_named(setting):
    with pytest.raises(ValueError, match=f"the grid's {setting} leads into"):
        with_setting({"stages": [{"steps": 1}]}, setting, 2)


def log(*steps, **first):
    keys = "compliance", "calls", "accuracy"
    rows = [{"step": n, **dict(zip(keys, step, strict=True))} for n, step in enumerate(steps)]
    rows[0] |= first
    return rows


def test_what_lives_at_the_end_of_a_run():
    ends = [(0.2, 0.8, 0.1), (0.6, 0.05, 0.2), *[(0.9, 0.06, 0.3)] * 3, (0.7, 0.08, 0.4)]
    one = fate(Result("a", "a", steps=(log(*ends),)))
    assert (one.seeds, one.steps, one.before) == (1, 6, (0.2, 0.8))
    assert one.after == pytest.approx((0.8, 0.062)) and one.accuracy == pytest.approx(0.3)
    assert one.said == "both live"
    said = {}
    for form, calls in ((0.5, 0.051), (0.49, 0.051), (0.5, 0.05), (0.49, 0.05)):
        said[form, calls] = fate(Result("a", "a", steps=(log((form, calls, 0.0)),))).said
    assert list(said.values()) == ["both live", "the form dies", "the tool dies", "both die"]
    assert fate(Result("a", "a")) is None
    two = fate(Result("a", "a", steps=(log((0.0, 0.0, 0.0)), log((1.0, 2.0, 1.0)))))
    assert (two.seeds, two.after, two.accuracy) == (2, (0.5, 1.0), 0.5)


@pytest.fixture
def found():
    share, drift = "behaviour/native_calls", "diagnostics/drift/native_calls"
    down = log((0.1, 1.0, 0.2), (0.9, 0.0, 0.3), **{share: 0.5, drift: -0.2})
    down[1][share] = 0.25
    rest = {"structured_calls": 0.0, "structured_skips": 0.375, "native_skips": 0.125}
    down[0] |= {f"behaviour/{name}": value for name, value in rest.items()}
    up = log((0.1, 1.0, 0.2), (0.2, 2.0, 0.3), **{share: 0.5, drift: -0.1})
    up[1][share] = 0.75
    return [
        Result("native0.25-steps10-vanilla", "v", steps=(down,)),
        Result("native0.5-steps10-vanilla", "v", steps=(up,)),
        Result("native0.5-steps10-both", "b"),
    ]


def test_the_map_says_where_what_lives(grid, found):
    table = phase_table(grid, found)
    rows = [line for line in table.splitlines() if line.startswith("| 0")]
    assert rows == [
        "| 0.25 | 10 | vanilla | 1 | 2 | 0.00 0.38 0.50 0.12 | 0.10 -> 0.50 | 1.00 -> 0.50 | 0.25 "
        "| both live |",
        "| 0.5 | 10 | vanilla | 1 | 2 |  | 0.10 -> 0.15 | 1.00 -> 1.50 | 0.25 | the form dies |",
    ]
    figure = phase_figure(grid, found)
    assert figure.count(">not run<") == 2 and "vanilla GRPO" in figure
    assert "f 0.10 -&gt; 0.50" in figure and ">the form dies<" in figure
    assert phase_table(grid, []) == drift_lines(grid, []) == ""


def test_predictions_are_counted_and_misses_named(grid, found):
    lines = drift_lines(grid, found).splitlines()
    assert lines.count("- vanilla: 1 of 2 clear moves right, 1 of all 2") == 2
    assert "Against the mean share of the 10 steps after it:" in lines
    assert "Against the mean share of the last 5 steps:" in lines
    assert lines[-1] == (
        "- missed: native0.5-steps10, vanilla, native_calls: predicted -0.100, share 0.50 -> 0.75"
    )


def test_the_end_of_a_run_is_held_against_the_prediction_too(grid):
    share, drift = "behaviour/native_calls", "diagnostics/drift/native_calls"
    turned = log(*[(0.0, 1.0, 0.0)] * 16, **{drift: -0.1})
    for step, value in zip(turned, [0.5] + [0.75] * 10 + [0.25] * 5, strict=True):
        step[share] = value
    lines = drift_lines(grid, [Result("native0.25-steps10-both", "b", steps=(turned,))])
    first, end = lines.split("Against the mean share of the last 5 steps")
    assert "- both: 0 of 1 clear moves right, 0 of all 1" in first and "share 0.50 -> 0.75" in first
    assert "- both: 1 of 1 clear moves right, 1 of all 1" in end and "missed" not in end


def test_the_packaged_map_starts_from_priors_that_conflict(tmp_path):
    prior = load("prior")
    for name, (x, y) in prior.grid.places().items():
        start = study.start_config(prior, tmp_path, name)
        assert (start.traces.native, start.traces.call) == (x, y)
        assert start.traces.native_call == 0.97 > y and start.traces.mistake == 0.05
        assert start.agent.checkpoint == str(tmp_path / "starts" / "pretraining")
    first = study.start_config(prior, tmp_path, "pretraining")
    assert (first.traces.native, first.stages[0].name) == (1.0, "pretraining")
    cells = study.cells(prior, tmp_path, prior.main, prior.seeds, quick=False)
    assert len(cells) == 2 * 2 * len(prior.grid.places())
    vanilla, both = (cell.config for cell in cells[:2])
    assert (vanilla.env.reward, vanilla.agent.forced_prefix) == ("vanilla", "")
    assert (both.env.reward, both.agent.forced_prefix, both.algorithm.credit) == (
        "paravt", "<think>\n", "token"
    )  # fmt: skip
    assert vanilla.diagnostics.every > vanilla.run.steps == 25, "the first step alone predicts"
    assert math.isclose(vanilla.optimizer.learning_rate, both.optimizer.learning_rate)
    assert Path(both.run.folder) == tmp_path
