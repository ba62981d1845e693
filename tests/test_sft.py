"""The lessons in front of the traces: what is asked, what is shown, what is to be said."""

from itertools import islice

import numpy as np
import pytest

from agents.mini import build_mini
from agents.vlm import VisionLanguageModel
from paravt_env.protocol.prompts import COMPACT
from paravt_env.tasksets.synthetic.oracle import Cue
from train.config import LessonConfig, SFTConfig
from train.sft import Album, describe_frame, lesson, lessons, noon_frames

CUES = (
    Cue(12.0, 0, "red", 0.2, ()),
    Cue(20.0, 0, "red", 0.4, ()),
    Cue(70.0, 1, "blue", 0.9, ()),
    Cue(130.0, 2, "green", 0.1, ()),
)
VIDEO = {"duration": 200.0, "fps": 8.0, "width": 64, "height": 64}
ALBUM = Album(VIDEO, CUES, np.zeros((4, 64, 64, 3), np.uint8))


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    corpus = ["red left; blue right; green none?"] * 4
    return VisionLanguageModel.load(build_mini(tmp_path_factory.mktemp("sft"), corpus))


def said(vlm, trajectory):
    return vlm.tokenizer.decode(trajectory.branch_ids)


def asked(vlm, trajectory):
    return vlm.tokenizer.decode(trajectory.prompt_ids)


def test_the_frame_nearest_noon_stands_for_its_scene():
    assert {c: cue.time for c, cue in noon_frames(CUES).items()} == {
        "red": 20.0,
        "blue": 70.0,
        "green": 130.0,
    }


def test_a_single_frame_is_described(vlm):
    found = lesson(vlm, COMPACT, ALBUM, [2])
    assert said(vlm, found) == f"{describe_frame(CUES[2])}<|im_end|>" == "blue right none<|im_end|>"
    assert len(found.prompt_images) == 1


def test_several_frames_are_listed_in_their_order(vlm):
    found = lesson(vlm, COMPACT, ALBUM, [0, 1, 2])
    assert said(vlm, found) == "red 12 left; red 20 left; blue 70 right<|im_end|>"
    assert "\n?" in asked(vlm, found)


def test_picks_name_each_scene_once_in_the_order_that_was_drawn(vlm):
    found = lesson(vlm, COMPACT, ALBUM, [0, 1, 2, 3], order=["green", "red", "blue"])
    assert said(vlm, found) == "green 130 left; red 20 left; blue 70 right<|im_end|>"
    assert "\nwhich?" in asked(vlm, found)


def test_words_stand_where_frames_were(vlm):
    found = lesson(vlm, COMPACT, ALBUM, [0, 2], named=[True, False])
    assert len(found.prompt_images) == 1
    assert " 0 52 12 red left\n 30 110 70" in asked(vlm, found)


def test_a_lesson_keeps_to_its_kind(vlm):
    rng = np.random.default_rng(0)
    kind = LessonConfig(frames=3, words=1.0, picks=1.0)
    for found in islice(lessons(vlm, SFTConfig(), [ALBUM], rng, kind), 8):
        assert not found.prompt_images
        assert "which?" in asked(vlm, found)
        colours = said(vlm, found).removesuffix("<|im_end|>").split("; ")
        assert len({item.split()[0] for item in colours}) == len(colours) <= 3
    single = next(lessons(vlm, SFTConfig(), [ALBUM], rng, LessonConfig()))
    assert len(single.prompt_images) == 1
