"""Studies: which runs there are, that none runs twice, and what their table says."""

import os
import re
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import yaml
from support.builders import SIZE, make_task, write_manifest
from support.evaluations import report, row
from support.recipes import MECHANISMS, SHAPE, differences
from support.tiny_runs import tiny_settings, with_run

from paravt_env.rewards import make_preset
from train.common.errors import ConfigError
from train.config import recipe
from train.config.evaluation import EvalConfig
from train.config.sft import SFTConfig
from train.evaluation.measure import measure
from train.lab.study import cells as study_cells
from train.lab.study import study
from train.lab.study.cells import GREEDY, SAMPLED, Cell, cold_start, differing
from train.lab.study.goals import goals
from train.lab.study.report import figure, table, way_there, write
from train.lab.study.results import Result, results
from train.lab.study.settings import Arm, Goal, StartingPolicy, StudyConfig, load
from train.lab.study.statistics import average, difference, score, tool_gap
from train.learner import checkpoint
from train.report.charts import recent_mean, seeds_chart
from train.sft import sft


def test_no_arm_of_the_search_has_a_mechanism_or_sees_the_test_disaggregated(tmp_path):
    regimes = load("regimes")
    cells = study.cells(regimes, tmp_path, regimes.main, [0], False)
    found = [cell.config for cell in cells]
    assert {c.env.reward for c in found} == {"vanilla", "longvila"}  # neither has the anchor
    assert {(c.agent.forced_prefix, c.env.frame_budget, c.algorithm.credit) for c in found} == {
        ("", 16, "trajectory")
    }
    assert {c.evaluation.split for c in found} == {"val"}
    trained = [cell.config for cell in cells if not cell.evaluate_only]
    settings = [(c.agent, c.algorithm, c.optimizer, c.env) for c in trained]
    assert all(settings.count(one) == 1 for one in settings)


def test_where_the_form_is_lost_the_search_has_each_mechanism_alone_and_both(tmp_path):
    regimes = load("regimes")
    names = [
        "hot_fast",
        *(name for name in regimes.arms if regimes.arms[name].control == "hot_fast"),
    ]
    found = [cell.config for cell in study.cells(regimes, tmp_path, names, [0], False)]
    mechanisms = [(c.env.reward, c.algorithm.credit, c.env.frame_budget != 16) for c in found]
    plain, anchored = ("vanilla", "trajectory"), ("paravt", "token")
    assert mechanisms == [(*kind, gated) for gated in (False, True) for kind in (plain, anchored)]
    assert [bool(c.agent.forced_prefix) for c in found] == [False, True, False, True]
    same = {(c.agent.temperature, c.optimizer.learning_rate, c.evaluation.split) for c in found}
    assert same == {(1.6, 3.0e-4, "val")}


def test_every_arm_of_the_packaged_study_is_a_valid_recipe(tmp_path):
    paradox = load("strong")
    found = {
        cell.arm: cell.config for cell in study.cells(paradox, tmp_path, [*paradox.arms], [0], True)
    }
    assert set(found) == set(paradox.arms)
    vanilla, anchoring, gating, both = (found[name] for name in paradox.main[1:])
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


BOTH = MECHANISMS["vanilla_grpo"]
ARMS = {
    "start": ("start", set()), "strong_start": ("vanilla", BOTH), "vanilla": ("vanilla", set()),
    "anchoring": ("vanilla", BOTH - {"env.frame_budget"}),
    "gating": ("vanilla", {"env.frame_budget"}), "paragrpo": ("vanilla", BOTH),
    "no_tool_gain": ("paragrpo", {"env.reward"}),
    "no_unclosed_penalty": ("paragrpo", {"env.reward"}),
    "weak_vanilla": ("start", BOTH), "weak_paragrpo": ("weak_vanilla", BOTH),
    "sequential": ("strong_start", {"env.max_crops"}),
    "frames": ("strong_start", {"agent.evidence"}),
}  # fmt: skip
"""The control of each arm of the packaged study, and the settings in which they differ."""


def test_an_arm_differs_from_its_control_by_what_it_is_named_after(tmp_path):
    paradox = load("strong")
    made = study.cells(paradox, tmp_path, [*paradox.arms], [0], False)
    config = {cell.arm: cell.config for cell in made}
    found = {
        name: (arm.control, differences(config[name], config[arm.control]))
        for name, arm in paradox.arms.items()
    }
    assert found == ARMS
    presets = {name: make_preset(one.env.reward) for name, one in config.items()}
    whole = presets["paragrpo"]
    assert presets["no_tool_gain"].weights == {"answer": 1.0, "format_anchor": 1.0}
    assert whole.weights == {**presets["no_tool_gain"].weights, "tool_gain": 1.0}
    assert whole.terms["format_anchor"][1].unclosed_penalty
    assert not presets["no_unclosed_penalty"].terms["format_anchor"][1].unclosed_penalty
    assert presets["no_unclosed_penalty"].weights == whole.weights


CONFLICT = {
    "base": ("start", set()), "start": ("start", set()),
    "anchored_start": ("start", BOTH - {"env.frame_budget"}),
    "vanilla": ("vanilla", set()), "anchoring": ("vanilla", BOTH - {"env.frame_budget"}),
    "gating": ("vanilla", {"env.frame_budget"}), "paragrpo": ("vanilla", BOTH),
    "no_tool_gain": ("paragrpo", {"env.reward"}), "necessity": ("paragrpo", {"env.reward"}),
    "trajectory": ("paragrpo", {"algorithm.credit"}),
    "never_start": ("never_start", set()), "never_vanilla": ("never_start", BOTH),
    "never_paragrpo": ("never_vanilla", BOTH), "seldom_vanilla": ("never_start", BOTH),
    "seldom_paragrpo": ("seldom_vanilla", BOTH),
}  # fmt: skip
"""The same of the study from a prior in conflict; starts differ beside them."""


def test_the_arms_from_a_conflict_are_those_of_the_paper(tmp_path):
    paradox = load("paradox")
    made = study.cells(paradox, tmp_path, [*paradox.arms], [0], False)
    config = {cell.arm: cell.config for cell in made}
    found = {}
    for name, arm in paradox.arms.items():
        changed = differences(config[name], config[arm.control]) - {"agent.checkpoint"}
        found[name] = arm.control, changed
    assert found == CONFLICT
    assert len(paradox.seeds) >= 5 and config["vanilla"].run.steps == 60
    assert not any(one.env.force_answer for one in config.values())
    starts = {name: study.start_config(paradox, tmp_path, name) for name in paradox.starts}
    traces = {name: one.traces for name, one in starts.items()}
    assert (traces["pretraining"].native, traces["pretraining"].native_call) == (1.0, 0.97)
    assert (traces["conflict"].native, traces["conflict"].call) == (0.5, 0.15)
    assert (traces["never"].call, traces["never"].native, traces["seldom"].call) == (0, 0, 0.01)
    assert starts["conflict"].agent.checkpoint == starts["pretraining"].output


@pytest.mark.parametrize("name", ["paradox", "prior"])
def test_the_keys_of_the_studies_serve_8b(name, tmp_path):
    """Arms and starts name settings that the recipes of an 8B model have too."""
    packaged = load(name)
    packaged.recipe = "paragrpo_8b"
    for cell in study.cells(packaged, tmp_path, [*packaged.arms], [0], False):
        assert cell.config.parallel.gpus == 8
    for start in packaged.starts.values():
        start.sft = "sft_paravt_8b"
    settings = [study.start_config(packaged, tmp_path, one) for one in packaged.starts]
    assert all(one.env.tasks == "paravt_sft" for one in settings)


def test_seeds_come_one_after_the_other_and_a_start_is_played_greedily_once(tmp_path):
    paradox = load("strong")
    found = study.cells(paradox, tmp_path, ["vanilla", "start"], [3, 4], False)
    assert [(cell.folder.name, cell.evaluations) for cell in found] == [
        ("vanilla-3", (GREEDY, SAMPLED)),
        ("start-3", (GREEDY, SAMPLED)),
        ("vanilla-4", (GREEDY, SAMPLED)),
        ("start-4", (SAMPLED,)),
    ]
    assert [cell.config.run.seed for cell in found] == [3, 3, 4, 4]
    assert {cell.config.evaluation.seed for cell in found} == {0}


def test_arms_are_compared_with_their_control_and_it_must_be_an_arm(tmp_path):
    arms = load("strong").arms
    assert {arms[name].control for name in ("sequential", "frames")} == {"strong_start"}
    assert arms["gating"].control == "vanilla"
    with pytest.raises(ValueError, match="did you mean 'a'"):
        StudyConfig(starts={"s": StartingPolicy()}, arms={"a": Arm(control="aa")}, baseline="a")
    with pytest.raises(ValueError, match="did you mean 'a'"):
        aim = Goal("a", beside="aa", measure="f")
        StudyConfig(starts={"s": StartingPolicy()}, arms={"a": Arm()}, baseline="a", goals=(aim,))


@pytest.mark.parametrize(
    "arms, message", [(["vanila"], "vanilla"), (["typo"], "learning_rate")], ids=["arm", "override"]
)
def test_a_mistake_names_what_was_meant(tmp_path, arms, message):
    paradox = load("strong")
    paradox.arms["typo"] = Arm(start="weak", overrides={"algorithm.learningrate": 1})
    with pytest.raises(ConfigError, match=message):
        study.cells(paradox, tmp_path, arms, [0], False)


def test_an_unknown_study_or_start_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="paradox"):
        load("paradoxx")
    path = tmp_path / "s.yaml"
    path.write_text(
        yaml.safe_dump({"starts": {"a": {}}, "arms": {"x": {"start": "b"}}, "baseline": "x"})
    )
    with pytest.raises(ConfigError, match="'b'"):
        load(str(path))


def test_a_start_goes_on_from_an_earlier_one(tmp_path):
    first = StartingPolicy(checkpoint="paravt_mini", sft="sft_mini")
    starts = {"pretraining": first, "long": StartingPolicy(after="pretraining", sft="sft_mini")}
    starts |= {"other": StartingPolicy(checkpoint="paravt_mini")}
    chained = StudyConfig(starts=starts, arms={"a": Arm(start="long")}, baseline="a")
    found = study.start_config(chained, tmp_path, "long")
    assert found.agent.checkpoint == str(tmp_path / "starts" / "pretraining")
    assert found.output == str(tmp_path / "starts" / "long")
    assert study.needed_starts(chained, ["other", "long"]) == ["pretraining", "long", "other"]
    assert study.needed_starts(chained, ["other"]) == ["other"]
    with pytest.raises(ValueError, match="'late'"):
        early = {"long": StartingPolicy(after="late", sft="sft_mini"), "late": first}
        StudyConfig(starts=early, arms={"a": Arm()}, baseline="a")
    with pytest.raises(ValueError, match="give it an sft and no checkpoint"):
        both = StartingPolicy(checkpoint="paravt_mini", after="pretraining", sft="sft_mini")
        StudyConfig(starts={"pretraining": first, "b": both}, arms={"a": Arm()}, baseline="a")


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
        starts={"none": StartingPolicy()},
        arms={
            name: Arm(evaluate_only=True, overrides={"evaluation.policy": name})
            for name in ("majority", "oracle")
        },
        main=("majority", "oracle"),
        baseline="majority",
        seeds=(0,),
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


def test_a_study_that_was_changed_is_refused_before_anything_runs(scripted, tmp_path):
    study.run(scripted, tmp_path / "runs", ["oracle"], jobs=1)
    scripted.overrides["env.max_crops"] = 2
    with pytest.raises(ConfigError, match=r"oracle-0 was made with other settings: env\.max_crops"):
        study.run(scripted, tmp_path / "runs", ["majority"], jobs=1)
    assert not (tmp_path / "runs" / "majority-0").exists()


@pytest.fixture
def cell(tmp_path, clip, other_clip):
    """One step of training on a random policy, then evaluations of two tasks."""
    config = with_run(tiny_settings(tmp_path, (clip, other_clip), SHAPE), "a-0", steps=1)
    method = replace(config.algorithm, groups=2, group_size=2)
    asked = EvalConfig(frame_budgets=(1,), num_envs=1, resamples=10)
    return Cell("a", 0, replace(config, algorithm=method, evaluation=asked), False)


def test_a_cell_that_was_killed_during_its_evaluation_goes_on(cell, monkeypatch):
    def killed(done, *rest):
        if done:
            raise RuntimeError("killed")

    monkeypatch.setattr(study_cells, "measure", lambda *args: measure(*args, killed))
    with pytest.raises(RuntimeError, match="killed"):
        study.run_cell(cell)
    rows = cell.folder / "greedy.rows.jsonl"
    first = rows.read_text()
    assert len(first.splitlines()) == 2 and not cell.done
    monkeypatch.undo()
    study.run_cell(cell)
    assert cell.done
    assert rows.read_text().startswith(first)


def test_a_cell_goes_on_from_its_checkpoint_and_samples_with_its_seed(cell, tmp_path, monkeypatch):
    resumed, measured = [], []

    def train(config, observers):
        resumed.append(config.run.resume)
        return tmp_path / "model"

    def played(config, agent, path):
        both = config.evaluation, agent.config.evaluation
        measured.append((path.name, *((one.temperature, one.seed) for one in both)))

    monkeypatch.setattr("train.loop.launch.train", train)
    monkeypatch.setattr(study_cells, "measure", played)
    cell = replace(cell, seed=7)
    study.run_cell(cell)
    checkpoint.save(cell.folder, 1, lambda model: None, {}, {})
    study.run_cell(cell)
    assert resumed == [False, True]
    assert measured[:2] == [
        (GREEDY, (0.0, 0), (0.0, 7)),
        (SAMPLED, (1.0, 0), (1.0, 7)),
    ]


def changed(config, **groups):
    return replace(config, **{k: replace(getattr(config, k), **v) for k, v in groups.items()})


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: (folder / GREEDY).touch(),
        lambda f: checkpoint.save(f, 1, lambda m: None, {}, {}),
    ],
    ids=["report", "checkpoint"],
)
def test_what_was_made_with_other_settings_is_never_taken_for_the_outcome_of_these(cell, make):
    other = replace(cell, config=changed(cell.config, optimizer={"learning_rate": 0.5}))
    recipe.save(cell.config, cell.folder)
    other.check()  # nothing is there yet
    make(cell.folder)
    cell.check()
    message = r"a-0 was made with other settings: optimizer\.learning_rate \(0\.001, now 0\.5\)\."
    with pytest.raises(ConfigError, match=message):
        other.check()
    (cell.folder / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"config\.yaml is missing"):
        cell.check()


def test_a_study_may_be_moved_and_run_in_another_way(cell):
    old = changed(cell.config, agent={"checkpoint": "runs/x/starts/s"}, run={"folder": "runs/x"})
    new = changed(old, agent={"checkpoint": "/y/starts/s"}, run={"folder": "/y", "resume": True})
    assert differing(old, new) == []
    assert differing(old, changed(new, agent={"device": "cuda"}, env={"video_workers": 9})) == []
    elsewhere = changed(new, agent={"checkpoint": "/z/starts/s"})
    assert differing(old, elsewhere) == ["agent.checkpoint (/y/starts/s, now /z/starts/s)"]
    reward = changed(new, env={"reward": {"preset": "paravt", "weights": {"tool_gain": 0.0}}})
    assert [one.split()[0] for one in differing(old, reward)] == [
        "env.reward",
        "env.reward.preset",
        "env.reward.weights.tool_gain",
    ]


def test_a_cold_start_is_whole_or_absent(tmp_path, monkeypatch):
    config = SFTConfig(output=str(tmp_path / "starts" / "s"))
    output, stages = tmp_path / "starts" / "s", []

    def run(config):
        stages.append(config.output)
        recipe.save(config, (folder := tmp_path / config.output))
        (folder / "config.json").touch()  # after the first stage
        if len(stages) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(sft, "run", run)
    with pytest.raises(KeyboardInterrupt):
        cold_start(config)
    assert not output.exists()
    for _ in range(2):
        cold_start(config)
    assert len(stages) == 2 and (output / "config.json").is_file()
    assert recipe.load(SFTConfig, output / "config.yaml").output == str(output)
    assert [path.name for path in output.parent.iterdir() if path.is_dir()] == ["s"]
    with pytest.raises(ConfigError, match=r"learning_rate \(0\.001, now 0\.5\)"):
        cold_start(replace(config, learning_rate=0.5))


def test_of_two_processes_one_makes_a_cold_start_and_the_other_waits(tmp_path, monkeypatch, capsys):
    config, made = SFTConfig(output=str(tmp_path / "starts" / "s")), []
    other = Thread(target=cold_start, args=(config,))

    def run(config):
        made.append(config.output)
        if len(made) == 1:
            other.start()
            other.join(0.3)  # it would make its own by then
        recipe.save(config, tmp_path / config.output)

    monkeypatch.setattr(sft, "run", run)
    cold_start(config)
    other.join()
    assert len(made) == 1
    assert "another process is making" in capsys.readouterr().out


# ---- statistics -----------------------------------------------------------------------------


def scored(*scores, calls=1):
    """A seed's report: task n has the nth score."""
    return report(*(row(str(n), float(value), calls=calls) for n, value in enumerate(scores)))


def of_accuracies(accuracies, tasks=400, seed=0):
    rng = np.random.default_rng(seed)
    return [scored(*(rng.permutation(tasks) < tasks * share)) for share in accuracies]


def merged(reports):
    """All seeds as if they were one."""
    return [report(*(one for each in reports for one in each.rows))]


def test_seeds_that_disagree_are_no_finding_however_many_tasks_there_are():
    ours, theirs = of_accuracies((0.81, 0.54, 0.31)), of_accuracies((0.43, 0.53, 0.48), seed=1)
    tasks_alone = difference(merged(ours), merged(theirs), score)
    assert tasks_alone.excludes_zero and tasks_alone.spread is None
    both = difference(ours, theirs, score)
    assert not both.excludes_zero
    assert both.mean == pytest.approx(tasks_alone.mean) == pytest.approx(0.22 / 3, abs=0.005)
    assert both.spread == pytest.approx((0.31 - 0.53, 0.81 - 0.43), abs=0.006)
    assert len(both.seeds) == 9


def test_the_interval_of_an_arm_covers_seeds_and_tasks():
    opposite = average([scored(1, 1, 1), scored(0, 0, 0)], score)
    assert (opposite.mean, opposite.low, opposite.high) == (0.5, 0.0, 1.0)
    assert (opposite.spread, opposite.rows, opposite.clusters) == ((0.0, 1.0), 6, 3)
    hard = average([scored(1, 1, 0, 0)] * 3, score)
    assert hard.low < 0.3 and hard.high > 0.7  # tasks are drawn for all seeds at once
    assert average([], score) is None
    assert average([scored(1)], score, lambda row: False) is None


def test_two_arms_share_the_draw_of_the_tasks():
    values = (0.0, 0.25, 0.5, 1.0)
    shift = difference([scored(*values)], [scored(*(v - 0.25 for v in values))], score)
    assert (shift.mean, shift.low, shift.high) == pytest.approx((0.25, 0.25, 0.25))
    with pytest.raises(ValueError, match="different tasks"):
        difference([scored(1, 1)], [scored(1)], score)
    assert difference([scored(1)], [], score) is None


def test_questions_of_one_video_are_drawn_together():
    def of(*videos):
        return report(*(row(str(n), float(n < 2), video=v) for n, v in enumerate(videos)))

    two = average([of("v", "v", "w", "w")], score)
    assert (two.mean, two.low, two.high, two.clusters) == (0.5, 0.0, 1.0, 2)
    worse = report(*(row(str(n), 0.0, video=v) for n, v in enumerate("vvww")))
    gain = difference([of("v", "v", "w", "w")], [worse], score)
    assert (gain.low, gain.high, gain.clusters) == (0.0, 1.0, 2)
    eight = [average([report(*(row(str(n), n % 2, video=v) for n, v in enumerate(videos)))], score)
             for videos in ("abcdefgh", "hgfedcba", "vvvvvvvv")]  # fmt: skip
    assert eight[0] == eight[1] == eight[2] and eight[0].clusters == 8


def test_the_necessity_gap_compares_callers_with_skippers_that_could_be_scored():
    rows = (
        row("a", 1.0, calls=2),
        row("b", 0.5, calls=1),
        row("c", 0.25, calls=0),
        row("d", 0.0, calls=0, error="no video"),
        row("e", 0.0, calls=3, error="no answer"),
        row("f", 1.0, calls=0, frame_budget=8),
    )
    gap = tool_gap([report(*rows)], 4)
    assert gap.mean == 0.5 and gap.low == 0.25 and gap.high == 0.75
    assert tool_gap([report(*rows)], 8) is None


# ---- table, goals, figure -------------------------------------------------------------------


def result(arm, *seeds, greedy=None, steps=()):
    return Result(arm, arm, greedy or seeds, seeds, steps or tuple([] for _ in seeds))


def study_of(*names, **changes):
    arms = {name: Arm() for name in names} | changes.pop("arms", {})
    return StudyConfig(starts={"s": StartingPolicy()}, arms=arms, baseline=names[0], **changes)


def cells_of(text, place):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return dict(zip(*([c.strip() for c in lines[n].split("|")[1:-1]] for n in (0, place)),
                    strict=True))  # fmt: skip


def test_the_table_says_how_sure_it_is_of_what():
    config = study_of("a", "b", arms={"c": Arm(control="b"), "d": Arm()})
    low, high = scored(*[0] * 20, calls=0), scored(*[1] * 20, calls=2)
    arms = [result("a", low), result("b", high, high, greedy=(high,)), result("c", high)]
    text = table(config, [*arms, Result("d", "d")])
    a, b, c, d = (cells_of(text, place) for place in (2, 3, 4, 5))
    assert (a["control"], a["minus control (sampled)"]) == ("", "")
    assert b["accuracy (greedy)"] == "100.0 % [100.0, 100.0]"
    assert b["accuracy (sampled)"] == "100.0 % [100.0, 100.0] (seeds 100-100)"
    assert b["minus control (sampled)"] == "**+100.0 [+100.0, +100.0]** (seeds +100 to +100)"
    assert (b["seeds"], b["control"], c["control"]) == ("2", "a", "b")
    assert c["minus control (sampled)"] == "+0.0 [+0.0, +0.0] (seeds +0 to +0)"
    assert c["κ, K ≤ 8 (sampled)"] == c["κ (sampled)"] == "2.00 [2.00, 2.00]"
    assert c["TNG(4)"] == ""
    assert d == {**dict.fromkeys(d, ""), "arm": "d"}


def test_the_gap_stands_in_the_table_with_its_interval():
    mixed = report(*(row(str(n), n % 2, calls=n % 4) for n in range(40)))
    text = table(study_of("a"), [result("a", mixed)])
    form = r"\+0\.67 \[\+0\.\d\d, \+0\.\d\d\]"
    assert re.fullmatch(form, cells_of(text, 2)["TNG(4)"])


def test_arms_without_a_run_have_an_empty_row(scripted, tmp_path):
    study.run(scripted, tmp_path / "runs", ["oracle"], jobs=1)
    found = results(scripted, study.all_cells(scripted, tmp_path / "runs", [], False))
    assert [(one.arm, len(one.sampled)) for one in found] == [("majority", 0), ("oracle", 1)]
    assert table(scripted, found).splitlines()[2].replace(" ", "") == "|majority" + "|" * 10


AIMS = (
    Goal("b", "a", "greedy_accuracy"),
    Goal("b", "a", "accuracy"),
    Goal("b", "start", "f", least=0.9),
    Goal("b", "a", "low_calls", least=5),
    Goal("b", "start", "calls", title="it never learns to call", rises=False),
)
LIMITS = (Goal("b", "b", "calls", most=2.0), Goal("b", "b", "calls", "few", most=1.9))


def test_the_goals_are_measured_and_judged():
    config = study_of("a", "b", goals=AIMS, arms={"start": Arm(evaluate_only=True)})
    low, high = scored(*[0] * 20, calls=0), scored(*[1] * 20, calls=2)
    half = scored(*[0.5] * 20, calls=1)
    lines = goals(config, [result("a", half), result("b", high), result("start", low)]).splitlines()
    assert lines[-5:] == [
        "- accuracy (greedy) of b minus a, interval above zero: **+50.0 [+50.0, +50.0]**: yes",
        "- accuracy (sampled) of b minus a, interval above zero: **+50.0 [+50.0, +50.0]**: yes",
        "- f (sampled) of b, at least 0.9 times start: 1.000 / 1.000 = 1.00: yes",
        "- κ at K ≤ 8 (sampled) of b, at least 5 times a: 2.000 / 1.000 = 2.00: no",
        "- it never learns to call: κ (sampled) of b minus start, interval not above zero: "
        "+2.00 [+2.00, +2.00]: no",
    ]
    never = goals(config, [result("a", low), result("b", half)]).splitlines()
    assert never[-3].endswith(" start: not measured, run start")
    assert never[-2].endswith(": 1.000 / 0.000: yes")
    still = goals(config, [result("a", low), result("b", low), result("start", low)]).splitlines()
    assert still[-2].endswith(": 0.000 / 0.000: no")
    assert still[-1].endswith(": +0.00 [+0.00, +0.00]: yes")
    worse = goals(config, [result("a", high), result("b", half)]).splitlines()
    assert worse[3].endswith("**-50.0 [-50.0, -50.0]**: no")
    assert worse[-1].endswith(": not measured, run start")
    assert goals(replace(config, goals=()), []) == ""


def test_a_goal_may_limit_an_arm_alone():
    found = [result("b", scored(*[1] * 20, calls=2))]
    assert goals(study_of("b", goals=LIMITS), found).splitlines()[-2:] == [
        "- κ (sampled) of b, at most 2: 2.000: yes",
        "- few: κ (sampled) of b, at most 1.9: 2.000: no",
    ]
    missing = goals(study_of("b", goals=LIMITS), [])
    assert "at most 2: not measured, run b" in missing


def test_calls_at_few_frames_are_not_those_at_all():
    """A policy that calls where frames are many alone."""
    rows = [row(str(k), calls=int(k > 8), frame_budget=k) for k in (4, 8, 16)]
    aims = tuple(Goal("a", "b", measure, least=1.0) for measure in ("calls", "low_calls"))
    other = report(*(row(str(k), calls=1, frame_budget=k) for k in (4, 8, 16)))
    text = goals(study_of("a", "b", goals=aims), [result("a", report(*rows)), result("b", other)])
    assert re.findall(r"[\d.]+ / [\d.]+", text) == ["0.333 / 1.000", "0.000 / 1.000"]


def test_the_goals_of_the_packaged_study_are_those_of_its_paper():
    aims = load("strong").goals
    assert {(g.arm, g.beside, g.measure, g.least, g.rises) for g in aims} == {
        ("paragrpo", "vanilla", "greedy_accuracy", 0.0, True),
        ("paragrpo", "vanilla", "accuracy", 0.0, True),
        ("paragrpo", "strong_start", "f", 0.9, True),
        ("paragrpo", "vanilla", "low_calls", 5.0, True),
        ("anchoring", "strong_start", "f", 0.9, True),
        ("gating", "strong_start", "low_calls", 0.9, True),
        *((arm, "start", "f", 0.9, True) for arm in ("weak_vanilla", "weak_paragrpo")),
        *((arm, "start", "calls", 0.0, False) for arm in ("weak_vanilla", "weak_paragrpo")),
    }


def test_the_way_there_is_the_mean_of_the_first_and_of_the_last_steps():
    def seed(shift):
        return [
            {"step": n, "compliance": 1 - n / 10, "calls": n + shift, "executed_calls": n / 2}
            for n in range(10)
        ]

    steps = (seed(0.0), seed(1.0))
    trained = result("b", report(row()), report(row()), steps=steps)
    text = way_there([result("a", report(row())), trained])
    assert "of the first and of the last 5 training steps" in text
    assert text.splitlines()[-1] == "| b | 2 | 10 | 0.80 -> 0.30 | 2.50 -> 7.50 | 1.00 -> 3.50 |"
    assert cells_of(text, 2)["calls that ran"] == "1.00 -> 3.50"
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 3
    assert way_there([result("a", report(row()))]) == ""


def test_a_study_writes_the_way_there_below_its_table(scripted, tmp_path):
    study.run(scripted, tmp_path / "runs", ["oracle"], jobs=1)
    folder = tmp_path / "runs" / "oracle-0"
    (folder / "metrics.jsonl").write_text('{"step": 0, "compliance": 0.5, "calls": 1.0}\n')
    cells = study.all_cells(scripted, tmp_path / "runs", [], False)
    text = write(scripted, cells, folder)[2]
    assert "| oracle | 1 | 1 | 0.50 -> 0.50 | 1.00 -> 1.00 |  |" in text


def test_the_figure_draws_seeds_in_a_band_and_says_what_was_smoothed():
    steps = tuple([{"step": 0, "accuracy": v, "tng/K=4": v, "tng/K=8": v, "tng/K=16": v}]
                  for v in (0.0, 0.5))  # fmt: skip
    config = study_of("a", "b", main=("a",))
    seeds = result("a", report(row()), report(row()), steps=steps)
    drawn = figure(config, [seeds, Result("b", "")])
    assert drawn.startswith("<svg xmlns=") and "a: 0.25" in drawn
    assert drawn.count('class="band"') == 4
    assert re.findall(r"Gap at K = (\d+)<", drawn) == ["4", "8", "16"]
    assert "mean of the last 9 steps" in drawn and "other arms" not in drawn
    other = figure(config, [result("b", report(row()), steps=steps[:1])])
    assert "Accuracy (sampled, training tasks), other arms" in other and 'class="band"' not in other


def test_a_band_reaches_from_the_least_to_the_most_of_the_smoothed_seeds():
    seeds = [[(1, 0.0), (2, 1.0)], [(1, 1.0), (2, 1.0)]]
    drawn = seeds_chart("t", {"a": seeds, "empty": [[]]}, width=2)
    assert "a: 0.75" in drawn and "empty" not in drawn
    (band,) = re.findall(r'class="band" points="([^"]*)"', drawn)
    corners = [tuple(map(float, point.split(","))) for point in band.split()]
    assert [corners[0][0], corners[1][0]] == [corners[3][0], corners[2][0]]
    heights = [y for _, y in corners]
    assert heights[1] == pytest.approx((heights[0] + heights[3]) / 2, abs=0.1)  # 0.5
    assert heights[2] == heights[3]  # 1.0
    assert recent_mean([(1, 0.0)], 9) == 0.0 and recent_mean([(1, 0.0)], 10) is None
    assert seeds_chart("t", {}) == ""


def test_a_name_has_one_colour_in_all_charts_and_equal_values_are_level():
    curve = [[(step, 0.9) for step in range(20)]]
    both, second = (seeds_chart("t", {"a": one, "b": curve}) for one in (curve, []))
    colours = re.findall(r'class="line" points="[^"]*" stroke="(#\w+)"', both)
    assert len(set(colours)) == 2
    assert f'stroke="{colours[1]}"' in second and colours[0] not in second
    (points,) = re.findall(r'class="line" points="([^"]*)"', second)
    assert len({point.split(",")[1] for point in points.split()}) == 1
