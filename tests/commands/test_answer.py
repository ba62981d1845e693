"""`paravt answer`: questions in, answers out, and what is wrong with a question is said."""

import json

import numpy as np
import pytest
from support.builders import make_clip

from agents.base import Decision
from paravt_env.spaces import empty_action
from train.cli import main

SETTINGS = ("--env.frame_size", "[32, 64]", "--evaluation.frame_budgets", "[4]")


class Teller:
    """Crops once, then says which question it was asked and how many frames it saw."""

    def __init__(self, env):
        self.crops = env.simulation.settings.max_crops

    def begin(self, rows):
        pass

    def act(self, observations, rows):
        said = []
        for place in rows:
            action = empty_action(self.crops)
            shown = int((np.asarray(observations["window"][place]) >= 0).sum())
            if int(observations["turn"][place]) == 0:
                action["crops"][0], action["crop_mask"][0] = (2.0, 4.0), 1
            else:
                action["answer"] = f"{observations['question'][place]} {shown} frames"
            said.append(Decision(action))
        return said


def ask(tmp_path, *lines, more=(), output="answers.jsonl"):
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    words = ["answer", "--questions", str(questions), "--output", str(tmp_path / output)]
    policy = ("--evaluation.policy", "commands.test_answer:Teller")
    return main([*words, *(more or policy), *SETTINGS])


def read(tmp_path):
    return [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]


def test_every_question_gets_a_line(tmp_path, capsys):
    make_clip(tmp_path)
    asked = [
        {"id": "a", "video": "clip.mp4", "question": "Which colour?\nA. red\nB. blue"},
        {"id": "b", "video": str(tmp_path / "clip.mp4"), "question": "How many?"},
    ]
    assert ask(tmp_path, *asked) == 0
    one, two = read(tmp_path)
    assert one["id"] == "a" and one["answer"].startswith("Which colour?\nA. red\nB. blue ")
    assert (one["calls"], one["frame_budget"], one["error"]) == (1, 4, "")
    assert two["answer"].startswith("How many? ") and two["stop_reason"] == "answered"
    assert "2 questions, 0 of them not asked" in capsys.readouterr().out


def test_a_second_run_asks_nothing_again_and_another_file_is_refused(tmp_path, capsys):
    make_clip(tmp_path)
    asked = {"id": "a", "video": "clip.mp4", "question": "How many?"}
    assert ask(tmp_path, asked) == 0
    first = read(tmp_path)
    assert ask(tmp_path, asked) == 0
    assert read(tmp_path) == first and "1 of 1 samples are in" in capsys.readouterr().out
    assert ask(tmp_path, {**asked, "question": "How few?"}) == 2
    assert "holds another evaluation" in capsys.readouterr().err


def test_a_video_that_cannot_be_read_is_an_answer_with_its_error(tmp_path, capsys):
    make_clip(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    lines = [
        {"id": "good", "video": "clip.mp4", "question": "How many?"},
        {"id": "bad", "video": "broken.mp4", "question": "How many?"},
    ]
    assert ask(tmp_path, *lines) == 1
    bad, good = sorted(read(tmp_path), key=lambda line: line["id"])
    assert bad["answer"] == "" and "broken.mp4" in bad["error"] and good["error"] == ""
    assert "2 questions, 1 of them not asked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "no questions"),
        ([{"id": "a", "video": "clip.mp4"}], "'question': missing"),
        ([{"id": "a", "video": "clip.mp4", "question": " "}], "text expected, not ' '"),
        ([{"id": "a", "vidoe": "clip.mp4", "question": "?"}], "did you mean 'video'"),
        ([{"id": 3, "video": "clip.mp4", "question": "?"}], "text expected, not 3"),
        ([{"id": "a", "video": "v", "question": "?"}] * 2, "'a' occurs twice"),
        ([["a"]], "a JSON object expected, not list"),
    ],
)
def test_what_is_no_question_is_named(tmp_path, capsys, lines, said):
    assert ask(tmp_path, *lines) == 2
    assert said in capsys.readouterr().err


def test_wrong_words_are_refused(tmp_path, capsys):
    asked = {"id": "a", "video": "clip.mp4", "question": "?"}
    assert ask(tmp_path, asked, output="answers.json") == 2
    assert "name it .jsonl" in capsys.readouterr().err
    assert ask(tmp_path, asked, more=("--evaluation.wrong_name", "oracle")) == 2
    assert "wrong_name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["answer", "--questions", "q.jsonl"])
