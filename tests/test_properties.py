"""Properties of the parser and the reward terms on generated text."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from paravt_env.crops import CropResult, CropStatus
from paravt_env.protocol import TAG_NAMES, action_from_completion, parse, render_completion
from paravt_env.rewards import (
    PRESETS,
    RewardOptions,
    Transcript,
    Turn,
    compliance,
    evidence_recall,
    score,
)
from paravt_env.rewards.answer import parse_span, temporal_iou, token_f1
from paravt_env.rewards.choice import named_options
from paravt_env.rewards.format_anchor import format_anchor
from paravt_env.task import Task

TASK = Task("t", "/v.mp4", "Which?", "mcq", ("red", "blue"), "B")
CALL = '<tool_call>{"name": "crop_video", "arguments": {"start": 1, "end": 2}}</tool_call>'
TAGS = [f"<{slash}{name}>" for name in TAG_NAMES for slash in ("", "/")]
PIECES = st.one_of(
    st.sampled_from([*TAGS, CALL, "B", "a thought of some length", " ", "{", '"', "crop_video("]),
    st.text(max_size=12),
)
SOUP = st.lists(PIECES, max_size=14).map("".join)
JUNK = st.lists(
    st.one_of(st.sampled_from([*TAGS, "<think></think>", "<answer></answer>"]), st.just(" x ")),
    min_size=1,
    max_size=8,
).map("".join)
WORDS = st.text(alphabet=st.characters(exclude_characters="<>", exclude_categories=["Cs"]))
SECONDS = st.floats(0, 1e5, allow_nan=False)
SPANS = st.lists(st.tuples(SECONDS, SECONDS), max_size=5)

few = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def transcript(*texts):
    """An episode in which every call that parsed was executed."""
    turns = []
    for text in texts:
        parsed = parse(text)
        crops = [
            CropResult((1.0, 2.0), (1.0, 2.0), CropStatus.ok)
            if call.error is None
            else CropResult((math.nan, math.nan), None, CropStatus(call.error))
            for call in parsed.calls
        ]
        turns.append(Turn(parsed, tuple(crops)))
    last = turns[-1]
    answer = "" if last.crops or last.parsed is None else last.parsed.answer
    return Transcript(TASK, tuple(turns), answer)


@few
@given(SOUP)
def test_parse_never_raises_and_roles_tile_the_text(text):
    parsed = parse(text)
    position = 0
    for start, end, _ in parsed.roles():
        assert start == position < end
        position = end
    assert position == len(text)
    for block in parsed.blocks:
        assert text[block.start : block.end].startswith(f"<{block.name}>")
        assert text[block.start : block.end].endswith(f"</{block.name}>") or not block.closed
    assert all((call.window is None) == (call.error is not None) for call in parsed.calls)


@few
@given(SOUP, st.integers(1, 4))
def test_the_action_agrees_with_the_parse(text, max_crops):
    action, parsed = action_from_completion(text, max_crops), parse(text)
    assert action["crop_mask"].sum() == min(len(parsed.calls), max_crops)
    assert action["answer"] == parsed.answer == parsed.answer.strip()


@few
@given(WORDS, st.lists(st.tuples(SECONDS, SECONDS), max_size=4), WORDS)
def test_the_writer_and_the_parser_agree(thought, windows, answer):
    parsed = parse(render_completion(thought, windows, answer))
    assert [call.window for call in parsed.calls] == windows
    assert parsed.answer == answer.strip() or not parsed.answers[0].content
    assert parsed.balanced


@few
@given(SOUP, JUNK)
def test_junk_after_a_turn_never_raises_the_format_term_of_a_full_turn(text, junk):
    full = f"<think>\n{text.replace('<', '')} and some more\n</think><answer>B</answer>"
    for options in (RewardOptions(), RewardOptions(rescale=True), RewardOptions(anchor=False)):
        clean = format_anchor(transcript(full), options)
        assert format_anchor(transcript(full + junk), options) <= clean + 1e-12
        assert format_anchor(transcript(junk + full), options) <= clean + 1e-12
        assert format_anchor(transcript(junk, full), options) <= clean + 1e-12


@few
@given(SOUP, SOUP)
def test_scores_are_bounded_and_compliance_implies_the_full_format(first, second):
    rollout = transcript(first, second)
    terms = score(rollout, PRESETS["paravt"])
    assert -0.15 - 1e-12 <= terms["format_anchor"] <= 1.0
    assert 0.0 <= terms["tool_gain"] <= 0.8
    assert terms["answer"] in (0.0, 1.0)
    total = terms["answer"] + terms["format_anchor"] + terms["tool_gain"]
    assert math.isclose(terms["total"], total)
    if compliance(rollout):
        assert rollout.answer


@few
@given(st.text(max_size=40), st.lists(st.text(max_size=8), max_size=10))
def test_reading_an_answer_never_raises(text, options):
    assert named_options(text, options) <= set("ABCDEFGHIJ")
    span = parse_span(text)
    assert 0.0 <= temporal_iou(span, (1.0, 2.0)) <= 1.0


@few
@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_token_f1_is_symmetric_and_bounded(predicted, gold):
    value = token_f1(predicted, gold)
    assert value == token_f1(gold, predicted)
    assert 0.0 <= value <= 1.0
    assert (value == 1.0) == (sorted(predicted) == sorted(gold) and bool(gold))


@few
@given(SPANS, SPANS, SPANS)
def test_evidence_recall_is_a_fraction_and_grows_with_the_crops(gold, windows, more):
    recall = evidence_recall(gold, windows)
    if math.isnan(recall):
        return
    assert 0.0 <= recall <= 1.0 + 1e-9
    assert evidence_recall(gold, windows + more) >= recall - 1e-9
    assert evidence_recall(gold, gold) == 1.0
