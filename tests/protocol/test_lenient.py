"""Calls as models write them: what the second reading puts right, and why it is not the first."""

import math

import pytest
from support.endless import ends

from paravt_env.crop import CropResult, CropStatus
from paravt_env.protocol import action_from_completion, parse
from paravt_env.protocol.lenient import REPAIRS
from paravt_env.rewards import PRESETS, Transcript, Turn, compliance, lapses, score
from paravt_env.task import Task
from paravt_env.wrappers import CompletionAction

GOOD = '{"name": "crop_video", "arguments": {"start_time": 90, "end_time": 100}}'
TEXT = '"{\\"start_time\\": 90, \\"end_time\\": 100}"'


def block(body, tag="tool_call"):
    return f"<think>I look closer.</think><{tag}>{body}</{tag}>"


def code(body):
    return block(body, "tool_code")


FORMS = {
    "positional": [code("crop_video(90, 100)"), code("crop_video('a (1).mp4', 90, 100)")],
    "wrapped": [
        code("print(crop_video(start_time=90, end_time=100))"),
        code("clip = crop_video(start=90, end=100)"),
        code("tools.crop_video(start=90, end=100)"),
        code("import tools\nclip = crop_video(start=90, end=100)\nprint(clip)"),
    ],
    "several": [
        code("crop_video(start=90, end=100)\ncrop_video(start=90, end=100)"),
        block(f"[{GOOD}, {GOOD}]"),
        block(f"{GOOD}\n{GOOD}"),
    ],
    "fenced": [
        block(f"```json\n{GOOD}\n```"),
        block(f"```\n{GOOD}```"),
        code("```python\ncrop_video(start=90, end=100)\n```"),
    ],
    "time": [
        block('{"name": "crop_video", "arguments": {"start_time": "01:30", "end_time": "100s"}}'),
        block('{"name": "crop_video", "arguments": {"start": "00:01:30", "end": "1m 40s"}}'),
        code("crop_video(start_time='01:30', end_time='01:40')"),
    ],
    "text_arguments": [block(f'{{"name": "crop_video", "arguments": {TEXT}}}')],
    "quotes": [
        block("{'name': 'crop_video', 'arguments': {'start_time': 90, 'end_time': 100}}"),
        block("{'name': 'crop_video', 'arguments': {'start': 90, 'end': 100, 'video_path': None}}"),
    ],
    "commas": [block('{"name": "crop_video", "arguments": {"start": 90, "end": 100,},}')],
    "parameters": [block('{"name": "crop_video", "parameters": {"start": 90, "end": 100}}')],
    "unclosed": [
        f"<think>I look closer.</think><tool_call>{GOOD}",
        "<think>I look closer.</think><tool_code>crop_video(start=90, end=100)",
        f"<think>I look closer.</think><tool_call>{GOOD}</tool_",
    ],
    "in_thought": [
        f"<think>I look closer. <tool_call>{GOOD}</tool_call>",
        f"<think>\nI look closer. <tool_call>{GOOD}</tool_call> and on",
    ],
}
ARRAY = block(f"[{GOOD}]")
CASES = [(repair, text) for repair, texts in FORMS.items() for text in texts]


@pytest.mark.parametrize(("repair", "text"), CASES)
def test_each_form_is_read_and_counted(repair, text):
    strict, lenient = parse(text), parse(text, lenient=True)
    assert not [call for call in strict.calls if call.window is not None]
    assert lenient.calls
    for call in lenient.calls:
        assert (call.name, call.window, call.error) == ("crop_video", (90.0, 100.0), None)
        assert repair in call.repairs
    assert len(lenient.calls) == (2 if repair == "several" else 1)


@pytest.mark.parametrize(("said", "fps"), [("0.5", 0.5), ("'0.5'", 0.5), ("'many'", 0.0)])
def test_a_repaired_call_keeps_the_density_that_it_asks_for(said, fps):
    dictionary = (
        f"{{'name': 'crop_video', 'arguments': {{'start': 90, 'end': 100, 'fps': {said}}}}}"
    )
    for text in (block(dictionary), code(f"print(crop_video(90, 100, fps={said}))")):
        (call,) = parse(text, lenient=True).calls
        assert call.repairs and call.fps == fps
    (silent,) = parse(code("crop_video(90, 100)"), lenient=True).calls
    assert math.isnan(silent.fps)


def test_every_repair_has_a_form_and_an_array_of_one_is_a_call():
    assert set(FORMS) == set(REPAIRS)
    (call,) = parse(ARRAY, lenient=True).calls
    assert call.window == (90.0, 100.0)


def test_a_well_formed_call_needs_no_repair_and_a_hopeless_one_gets_none():
    good, bad = block(GOOD), block('{"name": "crop_video", "arguments": {"start": "soon"}}')
    assert parse(good, lenient=True) == parse(good)
    assert [c.error for c in parse(bad, lenient=True).calls] == ["malformed"]
    for text in (
        block("zoom(1, 2)"),
        code("zoom(1, 2)"),
        block('{"name": "zoom", "parameters": 1}'),
    ):
        assert [c.error for c in parse(text, lenient=True).calls] == ["unknown_tool"]


def test_a_call_in_a_thought_that_closes_is_a_thought():
    text = f"<think>maybe <tool_call>{GOOD}</tool_call> no</think><answer>B</answer>"
    assert parse(text, lenient=True) == parse(text)
    parsed = parse(f"<think>a<tool_call>{GOOD}</tool_call><answer>B</answer>", lenient=True)
    assert len(parsed.calls) == 1 and parsed.answer == "B"


TASK = Task("m", "/v/clip.mp4", "Which?", "mcq", ("red", "blue"), "B", evidence=((90.0, 100.0),))
ANSWER = "<think>It is the second one.</think><answer>B</answer>"


def rollout(text, lenient):
    parsed = parse(text, lenient=lenient)
    crops = tuple(
        CropResult((90.0, 100.0), (90.0, 100.0), CropStatus.ok)
        if call.window
        else CropResult((0.0, 0.0), None, CropStatus(call.error))
        for call in parsed.calls
    )
    return Transcript(TASK, (Turn(parsed, crops), Turn(parse(ANSWER))), "B")


@pytest.mark.parametrize("preset", ["paravt", "vanilla", "longvt", "pyvision"])
def test_leniency_pays_for_broken_form_so_that_strict_reading_is_the_rule(preset):
    """What is repaired earns its tool reward in full: nothing would teach a model to write well."""
    well = score(rollout(block(GOOD), lenient=False), PRESETS[preset])["tool_gain"]
    for broken in (FORMS["quotes"][0], FORMS["unclosed"][0], FORMS["in_thought"][0]):
        assert score(rollout(broken, lenient=True), PRESETS[preset])["tool_gain"] == well > 0
        assert score(rollout(broken, lenient=False), PRESETS[preset])["tool_gain"] == 0.0


def test_a_repaired_call_is_never_compliant():
    assert compliance(rollout(block(GOOD), lenient=True))
    for _, text in CASES:
        assert not compliance(rollout(text, lenient=True))


def test_repairs_and_paths_of_other_videos_are_counted():
    path = '{{"name": "crop_video", "arguments": {{"start": 1, "end": 2, "video_path": "{}"}}}}'
    named = ("clip.mp4", "clip", "/v/clip.mp4", "", "video.mp4", "/etc/passwd")
    text = "".join(block(path.format(name)) for name in named)
    counts = lapses(rollout(text + FORMS["quotes"][0], lenient=True))
    assert {name: count for name, count in counts.items() if count} == {
        "foreign_path": 2,
        "quotes": 1,
    }


@pytest.mark.parametrize("lenient", [False, True])
def test_the_environment_reads_as_it_is_told(make_env, lenient):
    env = CompletionAction(make_env(lenient_calls=lenient))
    env.reset(seed=0, options={"task_id": "colour"})
    call = "{'name': 'crop_video', 'arguments': {'start': 1, 'end': 2}}"
    info = env.step(block(call))[4]
    assert [crop["status"] for crop in info["crops"]] == ["ok" if lenient else "malformed"]
    info = env.step(ANSWER)[4]
    assert info["lapses"]["quotes"] == lenient


@pytest.mark.parametrize(
    "piece",
    ["<think><tool_call>", "<tool_code>crop_video(", "<tool_call>[", "<tool_call>{'a':", "'", "(",
     "<tool_call>{'name': 'crop_video',", "<think>", "<tool_code>crop_video('", "```", "{" * 50],
)  # fmt: skip
def test_hostile_text_is_read_in_time_that_grows_with_it(piece):
    for text in (piece * (300_000 // len(piece)), f"<tool_call>{piece * 400}</tool_call>",
                 f"<tool_code>{piece * 400}</tool_code>"):  # fmt: skip
        with ends():
            action_from_completion(text, 5, lenient=True)
