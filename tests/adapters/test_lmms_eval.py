"""lmms-eval's real evaluator plays our agents, by the prompts and scorers of its own seven tasks.

Skipped where lmms-eval is not installed. `PARAVT_COMMAND` is the `paravt` of the other environment;
`make test-adapters` sets it. The tasks are those of the package but for their documents, which are
a local file: nothing is downloaded.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lmms_eval")

from lmms_eval.evaluator import simple_evaluate
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.tasks import TaskManager
from support.videos import write_video

from train.adapters import lmms_eval

PARAVT = os.environ.get("PARAVT_COMMAND", "")
pytestmark = pytest.mark.skipif(not PARAVT, reason="PARAVT_COMMAND names no other installation")

OPTIONS = ["A. red", "B. blue", "C. green", "D. white"]
VIDEO_MME = {
    "videoID": "clip", "question_id": "1-1", "question": "Which colour?", "options": OPTIONS,
    "answer": "B", "duration": "short", "domain": "Knowledge", "sub_category": "Law",
    "task_type": "Action Reasoning",
}  # fmt: skip
TASKS = {
    "videomme": ("videomme", "videomme.yaml", "videomme/data", "clip.mp4", VIDEO_MME),
    "videomme_w_subtitle": (
        "videomme", "videomme_w_subtitle.yaml", "videomme/data", "clip.mp4", VIDEO_MME
    ),
    "longvideobench_val_v": (
        "longvideobench", "longvideobench_val_v.yaml", "datasets/longvideobench/videos", "clip.mp4",
        {"video_path": "clip.mp4", "id": "a_0", "question": "Which colour?", "option0": "red",
         "option1": "blue", "option2": "green", "option3": "N/A", "option4": "N/A",
         "correct_choice": 1, "duration_group": 15, "question_category": "S2E", "duration": 30.0},
    ),
    "lvbench": (
        "lvbench", "lvbench.yaml", "lvbench", "clip.mp4",
        {"video_path": "clip.mp4", "uid": "7", "answer": "B",
         "question": "Which colour?\n(A) red\n(B) blue\n(C) green\n(D) white"},
    ),
    "mlvu_test": (
        "mlvu", "mlvu_test.yaml", "mlvu_test", "clip.mp4",
        {"video_name": "clip.mp4", "question": "Which colour?\n(A) red\n(B) blue", "answer": "B",
         "task_type": "needleQA"},
    ),
    "mmvu_val": (
        "mmvu", "mmvu_val.yaml", "mmvu/Biology", "clip.mp4",
        {"video_path": "Biology/clip.mp4", "id": "val_1", "question": "Which colour?",
         "question_type": "multiple-choice", "answer": "B",
         "choices": {"A": "red", "B": "blue", "C": "green", "D": "white", "E": "black"}},
    ),
    "temporal_grounding_charades": (
        "charades_sta", "charades.yaml", "charades_sta/Charades_v1_480", "clip.mp4",
        {"video": "clip.mp4", "caption": "a person opens a door", "timestamp": [10.0, 20.0]},
    ),
}  # fmt: skip
"""Folder and file of each task in the package, where its videos are, and one document."""

AGENT = '''
from agents.base import AgentError, Decision
from paravt_env.spaces import empty_action

class Says:
    """Answers as the question wants it; keeps what it was asked."""

    def __init__(self, env):
        self.crops = env.simulation.settings.max_crops

    def begin(self, rows):
        pass

    def act(self, observations, rows):
        said = []
        for question in (observations["question"][row] for row in rows):
            if "subtitles are listed" in question and "hello" not in question:
                raise AgentError("the subtitles are missing")
            if "colour" not in question and "door" not in question:
                raise AgentError(f"not asked: {question!r}")
            answer = "10.0 - 20.0" if "door" in question else "B"
            said.append(Decision({**empty_action(self.crops), "answer": answer}))
        return said
'''


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A hub folder as lmms-eval expects it: tasks of one document each, and their videos."""
    home = tmp_path_factory.mktemp("hub")
    (home / "agent.py").write_text(AGENT)
    recipe = (
        "base: paragrpo_mini\n"
        f"evaluation: {{policy: '{home}/agent.py:Says', frame_budgets: [4]}}\n"
        "env: {frame_size: [32, 64], untagged_answers: true}\n"
    )
    (home / "says.yaml").write_text(recipe)
    video = write_video(home / "clip.mp4", 120, 4, gop=16)
    package = Path(sys.modules["lmms_eval"].__file__).parent / "tasks"
    for name, (folder, file, videos, video_name, document) in TASKS.items():
        (home / videos).mkdir(parents=True, exist_ok=True)
        shutil.copy(video, home / videos / video_name)
        documents = home / f"{name}.json"
        documents.write_text(json.dumps([document]))
        split = "train" if name == "lvbench" else "validation"
        split = split if name in ("lvbench", "mmvu_val", "longvideobench_val_v") else "test"
        (home / "tasks" / name).mkdir(parents=True)
        (home / "tasks" / name / "task.yaml").write_text(
            f"include: {package / folder / file}\n"
            f"task: local_{name}\n"
            "dataset_path: json\n"
            f"dataset_kwargs: {{data_files: {{{split}: {documents}}}}}\n"
        )
    subtitles = home / "videomme" / "subtitle"
    subtitles.mkdir(parents=True)
    line = '1\n00:00:01,000 --> 00:00:09,000\n<font color="white" size=".72c">hello</font>\n'
    (subtitles / "clip.srt").write_text(line)
    return home


def test_the_entry_point_is_there():
    assert MODEL_REGISTRY_V2.get_manifest("paravt") == lmms_eval.MANIFEST
    assert MODEL_REGISTRY_V2.get_model_class("paravt") is lmms_eval.ParaVT
    assert not lmms_eval.ParaVT.is_simple


@pytest.fixture(scope="module")
def manager(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home))  # the tasks' own files read it when they are imported
        yield TaskManager(include_path=str(home / "tasks"))


@pytest.fixture(scope="module")
def played(home, manager):
    """All seven tasks in one run of lmms-eval."""
    return simple_evaluate(
        model="paravt",
        model_args=f"paravt={PARAVT},recipe={home}/says.yaml,output={home}/out",
        tasks=[f"local_{name}" for name in TASKS],
        task_manager=manager,
        bootstrap_iters=0,
    )


def test_the_seven_tasks_score_our_rollouts(played, home):
    whole = {
        "videomme": ("videomme_perception_score", 100.0),
        "videomme_w_subtitle": ("videomme_perception_score", 100.0),
        "longvideobench_val_v": ("lvb_acc", 1.0),
        "lvbench": ("lvbench_score", 1.0),
        "mlvu_test": ("mlvu_percetion_score", 100 / 9),  # the mean over nine kinds; one was asked
        "mmvu_val": ("accuracy", 100.0),
        "temporal_grounding_charades": ("charades_sta_mIOU", 100.0),
    }
    for name, (metric, value) in whole.items():
        assert played["results"][f"local_{name}"][f"{metric},none"] == pytest.approx(value), name
    (answers,) = home.glob("out/*.answers.jsonl")
    lines = {line["id"]: line for line in map(json.loads, answers.read_text().splitlines())}
    assert len(lines) == 7 and lines["local_videomme/test/0"]["answer"] == "B"
    assert {line["frame_budget"] for line in lines.values()} == {4}


def row(answer, question="Which colour?\nA. red\nB. blue\nC. green", **changes):
    """A row of a report, as far as it is read."""
    fields = {"task_id": "t", "video": "/data/clip.mp4", "question": question, "gold": "B"}
    return {**fields, "answer": answer, "error": "", "score": 0.25, **changes}


CAPTION = 'When does this happen: "a person opens a door"? Answer with the start and the end.'


@pytest.mark.parametrize("name", TASKS)
def test_its_scorers_read_our_rows(manager, name):
    task = lmms_eval.get_task_dict([f"local_{name}"], manager, "chat")[f"local_{name}"]
    if name == "temporal_grounding_charades":
        rows = [row(text, CAPTION, gold="10.0-20.0") for text in ("10-20", "12-22", "never", "")]
        scored = lmms_eval.score(rows, task, "charades_sta_mIOU")
        assert [one["score"] for one in scored] == pytest.approx([1.0, 8 / 12, 0.0, 0.0])
        with pytest.raises(ValueError, match=r"--metric '': the task has charades_sta_IOU@3"):
            lmms_eval.score(rows, task)
        return
    metric = "lvb_acc" if name == "longvideobench_val_v" else ""
    rows = [row("B"), row("C"), row(""), row("B", error="no reply"), row("the blue one is (B)")]
    scored = lmms_eval.score(rows, task, metric)
    assert [one["score"] for one in scored] == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert scored[0] == {**rows[0], "score": 1.0} and rows[0]["score"] == 0.25
    with pytest.raises(ValueError, match="belongs to 0 of the task's documents"):
        lmms_eval.score([row("B", video="/data/other.mp4")], task, metric)
    with pytest.raises(ValueError, match="belongs to 0 of the task's documents"):
        lmms_eval.score([row("B", question="How many?\nA. 1\nB. 2")], task, metric)


def test_documents_that_are_alike_are_told_apart_by_options_and_answer():
    def doc(answer, *options):
        return {"video": "a/clip.mkv", "question": "Who?", "options": options, "answer": answer}

    docs = [doc("A", "Ann", "Bob"), doc("B", "Cid", "Dan")]
    asked = row("A", "Who?\nA. Cid\nB. Dan")
    assert lmms_eval.document_of(asked, docs) is docs[1]
    assert lmms_eval.document_of(asked, [docs[1], dict(docs[1])]) is docs[1]
    with pytest.raises(ValueError, match="belongs to 2"):
        lmms_eval.document_of(asked, [docs[1], {**docs[1], "answer": "A"}])
    spans = [{"video": "clip.mp4", "caption": "a", "timestamp": [n, n + 2.0]} for n in (1, 5)]
    assert lmms_eval.document_of(row("", "When: a", gold="5.0-7.0"), spans) is spans[1]


@pytest.mark.parametrize("value", [None, "B", 1.5, -0.1, float("nan"), {"lost": 1}])
def test_a_result_that_is_no_score_is_refused(value):
    with pytest.raises(ValueError, match="is no score between 0 and 1"):
        lmms_eval.number(value)


def test_a_report_is_scored_into_another_one(manager, home, tmp_path, capsys):
    report = tmp_path / "after.json"
    report.write_text(json.dumps({"rows": [row("B")], "settings": {"seed": 0}, "seconds": 1.0}))
    words = [str(report), "--output", str(tmp_path / "scored.json")]
    words += ["--include-path", str(home / "tasks")]
    assert lmms_eval.main([*words, "--task", "local_lvbench"]) == 0
    scored = json.loads((tmp_path / "scored.json").read_text())
    assert scored["rows"][0]["score"] == 1.0
    assert scored["settings"] == {"seed": 0, "scorer": "lmms-eval 0.7.3 local_lvbench"}
    assert lmms_eval.main([*words, "--task", "local_mlvu_test", "--metric", "f1"]) == 2
    assert "the task has mlvu_percetion_score" in capsys.readouterr().err


def test_what_cannot_be_played_is_refused(tmp_path, monkeypatch):
    model = lmms_eval.ParaVT(paravt="/nowhere/paravt", output=str(tmp_path))
    with pytest.raises(ValueError, match="no output"):
        lmms_eval.ParaVT(paravt="paravt")
    model.task_dict = {"t": {"test": [{"id": 0}]}}

    def asked(*content):
        turn = [{"role": "user", "content": [*content, {"type": "text", "text": "Who?"}]}]
        return SimpleNamespace(args=("", lambda doc: turn, {}, 0, "t", "test"))

    picture, video = {"type": "image", "url": object()}, {"type": "video", "url": "v.mp4"}
    with pytest.raises(ValueError, match="t/test/0: the agent takes one video by its path, not:"):
        model.generate_until([asked(video, video)])
    with pytest.raises(ValueError, match="not: image"):
        model.generate_until([asked(picture)])
    with pytest.raises(ValueError, match="not: none"):
        model.generate_until([asked()])
    with pytest.raises(ValueError, match="paravt=/nowhere/paravt cannot be run"):
        model.generate_until([asked(video)])
    silent = lmms_eval.ParaVT(paravt="false", output=str(tmp_path))
    silent.task_dict = model.task_dict
    with pytest.raises(RuntimeError, match="ended with 1"):
        silent.generate_until([asked(video)])
    assert silent.generate_until([]) == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start lmms-eval as one process"):
        lmms_eval.ParaVT(paravt="paravt", output=str(tmp_path))
