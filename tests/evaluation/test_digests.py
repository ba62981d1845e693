"""What tells one evaluation from another: weights by content, tasks by text, plug-ins by code."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.builders import ListTasks, make_task

from train.evaluation import digests
from train.evaluation.digests import code_digest, file_digest, samples_digest, weights_digest
from train.rollout.starts import Start


def test_copies_of_a_checkpoint_are_equal_whenever_they_were_made(tmp_path):
    first = tmp_path / "a"
    first.mkdir()
    (first / "model.safetensors").write_bytes(b"weights")
    (first / "config.json").write_text("{}")
    second = Path(shutil.copytree(first, tmp_path / "b"))
    os.utime(second / "model.safetensors", (1, 1))
    for name in (".lock", "README.md", "sft.jsonl", "config.yaml"):
        (second / name).write_text("not loaded")
    assert weights_digest(second) == weights_digest(first)
    assert list(weights_digest(first)) == ["config.json", "model.safetensors"]
    (second / "config.json").write_text("[]")
    assert weights_digest(second) != weights_digest(first)


def test_weights_that_are_written_again_are_read_again(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    before = file_digest(path)
    path.write_bytes(b"new")
    os.utime(path, (1, 1))
    assert file_digest(path) != before


def test_a_training_step_changes_the_digest_of_a_file_that_is_sampled(tmp_path, monkeypatch):
    for name, value in {"WHOLE": 999, "HEAD": 100, "EVERY": 400, "BLOCK": 8}.items():
        monkeypatch.setattr(digests, name, value)
    weights = np.random.default_rng(0).normal(size=500).astype(np.float32)

    def digest(name, tensor):
        (tmp_path / name).write_bytes(tensor.tobytes())
        return file_digest(tmp_path / name)

    before = digest("a", weights)
    assert digest("same", weights) == before
    stepped = weights.copy()
    stepped[300:400] -= 1e-5  # one tensor of 400 bytes
    assert digest("step", stepped) != before
    header, skipped = weights.copy(), weights.copy()
    header[24] += 1.0
    skipped[30] += 1.0  # between two blocks
    assert digest("header", header) != before
    assert digest("skipped", skipped) == before
    assert digest("longer", np.append(weights, np.float32(0.0))) != before
    monkeypatch.setattr(digests, "WHOLE", 2000)
    assert digest("whole", skipped) != digest("all", weights)


TASK = make_task("/v.mp4")


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "A"},
        {"question": "Which shape?"},
        {"options": ("red", "blue", "grey")},
        {"evidence": ((10.0, 21.0),)},
        {"video": "/w.mp4"},
        {"kind": "open", "options": ()},
        {"family": "shape"},
        {"category": "spatial"},
    ],
)
def test_another_question_is_another_sample(changes):
    starts = [Start(TASK.id, 4)]
    known = samples_digest(ListTasks([TASK]), starts)
    assert samples_digest(ListTasks([replace(TASK)]), starts) == known
    assert samples_digest(ListTasks([replace(TASK, **changes)]), starts) != known


def test_only_the_planned_samples_count_and_each_of_them_does():
    tasks = ListTasks([TASK, make_task("/v.mp4", "b")])
    known = samples_digest(tasks, [Start("colour", 4)])
    assert samples_digest(ListTasks([TASK]), [Start("colour", 4, seed=9)]) == known
    assert samples_digest(tasks, [Start("colour", 8)]) != known
    assert samples_digest(tasks, [Start("colour", 4), Start("b", 4)]) != known


def test_videos_that_were_made_in_another_cache_are_the_same(monkeypatch):
    known = []
    for root in ("/first", "/second"):
        monkeypatch.setenv("PARAVT_CACHE", root)
        tasks = ListTasks([make_task(f"{root}/synthetic/v.mp4")])
        known.append(samples_digest(tasks, [Start("colour", 4)]))
    assert known[0] == known[1]
    moved = ListTasks([make_task("/third/synthetic/v.mp4")])
    assert samples_digest(moved, [Start("colour", 4)]) != known[0]


def test_the_code_of_a_plug_in_is_its_file(tmp_path, monkeypatch):
    path = tmp_path / "my_agent_of_this_test.py"
    path.write_text("answer = 'A'")
    monkeypatch.syspath_prepend(tmp_path)
    before = code_digest(str(path))
    assert code_digest(path.stem) == before
    path.write_text("answer = 'B'")
    assert code_digest(path.stem) == code_digest(str(path)) != before
    with pytest.raises(FileNotFoundError):
        code_digest(str(tmp_path / "nowhere.py"))
    for name in ("no_such_module", "no.such.module", ".relative", "sys"):
        with pytest.raises(ImportError):
            code_digest(name)
