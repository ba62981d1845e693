"""The variant of the synthetic world in which a look pays at every frame budget."""

import argparse
from pathlib import Path

import pytest

from paravt_env.tasksets import load_tasks
from paravt_env.tasksets.made.synthetic.brief import BriefSettings
from paravt_env.tasksets.made.synthetic.generate import plan_tasks, settings_folder
from paravt_env.tasksets.made.synthetic.oracle import asked_scenes, visible_cues
from paravt_env.tasksets.made.synthetic.stats import stats
from paravt_env.tasksets.made.synthetic.world import WorldSettings
from paravt_env.video.sampler import overview_times
from train.commands import data

KEPT = Path(__file__).parents[2] / "benchmarks" / "results" / "data_stats_brief.txt"


@pytest.fixture(scope="module")
def tasks():
    return plan_tasks(BriefSettings(), "test", 48)


def test_a_perfect_reader_is_right_twice_as_often_if_it_looks(tasks):
    rows = stats(tasks)
    seen = {row.budget: row.accuracy for row in rows if row.policy == "overview only"}
    looked = {row.budget: row.accuracy for row in rows if row.policy == "cue-guided crops"}
    assert list(seen) == [4, 8, 16, 32, 64]
    assert all(looked[k] >= 2 * seen[k] for k in seen)
    assert min(looked.values()) > 0.97 and seen[4] < 0.25 < seen[64] < 0.5


def test_the_committed_table_is_what_the_command_prints(capsys):
    """`paravt data stats synthetic_brief`, and twice the overview in every line of it."""
    command, *table = KEPT.read_text().rstrip("\n").split("\n")
    assert command == "$ paravt data stats synthetic_brief"
    assert data.run(argparse.ArgumentParser(), ["stats", "synthetic_brief"]) == 0
    assert capsys.readouterr().out.rstrip("\n").split("\n") == table


def test_questions_name_scenes_that_four_frames_show(tasks):
    assert len(tasks) == 48 * 4
    assert {task.family for task in tasks} == {"flash", "open", "where", "count", "order"}
    for task in tasks:
        cues = visible_cues(task, overview_times(task.metadata["duration"], 4))
        assert asked_scenes(task, cues) == tuple(task.metadata["asked"])


def test_the_old_world_is_as_it_was(tmp_path):
    old, new = (settings_folder(kind(), tmp_path) for kind in (WorldSettings, BriefSettings))
    assert old.parent.name == "synthetic" and new.parent.name == "synthetic_brief"
    assert "asked_at" not in WorldSettings().as_dict()
    anywhere = plan_tasks(WorldSettings(), "test", 2)
    shown = [visible_cues(t, overview_times(t.metadata["duration"], 4)) for t in anywhere]
    asked = [asked_scenes(t, cues) for t, cues in zip(anywhere, shown, strict=True)]
    assert any(None in scenes for scenes in asked)


def test_a_split_is_made_like_those_of_the_old_world(tmp_path):
    made = load_tasks("synthetic_brief", split="val", videos=1, root=tmp_path, questions=2)
    assert len(made) == 2 and made[0].metadata["event_seconds"] == 2.6
    assert Path(made[0].video).is_file() and made[0].source == "synthetic"
