"""`<code>` blocks: a tag where the tool is code, text elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from agents.text.context import token_roles
from paravt_env.crop import OF_CODE, CropStatus
from paravt_env.protocol import parse, render_completion
from paravt_env.protocol.parts import FrameRef, evidence_parts, overview_parts
from paravt_env.protocol.styles import COMPACT_CODE, PYVISION_IMAGE, PYVISION_VIDEO
from paravt_env.protocol.tags import Role
from paravt_env.spaces import empty_batch, observation_space, unbatch
from train.sft.wording import corpus

TEXT = "<think>\nlook\n</think>\n<code>\nprint('<answer>B</answer>')\n</code>"


def test_code_is_one_call_and_what_stands_in_it_is_content():
    (call,) = parse(TEXT, code=True).calls
    assert (call.code, call.window, call.error) == ("print('<answer>B</answer>')", None, None)
    assert parse(TEXT, code=True).answer == ""


def test_elsewhere_it_is_text():
    parsed = parse(TEXT)
    assert parsed.calls == () and parsed.answer == "B"


def test_the_indentation_of_a_block_is_no_part_of_it():
    (call,) = parse("<code>\n    if x:\n        y()\n</code>", code=True).calls
    assert call.code == "if x:\n    y()"


@pytest.mark.parametrize(
    "text", ["<code>print(1)", "<code> \n </code>", f"<code>{'x' * 20_001}</code>"]
)
def test_what_cannot_run_is_malformed(text):
    (call,) = parse(text, code=True).calls
    assert (call.error, call.code) == ("malformed", None)


def test_a_prefix_of_the_text_parses_as_the_whole_does():
    whole = parse("<think>a</think><code>x</code><code>y</code>", code=True)
    assert [call.code for call in whole.calls] == ["x", "y"]
    assert parse("<think><code>x</code></think>", code=True).calls == ()


def test_what_is_written_is_read():
    code = "show(images[0].crop((0, 0, 9, 9)))"
    parsed = parse(render_completion("look", code=code), code=True)
    assert parsed.calls[0].code == code and parsed.balanced
    with pytest.raises(ValueError, match="a tag inside"):
        render_completion("look", code="'</code>'")


def test_roles_of_code():
    parsed = parse("<code>ab</code>", code=True)
    assert token_roles(parsed, [6, 7, 8, 15]) == [Role.tag, Role.call, Role.call, Role.tag]


def observed(**parts):
    space = observation_space(3, 2, 2, 1, 5, code=True)
    view = unbatch(empty_batch(space, 1), 0, space)
    view["window"] = np.array([-1, -1, -1], np.int16)
    return {**view, **parts}


def test_what_code_brought_is_told_with_its_pictures():
    view = observed(
        crop_status=np.array([1]),
        window=np.array([1, 1, -1]),
        timestamps=np.array([2.5, 0.0, 0.0]),
        output="done",
    )
    parts = evidence_parts(PYVISION_VIDEO, view, [(np.nan, np.nan)])
    assert parts == [
        "<tool_response>\ndone<2.5 seconds>",
        FrameRef(0),
        "<picture 2>",
        FrameRef(1),
        "\n</tool_response>\n",
    ]


def test_an_error_is_told_and_by_its_status_in_few_words():
    code = 1 + list(CropStatus).index(CropStatus.code_error)
    view = observed(crop_status=np.array([code]), output="ValueError: no", feedback="call 1: ...")
    assert evidence_parts(COMPACT_CODE, view, [(0, 0)]) == ["1 code_error\nValueError: no\n"]


def test_images_are_told_with_their_sizes():
    view = observed(window=np.array([0, 0, -1]), output="images[0]: 9 x 9 pixels", question="Q?")
    assert overview_parts(PYVISION_IMAGE, view) == [
        "images[0]: 9 x 9 pixels\n<image 0, scaled down>",
        FrameRef(0),
        "<image 1, scaled down>",
        FrameRef(1),
        "\nQ?",
    ]


def test_the_words_of_the_cold_start_have_not_changed():
    from support.builders import ListTasks

    words = corpus(ListTasks([]))
    assert "over_quota" in words and not {*map(str, OF_CODE)} & {*words}
