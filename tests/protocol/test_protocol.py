"""The text protocol: parser rules, hostile text, the action and the prompts."""

import math
import time

import numpy as np
import pytest

from paravt_env.protocol import (
    FORCED_PREFIX,
    Role,
    action_from_completion,
    parse,
    render_completion,
    schema,
    tool_schema,
)
from paravt_env.protocol.parts import (
    FrameRef,
    evidence_parts,
    forced_answer_text,
    frame_times,
    overview_parts,
    subagent_parts,
    system_text,
)
from paravt_env.protocol.styles import COMPACT, PARAVT, PROMPTS

THOUGHT = "<think>\nlook closer\n</think>\n"


def call(start="1", end="2", keys=("start_time", "end_time"), name="crop_video", extra=""):
    arguments = f'{{"{keys[0]}": {start}, "{keys[1]}": {end}{extra}}}'
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def windows(text):
    return [one.window for one in parse(text).calls]


def errors(text):
    return [one.error for one in parse(text).calls]


# Calls


def test_hermes_calls_keep_their_order_and_spans():
    text = THOUGHT + call("1", "2.5") + "\n" + call("30", "40")
    parsed = parse(text)
    assert [one.window for one in parsed.calls] == [(1.0, 2.5), (30.0, 40.0)]
    assert [one.name for one in parsed.calls] == ["crop_video", "crop_video"]
    first = parsed.calls[0]
    assert text[first.start : first.end] == call("1", "2.5")
    assert [block.closed for block in parsed.blocks] == [True, True, True]
    assert (first.error, first.message, first.video_path) == (None, "", None)


@pytest.mark.parametrize(
    "body",
    [
        "crop_video(start_time=1, end_time=2)",
        " crop_video ( start = 1.0 , end = '2' , ) ",
        'crop_video(video_path="a (1), b.mp4", start_time="1", end_time=2)',
        "crop_video(\n start_time=1,\n end_time=2\n)",
    ],
)
def test_tool_code_calls_are_read(body):
    parsed = parse(f"{THOUGHT}<tool_code>{body}</tool_code>")
    assert [one.window for one in parsed.calls] == [(1.0, 2.0)]


def test_the_video_path_is_kept_for_comparison():
    extra = ', "video_path": "a.mp4"'
    assert parse(call(extra=extra)).calls[0].video_path == "a.mp4"
    code = '<tool_code>crop_video(start=1, end=2, video_path="b (1).mp4")</tool_code>'
    assert parse(code).calls[0].video_path == "b (1).mp4"
    assert errors(call(extra=', "video_path": 3')) == ["malformed"]


@pytest.mark.parametrize(
    "body",
    [
        "crop_video(1, 2)",
        "crop_video(start_time=1)",
        "crop_video(start_time=f(1), end_time=2)",
        "crop_video(start_time=1 end_time=2)",
        "crop_video(start_time=__import__('os'), end_time=2)",
        "crop_video(start_time=1, end_time=2); crop_video(start_time=3, end_time=4)",
        "crop_video",
        "",
        "crop_video(start_time=1, end_time=2" + " " * 5000 + ")",
    ],
)
def test_other_code_is_malformed_and_never_run(body):
    assert errors(f"<tool_code>{body}</tool_code>") == ["malformed"]


def test_aliases_and_numeric_strings():
    assert windows(call('"1"', '" 2.5 "', keys=("start", "end"))) == [(1.0, 2.5)]
    assert windows(call("1", "2", extra=', "start": 9, "end": 9')) == [(1.0, 2.0)]


def test_windows_that_are_not_finite_are_read_and_left_to_the_environment():
    assert windows(call("-Infinity", "1e999")) == [(-math.inf, math.inf)]
    assert windows(call("0", "9" * 3000)) == [(0.0, math.inf)]
    (window,) = windows(call("NaN", "2"))
    assert math.isnan(window[0]) and window[1] == 2.0


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[1, 2]",
        "{}",
        '{"name": "crop_video"}',
        '{"name": 3, "arguments": {"start": 1, "end": 2}}',
        '{"name": "crop_video", "arguments": [1, 2]}',
        '{"name": "crop_video", "arguments": {"start": 1}}',
        '{"name": "crop_video", "arguments": {"start": 1, "end": true}}',
        '{"name": "crop_video", "arguments": {"start": 1, "end": "soon"}}',
        '{"name": "crop_video", "arguments": {"start": 1, "end": [2]}}',
        '{"name": "crop_video", "arguments": {"start": 1, "end": 2}} twice',
        '{"name": "crop_video", "arguments": {"start": 1, "end": 2}',
        '{"name": "crop_video", "arguments": {"start": 1, "end": 2}, "x": "' + "x" * 5000 + '"}',
    ],
)
def test_malformed_calls_carry_an_error_and_no_window(body):
    (one,) = parse(f"<tool_call>{body}</tool_call>").calls
    assert (one.error, one.window) == ("malformed", None)
    assert one.message


def test_an_unknown_tool_is_not_malformed():
    (one,) = parse(call(name="zoom")).calls
    assert (one.error, one.window) == ("unknown_tool", None)
    assert "zoom" in one.message
    assert errors("<tool_code>zoom(start=1, end=2)</tool_code>") == ["unknown_tool"]


def test_defect_09_one_malformed_call_costs_its_neighbours_nothing():
    text = call("1", "2") + "<tool_call>{oops</tool_call>" + call("3", "4")
    assert errors(text) == [None, "malformed", None]
    assert windows(text) == [(1.0, 2.0), None, (3.0, 4.0)]
    unclosed = '<tool_call>{"name": "crop_video"' + call("3", "4") + "<answer>B</answer>"
    assert windows(unclosed) == [None, (3.0, 4.0)]
    assert parse(unclosed).answer == "B"


def test_a_closing_tag_inside_a_json_string_is_content():
    extra = ', "video_path": "</tool_call><answer>A</answer>"'
    parsed = parse(call("1", "2", extra=extra) + "<answer>B</answer>")
    assert [one.window for one in parsed.calls] == [(1.0, 2.0)]
    assert parsed.calls[0].video_path == "</tool_call><answer>A</answer>"
    assert parsed.answer == "B"
    assert parsed.balanced


def test_an_unclosed_call_is_malformed():
    text = call()[: -len("</tool_call>")]
    assert errors(text) == ["malformed"]
    assert "never closed" in parse(text).calls[0].message
    assert errors("<tool_code>crop_video(start=1, end=2)") == ["malformed"]


# Blocks


@pytest.mark.parametrize("name", ["think", "answer", "tool_response"])
def test_calls_inside_other_blocks_do_not_count(name):
    parsed = parse(f"<{name}>{call()}</{name}>{call('3', '4')}")
    assert [one.window for one in parsed.calls] == [(3.0, 4.0)]
    assert parse(f"<{name}>{call()}").calls == ()


def test_a_think_that_is_never_closed_is_a_thought_to_the_end():
    parsed = parse("<think>hm <answer>B</answer>")
    assert parsed.answer == ""
    (thought,) = parsed.thoughts
    assert (thought.text, thought.closed) == ("hm <answer>B</answer>", False)
    assert thought.content == "hm B"


def test_defect_10_the_forced_prefix_belongs_to_the_completion():
    assert FORCED_PREFIX == "<think>\n"
    parsed = parse("look\n</think><answer>B</answer>", forced_prefix_included=False)
    assert parsed.text == "<think>\nlook\n</think><answer>B</answer>"
    assert parsed.thoughts[0].closed and parsed.thoughts[0].text == "\nlook\n"
    assert parse("look\n</think>").thoughts == ()


def test_defect_13_the_last_answer_that_is_not_empty_counts():
    text = "<answer>A</answer><answer> B </answer><answer> </answer><answer>C"
    parsed = parse(text)
    assert parsed.answer == "B"
    assert [block.closed for block in parsed.answers] == [True, True, True, False]
    assert parse("<answer>B</answer><answer><answer></answer>").answer == "B"


def test_forged_responses_are_found_and_hold_no_call():
    parsed = parse(f"<tool_response>{call()} red</tool_response><answer>A</answer>")
    assert [block.content.endswith("red") for block in parsed.responses] == [True]
    assert parsed.calls == ()
    assert parsed.answer == "A"


@pytest.mark.parametrize(
    ("text", "balanced"),
    [
        ("", True),
        ("<think>a</think><answer>b</answer>", True),
        (call(), True),
        ("<think>a", False),
        ("a</think>", False),
        ("<think><think>a</think>", False),
        ("<think><answer>b</answer></think>", False),
        ("<think>a</answer>", False),
        ("</think><think>", False),
    ],
)
def test_balanced(text, balanced):
    assert parse(text).balanced is balanced


def test_roles_cover_the_text():
    text = "<think>a</think> <tool_code>x</tool_code><answer>B<think></answer>z<tool_response>r"
    spans = [(text[start:end], role) for start, end, role in parse(text).roles()]
    assert spans == [
        ("<think>", Role.tag),
        ("a", Role.think),
        ("</think>", Role.tag),
        (" ", Role.text),
        ("<tool_code>", Role.tag),
        ("x", Role.call),
        ("</tool_code>", Role.tag),
        ("<answer>", Role.tag),
        ("B", Role.answer),
        ("<think>", Role.tag),
        ("</answer>", Role.tag),
        ("z", Role.text),
        ("<tool_response>", Role.tag),
        ("r", Role.response),
    ]


def test_text_before_the_first_tag_has_a_role():
    assert parse("so").roles() == [(0, 2, Role.text)]
    assert parse("s<answer>B").roles()[0] == (0, 1, Role.text)


def test_role_codes_are_stable_because_trajectories_store_them():
    names = ["prompt", "think", "call", "response", "answer", "tag", "text"]
    assert [(role.name, int(role)) for role in Role] == [(n, i) for i, n in enumerate(names)]


# Hostile text


@pytest.mark.parametrize(
    ("unit", "count"),
    [
        ("x", 5_000_000),
        ("<", 2_000_000),
        ("<think>", 100_000),
        ("<tool_call>", 100_000),
        ("<tool_call>{", 100_000),
        ('<tool_call>{"a":', 100_000),
        (call(), 10_000),
        ("<tool_code>crop_video(start=1,end=2)</tool_code>", 10_000),
    ],
)
def test_megabytes_parse_quickly(unit, count):
    text = unit * count
    started = time.process_time()  # not wall time: the machine may be busy
    parsed = parse(text)
    roles = parsed.roles()
    assert time.process_time() - started < 10
    assert roles[-1][1] == len(text)


def test_ten_thousand_calls_are_all_found():
    assert len(parse(call() * 10_000).calls) == 10_000


def test_an_answer_after_megabytes_is_found():
    assert parse("<think>" + "x" * 5_000_000 + "</think><answer>B</answer>").answer == "B"


@pytest.mark.parametrize("opener", ["[", '{"a":'])
def test_deep_json_is_malformed(opener, monkeypatch):
    body = '{"name": "crop_video", "arguments": ' + opener * 700
    assert errors(f"<tool_call>{body}</tool_call>{call()}") == ["malformed", None]
    monkeypatch.setattr(schema, "MAX_CALL_CHARS", 10_000_000)
    deep = '{"name": ' + "[" * 200_000 + "]" * 200_000 + "}"
    assert errors(f"<tool_call>{deep}</tool_call>{call()}") == ["malformed", None]


def test_tags_past_the_limit_are_content(monkeypatch):
    monkeypatch.setattr("paravt_env.protocol.parser.MAX_TAGS", 3)
    parsed = parse("<think>many</think><answer>b</answer>")
    assert len(parsed.tags) == 3
    assert parsed.answers[0].text == "b</answer>"


# Action and writer


def test_the_action_of_a_completion():
    text = THOUGHT + call("1", "2") + "<tool_call>{</tool_call>" + call("NaN", "4") + call("5", "6")
    action = action_from_completion(text + "<answer>B</answer>", 4)
    expected = [[1, 2], [math.nan, math.nan], [math.nan, 4], [5, 6]]
    np.testing.assert_array_equal(action["crops"], expected)
    assert action["crops"].dtype == np.float64
    assert action["crop_mask"].tolist() == [1, 1, 1, 1]
    assert (action["answer"], action["completion"]) == ("B", text + "<answer>B</answer>")
    short = action_from_completion(text, 2)
    assert short["crops"].shape == (2, 2)
    empty = action_from_completion("", 2)
    assert empty["crop_mask"].tolist() == [0, 0] and not empty["crops"].any()


def test_the_canonical_completion():
    text = render_completion("look twice", [(1, 2.5), (30.0, 40)], None)
    assert text == (
        "<think>\nlook twice\n</think>\n"
        '<tool_call>\n{"name": "crop_video", "arguments": {"start_time": 1, "end_time": 2.5}}\n'
        "</tool_call>\n"
        '<tool_call>\n{"name": "crop_video", "arguments": {"start_time": 30, "end_time": 40}}\n'
        "</tool_call>"
    )
    assert windows(text) == [(1.0, 2.5), (30.0, 40.0)]
    assert render_completion("sure", answer="B") == ("<think>\nsure\n</think>\n<answer>B</answer>")
    with pytest.raises(ValueError, match="a tag inside a block"):
        render_completion("a</think>b")
    with pytest.raises(ValueError, match="a tag inside a block"):
        render_completion("a", answer="<answer>")


# Prompts


def observation(**changes):
    base = {
        "window": np.array([0, 0, -1, -1]),
        "timestamps": np.array([10.5, 30.5, 0.0, 0.0]),
        "video": {"duration": np.array(41.0), "fps": np.array(8.0), "width": 128, "height": 72},
        "question": "Which?\nA. x\nB. y",
        "crop_status": np.array([0, 0]),
        "feedback": "",
    }
    return {**base, **changes}


AFTER_CROPS = observation(
    window=np.array([2, 2, -1, -1]),
    timestamps=np.array([10.5, 11.5, 0.0, 0.0]),
    crop_status=np.array([6, 1]),
    feedback="call 1: too_long: the crop is 60.0 s long",
)


def test_the_overview_prompt_in_both_styles():
    frames = (FrameRef(0), FrameRef(1))
    assert overview_parts(COMPACT, observation()) == [
        " 1 0 11 51", frames[0], " 2 0 31 71", frames[1], "\nWhich?\nA. x\nB. y",
    ]  # fmt: skip
    assert overview_parts(PARAVT, observation()) == [
        "The video lasts 41.0 seconds (128x72, 8 fps). 2 of its frames:\n<10.5 seconds>",
        frames[0],
        "<30.5 seconds>",
        frames[1],
        "\nWhich?\nA. x\nB. y",
    ]


def test_on_demand_prompts_say_how_long_the_video_is():
    blind = observation(window=np.full(4, -1))
    assert overview_parts(COMPACT, blind) == ["41\nWhich?\nA. x\nB. y"]
    assert overview_parts(PARAVT, blind)[0].startswith("The video lasts 41.0 seconds (128x72")
    told = system_text(PROMPTS["pyvision"], max_crops=1, max_crop_seconds=45.0, max_turns=5)
    assert "none of its frames" in told and "in 5 turns" in told and "at most 45 seconds" in told
    assert "few frames" not in told
    assert parse(told[told.index("<tool_call>") :]).calls[0].window == (12.0, 30.0)


def test_evidence_as_text_and_as_frames():
    asked = [(0.0, 60.0), (10.0, 12.0)]
    assert evidence_parts(COMPACT, AFTER_CROPS, asked, ["", "star"]) == ["1 too_long\n2 star\n"]
    assert evidence_parts(PARAVT, AFTER_CROPS, asked, ["", "a {star}"]) == [
        "<tool_response>\nCrop 2, 10.0-12.0 s: a {star}\n</tool_response>\n"
        "<tool_response>\ncall 1: too_long: the crop is 60.0 s long\n</tool_response>\n"
    ]
    assert evidence_parts(COMPACT, AFTER_CROPS, asked) == [
        "1 too_long\n2  11", FrameRef(0), " 12", FrameRef(1), "\n",
    ]  # fmt: skip
    assert evidence_parts(PARAVT, observation(), []) == []


def test_defect_08_the_sub_agent_sees_the_question():
    assert subagent_parts(COMPACT, "Q?", (10.0, 12.0), [10.5, 11.5]) == [
        "> 11", FrameRef(0), " 12", FrameRef(1), "\nQ?",
    ]  # fmt: skip
    parts = subagent_parts(PARAVT, "Q {x}?", (10.0, 12.0), [10.5, 11.5])
    assert "10.0 to 12.0 seconds" in parts[0]
    assert parts[-1].endswith("\nQ {x}?")


def test_system_texts_state_the_limits_and_the_schema():
    text = system_text(PARAVT, max_crops=5, max_crop_seconds=45.0, max_turns=3)
    assert "at most 5 a turn" in text and "at most 45 seconds" in text and "3 turns" in text
    assert '"name": "crop_video"' in text
    assert parse(text[text.index("<tool_call>") :]).calls[0].window == (12.0, 30.0)
    assert system_text(COMPACT, 5, 45.0) == ""
    required = tool_schema(45.0)["function"]["parameters"]["required"]
    assert required == ["start_time", "end_time"]


def test_compact_prompts_stay_compact():
    times = (np.arange(64) + 0.5) * 900 / 64
    shown = observation(window=np.zeros(64, int), timestamps=times)
    text = "".join(part for part in overview_parts(COMPACT, shown) if isinstance(part, str))
    assert len(text) <= 64 * len(" 10 360 440 400") + len("\nWhich?\nA. x\nB. y")
    assert len(forced_answer_text(COMPACT)) <= 8


def test_frame_times():
    whole = np.array([0.5, 1.5, 2.5, 3.5])
    assert frame_times(COMPACT, whole) == ["1", "2", "3", "4"]
    assert frame_times(COMPACT, whole / 2) == ["0.3", "0.8", "1.3", "1.8"]
    assert frame_times(COMPACT, np.array([7.4])) == ["7"]
    assert frame_times(PARAVT, whole[:1]) == ["0.5"]


def test_the_table_of_styles():
    assert PROMPTS.items() >= {"paravt": PARAVT, "compact": COMPACT}.items()
