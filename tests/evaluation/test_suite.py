"""The suite of published sets: who is evaluated, what stands beside, what differs."""

import json
from dataclasses import replace

import pytest
from support.builders import ListTasks, make_task
from support.evaluations import report, row

from agents.base import AgentError
from paravt_env.task import TaskError
from paravt_env.tasksets import TASKSETS
from train import cli
from train.common.errors import ConfigError
from train.config.env import EnvConfig
from train.config.evaluation import EvalConfig
from train.config.recipe import load
from train.config.run import TrainConfig
from train.config.suites import BASELINE, PARAVT, SUITES
from train.evaluation import measure
from train.evaluation.suite import SetOutcome, SuiteReport, differences
from train.evaluation.tables import table

SEVEN = SUITES["paravt7"]


def test_the_seven_splits_and_their_published_points():
    assert [(e.name, e.published[PARAVT], e.published[BASELINE]) for e in SEVEN] == [
        ("video_mme", 62.1, 59.9),
        ("video_mme_subtitles", 69.4, 68.4),
        ("longvideobench", 60.4, 52.2),
        ("lvbench", 39.8, 33.1),
        ("mlvu", 65.0, 58.3),
        ("mmvu", 68.6, 68.0),
        ("charades_sta", 50.1, 49.3),
    ]
    assert [e.metric for e in SEVEN] == ["accuracy"] * 4 + ["macro", "accuracy", "mIoU"]
    assert [e.subtitles for e in SEVEN] == [False, True, *[False] * 5]
    assert [e.answer_tokens for e in SEVEN] == [64] * 6 + [128]


def test_every_set_has_a_loader_and_the_recipe_the_published_protocol():
    assert {entry.tasks for entry in SEVEN} <= set(TASKSETS)
    config = load(TrainConfig, "paravt7")
    said = list(differences(config))
    assert config.evaluation.suite == "paravt7"
    for what in ("overview frames", "temperature", "tokens a turn", "calls a turn", "turns that"):
        assert not [line for line in said if line.startswith(what)]


def test_differences_are_those_of_the_settings():
    config = TrainConfig(
        env=EnvConfig(max_crops=1, frame_size=(300, 300)),
        evaluation=EvalConfig(frame_budgets=(32,), tasks=100, policy="majority", temperature=1.0),
    )
    said = list(differences(config))
    assert "calls a turn: 1; published: 5" in said
    assert "overview frames: [32]; published: [64]" in said
    assert "tasks of each set: 100; published: all" in said
    assert "temperature: 1.0; published: 0.0" in said
    assert "policy: majority" in said
    assert [line for line in said if "300 x 300 pixels, more than that" in line]
    assert [line for line in said if "token F1" in line]
    judged = replace(config, env=replace(config.env, reward={"judge": {"url": "u", "model": "m"}}))
    assert [line for line in differences(judged) if "an LLM judge" in line]


def test_how_answers_and_calls_are_read_is_said_where_it_differs():
    config = load(TrainConfig, "paravt7")
    said = list(differences(config))
    assert config.agent.answer_prefix is False and config.env.lenient_calls is True
    for what in ("untagged", "forced text", "tokens of the forced"):
        assert not [line for line in said if line.startswith(what)]
    for what in ("options: ", "spans: ", "calls: well-formed ones run, others after repairs"):
        assert [line for line in said if line.startswith(what)]
    ours = replace(
        config,
        agent=replace(config.agent, answer_prefix=True),
        evaluation=replace(config.evaluation, untagged=False),
    )
    assert "untagged answers are read: False; published: True" in list(differences(ours))
    assert "forced text before the forced answer: True; published: False" in list(differences(ours))


@pytest.mark.parametrize(
    ("settings", "own", "read"),
    [
        (EvalConfig(), False, False),
        (EvalConfig(), True, True),
        (EvalConfig(suite="paravt7"), False, True),
        (EvalConfig(suite="paravt7", untagged=False), True, False),
        (EvalConfig(untagged=True), False, True),
    ],
)
def test_untagged_answers_are_read_in_a_suite_and_where_they_are_asked_for(settings, own, read):
    env, _ = measure.in_mode(EnvConfig(untagged_answers=own), settings)
    assert env.untagged_answers is read


def test_untagged_answers_and_repairs_are_counted_in_the_report():
    one, two = {"quotes": 2}, {"quotes": 1, "time": 1}
    found = report(row("a", 1.0, untagged=True, lapses=one), row("b", 0.0, lapses=two))
    overall = found.summary()["overall"]
    assert overall["untagged"] == 1 and overall["lapses"] == {"quotes": 3, "time": 1}
    text = table(found)
    assert "untagged: 1 answers" in text and "repaired calls: 3 quotes, 1 time" in text


def test_each_metric_is_the_published_one():
    mixed = report(
        row("a", 1.0, category="x"), row("b", 1.0, category="x"), row("c", 0.0, category="y")
    )
    micro, macro, iou = SEVEN[0], SEVEN[4], SEVEN[6]
    assert SetOutcome(micro, mixed).ours.mean == pytest.approx(2 / 3)
    assert SetOutcome(macro, mixed).ours.mean == 0.5
    spans = report(row("a", 0.9, kind="grounding", span_iou=0.25))
    assert SetOutcome(iou, spans).ours.mean == 0.25


def test_the_table_shows_ours_beside_the_paper_and_names_what_is_missing():
    found = SuiteReport(
        "paravt7",
        (
            SetOutcome(SEVEN[0], report(row("a", 1.0), row("b", 0.0, error="e", error_kind="x"))),
            SetOutcome(SEVEN[3], error="no folder data/lvbench"),
        ),
        ("temperature: 1.0; published: 0.0",),
    )
    text = found.table()
    first, second = text.splitlines()[1:3]
    assert first.split()[:4] == ["video_mme", "accuracy", "2", "1"]
    assert "50.0 [" in first
    assert first.split()[-2:] == ["62.1", "59.9"]
    assert second.split() == ["lvbench", "accuracy", "-", "-", "-", "39.8", "33.1"]
    assert "not evaluated: lvbench: no folder data/lvbench" in text
    assert text.endswith("differences from the published protocol:\n- temperature: 1.0; "
                         "published: 0.0")  # fmt: skip
    assert found.failed
    summary = found.summary()
    assert summary["sets"]["video_mme"]["ours"]["mean"] == 50.0
    assert summary["sets"]["lvbench"]["error"] == "no folder data/lvbench"
    assert not SuiteReport("s", (SetOutcome(SEVEN[0], report(row())),)).failed


@pytest.fixture
def sets(monkeypatch, clip):
    """Loaders of tiny sets; LVBench is not there."""
    asked = []

    def loader(name):
        def load_set(root, split, **rest):
            asked.append((name, root, split, rest))
            if name == "lvbench":
                raise TaskError(f"{name}: root {root} is not a folder")
            if name == "charades_sta":
                task = make_task(clip, question="When?", kind="grounding", options=(),
                                 answer="10.0-20.0")  # fmt: skip
                return ListTasks([task], name)
            return ListTasks([make_task(clip, c, category=c) for c in "xy"], name)

        return load_set

    for entry in SEVEN:
        monkeypatch.setitem(TASKSETS, entry.tasks, loader(entry.tasks))
    return asked


@pytest.fixture
def play(sets, tmp_path, monkeypatch):
    """Runs the suite by the command; the settings that each set was played with."""
    settings = {}
    original = measure.measure

    def watched(config, agent_for, path, progress=None):
        settings[path.parent.name] = config
        quick = replace(config, env=replace(config.env, subtitles=False))  # the clip has none
        return original(quick, agent_for, path, progress)

    monkeypatch.setattr(measure, "measure", watched)

    def command(*words):
        status = cli.main(
            ["eval", "--suite", "paravt7", "--policy", "majority", f"--run.folder={tmp_path}",
             "--evaluation.suite_root=/data", "--env.frame_size=[16, 32]",
             "--evaluation.frame_budgets=[2]", "--evaluation.num_envs=2", *words]
        )  # fmt: skip
        return status, settings

    return command


def test_the_command_evaluates_all_sets_and_fails_for_the_missing_one(play, sets, tmp_path, capsys):
    status, settings = play()
    out = capsys.readouterr().out
    assert status == 1
    assert "not evaluated: lvbench: lvbench: root /data/lvbench is not a folder" in out
    assert "overview frames: [2]; published: [64]" in out
    folder = tmp_path / "paravt7" / "paravt7"
    content = json.loads((folder / "paravt7.json").read_text())
    assert content["sets"]["mlvu"]["ours"]["mean"] == 100.0
    assert content["sets"]["lvbench"]["ours"] is None
    assert (folder / "mmvu" / "after.json").is_file()
    page = (folder / "mmvu" / "report.html").read_text()
    assert "<summary>after.yaml</summary>" in page and "root: /data/mmvu\n" in page
    assert load(TrainConfig, folder / "paravt7.yaml").evaluation.suite_root == "/data"
    assert ("mlvu", "/data/mlvu", "test", {}) in sets
    assert ("longvideobench", "/data/longvideobench", "validation", {}) in sets
    assert settings["video_mme_subtitles"].env.subtitles
    assert not settings["video_mme"].env.subtitles
    assert settings["charades_sta"].agent.answer_tokens == 128


def test_the_merged_shards_of_a_suite_are_its_report(play, tmp_path, capsys):
    play("--run.name=whole")
    for shard in ("1/2", "2/2"):
        assert play("--run.name=parts", "--shard", shard)[0] == 1  # LVBench is not there
    whole, parts = (tmp_path / name / "paravt7" for name in ("whole", "parts"))
    assert not (parts / "paravt7.json").exists()
    capsys.readouterr()
    assert cli.main(["merge", str(parts)]) == 1
    out = capsys.readouterr().out
    assert "not evaluated: lvbench: no rows of it are there" in out
    assert "overview frames: [2]; published: [64]" in out
    merged, known = (json.loads((at / "paravt7.json").read_text()) for at in (parts, whole))
    assert merged["differences"] == known["differences"]
    assert merged["sets"].pop("lvbench")["ours"] is known["sets"].pop("lvbench")["ours"] is None
    assert merged["sets"] == known["sets"]
    assert (parts / "mmvu" / "report.html").is_file()
    (parts / "paravt7.yaml").unlink()
    cli.main(["merge", str(tmp_path / "parts")])
    assert f"- not known: {parts / 'paravt7.yaml'} is missing" in capsys.readouterr().out


def test_an_engine_that_fails_in_one_set_leaves_the_others(play, monkeypatch, capsys):
    original = measure.evaluated_agent

    def agent_for(config):
        def make(env):
            if config.env.tasks == "mlvu":
                raise AgentError("the engine did not start")
            return original(config)(env)

        return make

    monkeypatch.setattr(measure, "evaluated_agent", agent_for)
    assert play()[0] == 1
    out = capsys.readouterr().out
    assert "not evaluated: mlvu: the engine did not start" in out
    assert "charades_sta" in out.split("not evaluated")[0].splitlines()[-1]


def test_errors_without_frames_fail_a_suite_too():
    blind = replace(report(row()), blind_errors={"agent_error": 3})
    found = SuiteReport("s", (SetOutcome(SEVEN[0], blind),))
    assert found.failed and "video_mme: 3 errors without frames" in found.table()
    assert found.summary()["sets"]["video_mme"]["blind_errors"] == {"agent_error": 3}


def test_one_folder_for_all_sets_of_a_suite_is_refused():
    config = load(TrainConfig, "paravt7", {"env.tasks_kwargs": {"root": "DATA"}})
    with pytest.raises(ConfigError, match=r"give evaluation\.suite_root"):
        measure.measure_suite(config)
