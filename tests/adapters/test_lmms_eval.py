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
def played(home):
    """All seven tasks in one run of lmms-eval, whose hub folder is `home`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(home))
        manager = TaskManager(include_path=str(home / "tasks"))
        yield simple_evaluate(
            model="paravt",
            model_args=f"paravt={PARAVT},recipe={home}/says.yaml,output={home}/out",
            tasks=[f"local_{name}" for name in TASKS],
            task_manager=manager,
            bootstrap_iters=0,
        )


def test_the_seven_tasks_score_our_rollouts(played):
    found = {}
    for name in TASKS:
        results = played["results"][f"local_{name}"]
        found[name] = {k: v for k, v in results.items() if k.endswith(",none") and "stderr" not in k}
    print(found)
    assert 0
