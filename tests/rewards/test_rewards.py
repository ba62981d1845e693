"""Reward terms: the published formulae with literal values, and the defects they must not have."""

import math
from dataclasses import replace

import pytest
from support.rewards import every_term

from paravt_env.crop import CropResult, CropStatus
from paravt_env.protocol import parse
from paravt_env.rewards import (
    PRESETS,
    Answer,
    FormatAnchor,
    RewardPreset,
    TermError,
    ToolGain,
    Transcript,
    Turn,
    compliance,
    evidence_iou,
    evidence_recall,
    make_preset,
    score,
    transcript_recall,
)
from paravt_env.rewards.terms.answer import score_answer, token_f1, tokens
from paravt_env.rewards.terms.choice import named_options
from paravt_env.span import parse_span, temporal_iou
from paravt_env.task import Task, TaskError

THINK = "<think>\nI look at the frames.\n</think>\n"
CALL = (
    '<tool_call>\n{"name": "crop_video", "arguments": {"start_time": 1, "end_time": 2}}\n'
    "</tool_call>"
)
ANSWER = "<answer>B</answer>"
MCQ = Task("m", "/v.mp4", "Which?", "mcq", ("red", "blue", "green", "white"), "B")
OPEN = Task("o", "/v.mp4", "What?", "open", answer="a red car parks")
SPAN = Task("g", "/v.mp4", "When?", "grounding", answer="10.0-20.0")


def crop(status="ok", window=(1.0, 2.0)):
    clipped = window if status == "ok" else None
    return CropResult(window, clipped, CropStatus(status))


def crops_of(statuses, same=False):
    """Crops of one second each: one after the other, or all the same second."""
    return tuple(
        crop(status, (1.0, 2.0) if same else (1.0 + i, 2.0 + i))
        for i, status in enumerate(statuses)
    )


def episode(*texts, statuses=(), task=MCQ, answer=None, stop_reason="answered", same=False):
    """A transcript: one text a turn; `statuses` are those of the first turn's calls."""
    parsed = [parse(text) for text in texts]
    crops = [crops_of(statuses, same)] + [()] * len(parsed)
    turns = tuple(Turn(one, done) for one, done in zip(parsed, crops, strict=False))
    counted = parsed[-1].answer if answer is None and parsed else (answer or "")
    return Transcript(task, turns, counted, stop_reason)


def array_episode(*statuses, answer="", task=MCQ):
    """A transcript of an agent that writes no completion."""
    return Transcript(task, (Turn(None, crops_of(statuses)), Turn(None)), answer)


def form(*texts, statuses=(), answer=None, **options):
    rollout = episode(*texts, statuses=statuses, answer=answer)
    return FormatAnchor(**options)(rollout)


def gain(*statuses, answer="B", task=MCQ, **options):
    rollout, term = array_episode(*statuses, answer=answer, task=task), Answer()
    valued = replace(rollout, correct=term(rollout), overlap=term.overlap(rollout))
    return ToolGain(**options)(valued)


# Answer: multiple choice


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(B)",
        "B.",
        "b)",
        "**B**",
        "\\boxed{B}",
        "'B'",
        "Option B",
        "option b",
        "The answer is B",
        "the answer is b.",
        "Answer: (B)",
        "B. blue",
        "b) blue",
        "(B) Blue.",
        "B\nblue",
        "blue",
        "Blue.",
        "The correct option is B, blue",
        "I think B",
        "It's B.",
        "B because it is a blue car",
        "B\N{RIGHT SINGLE QUOTATION MARK}",
    ],
)
def test_forms_of_an_option(text):
    assert score_answer(MCQ, text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "E",
        "red",
        "B or C",
        "B. red",
        "red or blue",
        "A, B, C, D",
        "B/C",
        "B and A",
        "blueberry",
        "AB",
        "B-roll",
        "the",
        "",
        "...",
        "none of them",
        "the blue one? option b, or option c",
    ],
)
def test_texts_that_do_not_name_just_the_gold_option(text):
    assert score_answer(MCQ, text) == 0.0


def test_defect_13_articles_many_options_and_letters_past_d():
    gold_a = Task("a", "/v.mp4", "Which?", "mcq", ("red", "blue"), "A")
    assert score_answer(gold_a, "the") == 0.0
    assert score_answer(gold_a, "a") == 1.0
    assert score_answer(gold_a, "a blue one") == 0.0
    assert score_answer(gold_a, "A bird.") == 0.0
    for gold in "ABC":
        task = Task("t", "/v.mp4", "Which?", "mcq", ("w", "x", "y", "z"), gold)
        assert score_answer(task, "C. The answer is A. Option B") == 0.0
    ten = Task("t", "/v.mp4", "Which?", "mcq", tuple(f"item {i}" for i in range(10)), "J")
    for text in ("J", "(J)", "J.", "Option J", "The answer is J", "item 9"):
        assert score_answer(ten, text) == 1.0
    last = episode(THINK + "<answer>A</answer><answer>B</answer>")
    assert Answer()(last) == 1.0


def test_the_article_and_the_pronoun_are_not_letters():
    nine = tuple(f"thing {i}" for i in range(9))
    assert named_options("I think A is right", nine) == {"A"}
    assert named_options("A man, so C", nine) == {"C"}
    assert named_options("I'd say I.", nine) == {"I"}
    assert named_options("the answer is a man", nine) == set()


def test_option_texts_with_articles_letters_and_overlaps():
    options = ("a red car", "a dark red car", "Team C", "12")
    assert named_options("B. A dark red car", options) == {"B"}
    assert named_options("A dark red car", options) == {"B"}
    assert named_options("The answer is Team C", options) == {"C"}
    assert named_options("12.5", options) == set()
    assert named_options("it was 12.", options) == {"D"}
    letters = ("C", "A", "B", "D")
    assert named_options("C", letters) == {"C"}
    assert named_options("red", ("red", "red")) == {"A", "B"}


# Answer: grounding


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("10.0 - 20.0", (10.0, 20.0)),
        ("10-20", (10.0, 20.0)),
        ("from 10s to 20.5 seconds.", (10.0, 20.5)),
        ("[10, 20]", (10.0, 20.0)),
        ("0:10 - 1:02:03.5", (10.0, 3723.5)),
        ("<answer>1:05\N{EN DASH}70", (65.0, 70.0)),
        ("1.2.3 - 5", None),
        ("1.2.3", None),
        ("10", None),
        ("10-20 or 30-40", None),
        ("1:75 - 2:00", None),
        ("1e3 - 2e3", None),
        ("10 apples20", None),
        ("", None),
        ("soon", None),
    ],
)
def test_defect_14_spans_are_read_robustly(text, span):
    assert parse_span(text) == span


def test_temporal_iou():
    assert temporal_iou((10.0, 20.0), (10.0, 20.0)) == 1.0
    assert temporal_iou((15.0, 25.0), (10.0, 20.0)) == pytest.approx(5 / 15)
    assert temporal_iou((12.0, 14.0), (10.0, 20.0)) == pytest.approx(0.2)
    assert temporal_iou((20.0, 30.0), (10.0, 20.0)) == 0.0
    assert temporal_iou((40.0, 50.0), (10.0, 20.0)) == 0.0
    assert temporal_iou((20.0, 10.0), (10.0, 20.0)) == 0.0
    assert temporal_iou((15.0, 15.0), (10.0, 20.0)) == 0.0
    assert temporal_iou((0.0, math.inf), (10.0, 20.0)) == 0.0
    assert temporal_iou(None, (10.0, 20.0)) == 0.0
    assert temporal_iou((10.0, 20.0), (20.0, 10.0)) == 0.0
    assert temporal_iou((20.0, 30.0), (20.0, 10.0)) == 0.0
    assert temporal_iou((10.0, 20.0), (15.0, 15.0)) == 0.0
    assert score_answer(SPAN, "9" * 400 + " - 10") == 0.0
    assert score_answer(SPAN, "15.0 - 25.0 s") == pytest.approx(1 / 3)


def test_a_broken_gold_span_is_our_bug_and_raises():
    with pytest.raises(TaskError, match="not start-end"):
        score_answer(Task("g", "/v.mp4", "When?", "grounding", answer="soon"), "1-2")


# Answer: open


def test_defect_14_f1_counts_repeated_tokens():
    assert token_f1(["red", "red"], ["red", "car"]) == 0.5
    assert token_f1(["red", "red"], ["red", "red"]) == 1.0
    assert token_f1(["x"], ["red"]) == 0.0
    assert token_f1(["red", "car"], ["red", "car", "red", "car"]) == pytest.approx(2 / 3)


def test_open_answers():
    assert score_answer(OPEN, "The red car parks.") == 1.0
    assert score_answer(OPEN, "red car") == pytest.approx(0.8)
    assert score_answer(OPEN, "red car", exact=True) == 0.0
    assert score_answer(OPEN, "A RED car, parks", exact=True) == 1.0


def test_tokens():
    assert tokens("It's 1.5, not 15: 12,000!") == ["its", "1.5", "not", "15", "12000"]
    assert tokens("the") == ["the"] != tokens("a")
    assert tokens("an old man") == ["old", "man"]
    assert tokens("3/4 - 1:05") == ["3/4", "1:05"]


def test_no_answer_is_zero_and_a_scorer_supplies_the_value():
    calls = []

    def judge(task, text):
        calls.append((task.id, text))
        return 0.5

    assert Answer(scorer=judge)(array_episode()) == 0.0
    assert calls == []
    terms = score(array_episode("ok", answer="x"), make_preset("paravt", judge))
    assert calls == [("m", "x")]
    assert terms == {"answer": 0.5, "format_anchor": 0.0, "tool_gain": 0.8, "total": 1.3}


@pytest.mark.parametrize("value", [0.0, 0.04, 1.0])
def test_a_scorer_may_use_the_whole_range(value):
    assert Answer(scorer=lambda task, text: value)(array_episode(answer="B")) == value


@pytest.mark.parametrize("value", [1.01, -0.01, math.nan])
def test_defect_16_a_scorer_outside_its_range_raises(value):
    with pytest.raises(ValueError, match="must return a number in"):
        Answer(scorer=lambda task, text: value)(array_episode(answer="B"))


# Format


def test_the_published_format_values():
    assert form(THINK + ANSWER) == 1.0
    assert form(THINK + ANSWER, rescale=True) == pytest.approx(1.15 / 1.45)
    assert form(THINK + CALL, THINK + ANSWER, statuses=["ok"]) == 1.0
    assert form(THINK + CALL, THINK + ANSWER, statuses=["ok"], rescale=True) == pytest.approx(1.0)


def test_each_part_of_the_format_term():
    # thought 0.2 + 0.5 * 0.4 + balanced 0.1
    assert form(THINK) == pytest.approx(0.5)
    # and a call 0.3
    assert form(THINK + CALL, statuses=["ok"]) == pytest.approx(0.8)
    # answer 0.3 + 0.2, balanced 0.1
    assert form(ANSWER) == pytest.approx(0.6)
    # thought 0.4, answer 0.3 without its closing tag
    assert form(THINK + "<answer>B") == pytest.approx(0.7)
    # thought 0.4, answer 0.5, flow 0.15; a stray tag: not balanced, but above 1 all the same
    assert form(THINK + ANSWER + "</think>", rescale=True) == pytest.approx(1.05 / 1.45)
    assert form(THINK + "</think>", THINK + ANSWER, rescale=True) == pytest.approx(1.05 / 1.45)
    # an open answer without content; a closed one that did not count beside a call
    assert form(THINK + "<answer> ") == pytest.approx(0.4)
    assert form(THINK + CALL + ANSWER, statuses=["ok"], answer="") == pytest.approx(0.8)
    assert form("plain text") == 0.0
    assert form("") == 0.0
    assert form() == 0.0


def test_format_without_anchor_or_answer_suffix():
    assert form(THINK + ANSWER, anchor=False) == pytest.approx(0.8)
    assert form(THINK + ANSWER, anchor=False, rescale=True) == pytest.approx(0.8 / 1.1)
    assert form("<think>\nI wonder and wonder", anchor=False) == 0.0
    assert form(THINK, answer_suffix=False, anchor=False) == pytest.approx(0.4)
    assert form("<answer>B", answer_suffix=False) == pytest.approx(0.2)
    assert form(ANSWER, answer_suffix=False) == pytest.approx(0.4)
    assert form(THINK + ANSWER, answer_suffix=False, rescale=True) == pytest.approx(1.05 / 1.35)


def test_thoughts_need_ten_characters():
    assert form("<think>123456789</think>" + ANSWER) == pytest.approx(0.6)
    assert form("<think>1234567890</think>" + ANSWER) == 1.0
    assert form("<think>1" + " " * 20 + "2</think>" + ANSWER) == pytest.approx(0.6)
    assert form("<think>..........</think>" + ANSWER) == pytest.approx(0.6)
    assert form("<think>123456789.........</think>" + ANSWER) == pytest.approx(0.6)
    assert form("<think>a . . . . . . . . .</think>" + ANSWER) == pytest.approx(0.6)
    assert form("<think>it is red 4</think>" + ANSWER) == 1.0
    assert form("<think>我看了看这段视频的画面</think>" + ANSWER) == 1.0


def test_defect_10_closing_the_forced_thought_pays_and_leaving_it_open_costs():
    opened = form("<think>\nI look at the frames.")
    assert opened == pytest.approx(-0.15)
    assert form("<think>\nI look at the frames. <answer>B</answer>") == opened
    assert form("<think>\nI look at the frames.", unclosed_penalty=False) == 0.0
    assert form(THINK) > form("") > opened
    assert form(THINK + ANSWER) == 1.0


def test_defect_11_a_forged_tool_response_earns_nothing():
    forged = THINK + "<tool_response>the car is blue</tool_response>" + ANSWER
    assert form(forged, rescale=True) == form(THINK + ANSWER, rescale=True)
    terms = score(episode(forged), PRESETS["paravt"])
    assert terms["tool_gain"] == 0.0


def test_defect_17_empty_tags_spam_and_repeats_earn_nothing():
    assert form("<think></think><answer></answer>") == 0.0
    assert form("<think></think>" * 50 + "<answer></answer>" * 50) == 0.0
    assert form("<think><think><think></think>") == 0.0
    assert form("<answer><answer></answer>") == 0.0
    full = form(THINK + ANSWER, rescale=True)
    assert form(THINK * 3 + ANSWER * 3, rescale=True) == full
    assert form(THINK + ANSWER + "<answer>", rescale=True) < full
    assert form("<think></think>" + THINK + ANSWER, rescale=True) < full


def test_more_turns_never_pay_by_themselves():
    one = form(THINK + ANSWER, rescale=True)
    assert form(THINK, THINK + ANSWER, rescale=True) == one
    assert form("junk", THINK + ANSWER, rescale=True) < one
    assert form("<think>\nopen", THINK + ANSWER, rescale=True) < one
    two_open = form("<think>\nopen", "<think>\nopen")
    assert two_open == form("<think>\nopen") == pytest.approx(-0.15)


def test_the_call_bonus_needs_a_call_that_ran():
    base = form(THINK, rescale=True)
    assert form(THINK + CALL, statuses=["ok"], rescale=True) == pytest.approx(0.8 / 1.45)
    assert form(CALL, statuses=["ok"]) == 0.0
    for status in set(CropStatus) - {"ok"}:
        assert form(THINK + CALL, statuses=[status], rescale=True) == base


def test_the_published_call_bonus_is_for_any_call_that_was_read_and_allowed():
    paid = {"rescale": True, "pay_attempts": True}
    for status in ("malformed", "unknown_tool", "over_limit", "refused"):
        assert form(THINK + CALL, statuses=[status], **paid) == form(THINK, rescale=True)
    for status in ("ok", "outside", "too_long", "wrong_video", "timeout"):
        assert form(THINK + CALL, statuses=[status], **paid) == pytest.approx(0.8 / 1.45)


def test_the_binary_form_is_all_or_nothing():
    assert form(THINK + ANSWER, form="binary") == 1.0
    assert form(THINK + CALL, THINK + ANSWER, statuses=["ok"], form="binary") == 1.0
    assert form(THINK + CALL * 2, THINK + ANSWER, statuses=["ok", "empty"], form="binary") == 1.0
    assert form(THINK + ANSWER + ".", form="binary") == 0.0
    assert form(ANSWER, form="binary") == 0.0
    assert form(form="binary") == 0.0
    nothing_ran = {"statuses": ["outside"], "form": "binary"}
    assert form(THINK + CALL, THINK + ANSWER, **nothing_ran) == 0.0
    assert form(THINK + CALL, THINK + ANSWER, **nothing_ran, pay_attempts=True) == 1.0


def test_defect_15_rescaling_keeps_large_values_apart():
    with_call = (THINK + CALL, THINK + ANSWER)
    assert form(*with_call, statuses=["ok"]) == form(THINK + ANSWER)
    ranked = form(*with_call, statuses=["ok"], rescale=True)
    assert ranked > form(THINK + ANSWER, rescale=True)


def test_an_agent_without_completions_has_no_form():
    assert FormatAnchor()(array_episode("ok", answer="B")) == 0.0
    half = Transcript(MCQ, (Turn(parse(THINK)), Turn(None)), "B")
    assert FormatAnchor()(half) == 0.0
    acted = Transcript(MCQ, (Turn(None, (crop(),)), Turn(parse(THINK + ANSWER))), "B")
    assert FormatAnchor()(acted) == 0.0


def test_an_empty_completion_costs_what_it_lacks_and_not_the_whole_form():
    nothing = Transcript(MCQ, (Turn(None), Turn(parse(THINK + ANSWER))), "B")
    # of the answer 0.3 + 0.2 and balanced 0.1; a thought in every turn is missing
    assert FormatAnchor()(nothing) == pytest.approx(0.6)
    assert FormatAnchor()(Transcript(MCQ, (Turn(parse(THINK)), Turn(None)))) == 0.0
    assert not compliance(nothing)


@pytest.mark.parametrize("end", ["<|im_end|>", "\n<|im_end|>\n", "<|endoftext|>", "<|im_end|>" * 2])
def test_the_end_of_turn_in_the_text_is_no_lapse(end):
    rollout = episode(THINK + ANSWER + end)
    assert compliance(rollout)
    assert score(rollout, PRESETS["longvila"])["total"] == 1.0
    assert form(THINK + ANSWER + end, rescale=True) == form(THINK + ANSWER, rescale=True)
    assert not compliance(episode(THINK + ANSWER + end + "so"))


# Tool gain


def test_the_published_graduated_gain():
    assert gain() == 0.0
    assert gain("ok", answer="A") == 0.3
    assert gain("ok") == 0.8
    assert gain("ok", "ok", "outside") == 0.8
    for status in ("outside", "too_long", "wrong_video", "timeout"):
        assert gain(status, pay_attempts=True) == 0.1
    assert gain("ok", "outside", answer="A", pay_attempts=True) == 0.3
    assert gain("refused", pay_attempts=True) == gain("malformed", pay_attempts=True) == 0.0


def test_the_published_accumulative_gain():
    counted = {"gain": "accumulative"}
    assert gain(**counted) == 0.0
    assert gain("ok", **counted) == 0.1
    assert gain("ok", "ok", "ok", **counted) == pytest.approx(0.3)
    assert gain("ok", "ok", answer="A", **counted) == 0.0
    assert gain("ok", answer="red car", task=OPEN, **counted) == 0.0
    assert gain("ok", answer="10-20", task=SPAN, **counted) == 0.1


def test_crops_that_share_seconds_are_paid_once():
    def paid(*windows):
        crops = tuple(crop(window=window) for window in windows)
        rollout = Transcript(MCQ, (Turn(None, crops), Turn(None)), "B", correct=1.0)
        return ToolGain(gain="accumulative")(rollout)

    assert paid((1.0, 2.0), (1.0, 2.0), (1.0, 2.0)) == 0.1
    assert paid((0.0, 10.0), (5.0, 15.0)) == 0.1
    assert paid((0.0, 10.0), (10.0, 20.0)) == 0.2
    assert paid((20.0, 30.0), (0.0, 10.0), (5.0, 25.0)) == 0.2
    assert paid((0.0, 45.0), (1.0, 1.1), (2.0, 2.1)) == 0.2
    assert paid((0.0, 10.0), (9.0, 19.0), (18.0, 28.0)) == 0.2


def looking(*turns, spans=((10.0, 20.0),), **options):
    """The evidence gain of turns of (status, start, end) crops."""
    task = Task("e", "/v.mp4", "Which?", "mcq", ("x", "y"), "A", evidence=spans)
    crops = [tuple(crop(status, (start, end)) for status, start, end in turn) for turn in turns]
    rollout = Transcript(task, (*(Turn(None, one) for one in crops), Turn(None)), "B")
    return ToolGain(gain="evidence", **options)(rollout)


def test_the_published_evidence_gain_is_the_iou_of_the_last_crop():
    assert looking([("ok", 10.0, 20.0)]) == 1.0
    assert looking([("ok", 15.0, 25.0)]) == pytest.approx(5 / 15)
    assert looking([("ok", 10.0, 20.0)], [("ok", 15.0, 25.0)]) == pytest.approx(5 / 15)
    assert looking([("ok", 0.0, 5.0)]) == 0.0
    assert looking() == 0.0
    assert looking([("ok", 10.0, 20.0)], spans=()) == 0.0


def test_the_iou_of_several_crops_and_spans_counts_seconds():
    spans = ((10.0, 20.0), (50.0, 60.0))
    assert looking([("ok", 10.0, 20.0), ("ok", 50.0, 60.0)], spans=spans) == 1.0
    assert looking([("ok", 10.0, 20.0), ("ok", 0.0, 10.0)], spans=spans) == pytest.approx(1 / 3)
    assert looking([("ok", 10.0, 20.0), ("ok", 12.0, 20.0)]) == 1.0


def test_the_recall_of_all_crops_as_evidence_gain():
    turns = [("ok", 0.0, 15.0)], [("ok", 14.0, 17.5), ("timeout", 17.0, 20.0)]
    assert looking(*turns, evidence="recall") == pytest.approx(7.5 / 17.5)
    assert looking([("ok", 10.0, 15.0)], evidence="recall") == 0.5
    assert looking([("ok", 10.0, 15.0)], [("ok", 10.0, 15.0)], evidence="recall") == 0.5
    assert looking([("ok", 0.0, 40.0)], [("ok", 40.0, 80.0)], evidence="recall") == 0.125
    assert looking(*turns, evidence="iou") == pytest.approx(0.35)
    assert looking(*turns, evidence="recall", spans=()) == 0.0


def test_defect_12_only_the_tool_itself_and_real_success_pay():
    for status in ("malformed", "unknown_tool", "over_limit", "refused"):
        assert gain(status) == 0.0
    assert token_f1(tokens("car by lake at noon in May"), tokens(OPEN.answer)) < 0.5
    assert gain("ok", answer="car by lake at noon in May", task=OPEN) == 0.3
    assert gain("ok", answer="red car", task=OPEN) == 0.8
    assert gain("ok", answer="car", task=OPEN) == 0.3
    one = Task("o", "/v.mp4", "What?", "open", answer="red")
    assert gain("ok", answer="red", task=one) == 0.8
    assert gain("ok", answer="red blue", task=one) == gain("ok", answer="red, dog", task=one) == 0.3
    assert gain("ok", answer="red blue green", task=one) == 0.3
    assert gain("ok", answer="0 - 600", task=SPAN) == 0.3
    assert gain("ok", answer="10 - 15", task=SPAN) == 0.8
    assert gain("ok", answer="10 - 15", task=SPAN, success_threshold=0.51) == 0.3


def test_defect_18_a_call_that_failed_earns_less_than_one_that_ran():
    for status in CropStatus:
        if status != "ok":
            assert gain(status) == 0.0 < gain("ok", answer="A")
            assert gain(status, pay_attempts=True) <= 0.1 < gain("ok", answer="A")
            assert gain(status, gain="accumulative") == 0.0 < gain("ok", gain="accumulative")
            assert looking([("ok", 15.0, 25.0)], [(status, 10.0, 20.0)]) == pytest.approx(1 / 3)
            assert looking([("ok", 15.0, 25.0), (status, 10.0, 20.0)]) == pytest.approx(1 / 3)


# Presets


def test_the_presets():
    rollout = episode(THINK + CALL, THINK + ANSWER, statuses=["ok"])
    assert score(rollout, PRESETS["paravt"]) == pytest.approx(
        {"answer": 1.0, "format_anchor": 1.0, "tool_gain": 0.8, "total": 2.8}
    )
    direct = episode(THINK + ANSWER)
    assert score(direct, PRESETS["paravt"])["total"] == pytest.approx(2.0)
    assert score(direct, PRESETS["vanilla"])["total"] == pytest.approx(1.8)
    assert set(PRESETS) == {
        "paravt", "paravt_necessity", "vanilla", "longvt", "longvila", "pyvision",
    }  # fmt: skip


SEEN = Task("s", "/v.mp4", "Which?", "mcq", ("x", "y"), "B", evidence=((1.5, 3.5),))


def published(preset, *texts, statuses=(), answer="B", task=SEEN, same=False):
    """Answer, format and tool term and the weighted sum, in this order."""
    texts = [text.replace(">B<", f">{answer}<") for text in texts]
    rollout, made = episode(*texts, statuses=statuses, task=task, same=same), make_preset(preset)
    scored, every = score(rollout, made), every_term(rollout, made)
    assert scored == {**{name: every[name] for name in made.weights}, "total": scored["total"]}
    return [*every.values(), scored["total"]]


@pytest.mark.parametrize(
    ("preset", "direct", "called", "called_wrong"),
    [
        # R_acc + R_fmt + R_tool: 1.15 and 1.45 are capped at 1
        ("paravt", [1, 1, 0, 2], [1, 1, 0.8, 2.8], [0, 1, 0.3, 1.3]),
        # the format term without its anchor: 0.8, and 1.1 capped
        ("vanilla", [1, 0.8, 0, 1.8], [1, 1, 0.8, 2.8], [0, 1, 0.3, 1.3]),
        # R_acc + R_fmt + IoU of 1-2 s with 1.5-3.5 s, whatever the answer
        ("longvt", [1, 1, 0, 2], [1, 1, 0.2, 2.2], [0, 1, 0.2, 1.2]),  # two equal crops
        # 0.9 acc + 0.1 format
        ("longvila", [1, 1, 0, 1], [1, 1, 0.8, 1], [0, 1, 0.3, 0.1]),
        # R_acc + 0.1 n 1[R_acc = 1], here with two calls
        ("pyvision", [1, 1, 0, 1], [1, 1, 0.2, 1.2], [0, 1, 0, 0]),
    ],
)
def test_presets_reproduce_the_published_values(preset, direct, called, called_wrong):
    calls, ran = (THINK + CALL + CALL, THINK + ANSWER), {"statuses": ["ok", "ok"]}
    ran["same"] = preset == "longvt"
    assert published(preset, THINK + ANSWER) == pytest.approx(direct)
    assert published(preset, *calls, **ran) == pytest.approx(called)
    assert published(preset, *calls, **ran, answer="A") == pytest.approx(called_wrong)


def test_the_published_partial_answers():
    calls, ran = (THINK + CALL, THINK + ANSWER), ["ok"]
    options = {"answer": "12-20", "task": SPAN, "statuses": ran}
    assert published("paravt", *calls, **options) == pytest.approx([0.8, 1, 0.8, 2.6])
    assert published("longvila", *calls, **options)[3] == pytest.approx(0.9 * 0.8 + 0.1)
    assert published("pyvision", *calls, **options)[3] == pytest.approx(0.8)


def test_defect_16_longvt_does_not_score_open_answers_without_its_judge():
    with pytest.raises(ValueError, match=r"give reward=.*judge"):
        published("longvt", THINK + ANSWER, task=OPEN)
    judged = {"preset": "longvt", "scorer": lambda task, text: 0.5}
    assert published(judged, THINK + ANSWER, task=OPEN) == [0.5, 1.0, 0.0, 1.5]
    assert score(episode(THINK, task=OPEN, answer=""), PRESETS["longvt"])["answer"] == 0.0


def test_weights_and_options_of_a_recipe():
    preset = make_preset(
        {"preset": "vanilla", "weights": {"answer": 2, "tool_gain": -0.5}, "rescale": True}
    )
    assert preset.terms == {
        "answer": (2, Answer()),
        "format_anchor": (1.0, FormatAnchor(anchor=False, rescale=True)),
        "tool_gain": (-0.5, ToolGain()),
    }
    terms = score(episode(THINK + CALL, THINK + ANSWER, statuses=["ok"]), preset)
    assert terms["total"] == pytest.approx(2 * 1.0 + 1.0 * 1.0 - 0.5 * 0.8)
    assert PRESETS["vanilla"].weights["answer"] == 1.0
    assert score(episode(THINK + ANSWER), RewardPreset({"answer": (1, Answer())}))["total"] == 1.0


def test_an_option_goes_to_every_term_that_has_it():
    terms = make_preset({"pay_attempts": True, "open_metric": "exact"}).terms
    assert terms["answer"][1] == Answer(open_metric="exact")
    assert terms["format_anchor"][1] == FormatAnchor(pay_attempts=True)
    assert terms["tool_gain"][1] == ToolGain(pay_attempts=True)
    alone = {"terms": {"tool_gain": {"weight": 0.5, "options": {"pay_attempts": True}}}}
    preset = make_preset(alone)
    assert preset.terms["format_anchor"][1] == FormatAnchor()
    assert preset.terms["tool_gain"] == (0.5, ToolGain(pay_attempts=True))


def test_a_term_may_be_there_twice_under_two_names():
    seen = {"use": "tool_gain", "weight": 0.5, "options": {"gain": "evidence"}}
    preset = make_preset({"terms": {"seen": seen}})
    rollout = episode(THINK + CALL, THINK + ANSWER, statuses=["ok"], task=SEEN)
    assert score(rollout, preset) == pytest.approx(
        {"answer": 1.0, "format_anchor": 1.0, "tool_gain": 0.8, "seen": 0.2, "total": 2.9}
    )
    routed = make_preset({"terms": {"seen": seen}, "pay_attempts": True}).terms
    assert routed["seen"] == (0.5, ToolGain(gain="evidence"))
    assert routed["tool_gain"] == (1.0, ToolGain(pay_attempts=True))


def test_a_term_of_weight_0_is_not_computed_and_not_there(monkeypatch):
    def never(self, transcript):
        raise AssertionError("it was computed")

    monkeypatch.setattr(ToolGain, "__call__", never)
    monkeypatch.setattr(FormatAnchor, "__call__", never)
    preset = make_preset({"weights": {"format_anchor": 0, "tool_gain": 0.0}})
    assert score(episode(THINK + ANSWER), preset) == {"answer": 1.0, "total": 1.0}
    assert preset.weights == {"answer": 1.0}
    with pytest.raises(TermError, match="'m': reward term 'format_anchor' raised AssertionError"):
        score(episode(THINK + ANSWER), PRESETS["longvila"])


def test_the_answer_is_always_computed():
    preset = make_preset({"weights": {"answer": 0.0, "tool_gain": 0.0}})
    assert preset.weights == {"answer": 0.0, "format_anchor": 1.0}
    scored = score(episode(THINK + ANSWER), preset)
    assert scored == {"answer": 1.0, "format_anchor": 1.0, "total": 1.0}
    assert RewardPreset({}).weights == {"answer": 0.0}


def test_tool_gain_does_not_guess_whether_the_answer_is_right():
    with pytest.raises(ValueError, match="not valued yet"):
        ToolGain()(array_episode("ok", answer="B"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("parvat", "did you mean 'paravt'"),
        ({"preset": "parvat"}, "did you mean 'paravt'"),
        ({"rescal": True}, "did you mean 'rescale'"),
        ({"weights": {"anwser": 1}}, "did you mean 'answer'"),
        ({"weights": {"answer": "1"}}, "must be a number"),
        ({"weights": {"answer": math.nan}}, "must be finite"),
        ({"weights": {"answer": math.inf}}, "must be finite"),
        ({"weights": [1]}, "must map terms"),
        ({"anchor": "yes"}, "must be true or false"),
        ({"pay_attempts": 1}, "must be true or false"),
        ({"gain": "graduate"}, "did you mean 'graduated'"),
        ({"form": "binry"}, "did you mean 'binary'"),
        ({"evidence": "giou"}, "did you mean 'iou'"),
        ({"open_metric": "f2"}, "'f2' is not one of f1, exact"),
        ({"judge": "gpt"}, "must be a mapping with url and model"),
        ({"judge": {"url": "http://x"}}, "judge needs model"),
        ({"judge": {"url": "http://x", "model": "m"}, "scorer": len}, "not both"),
        ({"success_threshold": 0}, r"must be in \(0, 1\]"),
        ({"success_threshold": 1.01}, r"must be in \(0, 1\]"),
        ({"success_threshold": "x"}, "must be a number"),
        ({"scorer": 3}, "must be callable"),
        (3, "a preset's name or a mapping"),
        ({"terms": ["calm"]}, "must map names to entries"),
        ({"terms": {"calm": 3}}, "reward term 'calm' must map use, weight, options to values"),
        ({"terms": {"anwser": {"weight": 1}}}, "did you mean 'answer'"),
        ({"terms": {"tool_gain": {"weights": 1}}}, "did you mean 'weight'"),
        ({"terms": {"tool_gain": {"options": {"gian": "x"}}}}, "did you mean 'gain'"),
        ({"terms": {"tool_gain": {"options": ["gain"]}}}, "must map names to values"),
        ({"terms": {"tool_gain": {"options": {"rescale": True}}}}, "'tool_gain'.*'rescale' is not"),
        ({"terms": {"answer": {"use": "tool_gain"}}}, "answer is the built-in one"),
        ({"terms": {"calm": {"use": len}}}, "'calm' must be the class of a dataclass"),
        ({"terms": {"total": {"use": "tool_gain"}}}, "'total' cannot be the name"),
        ({"terms": {"_a": {"use": "tool_gain"}}}, "'_a' cannot be the name"),
        ({"terms": {"a b": {"use": "tool_gain"}}}, "'a b' cannot be the name"),
        ({"terms": {"tool_gain": {"weight": 1}}, "weights": {"tool_gain": 1}}, "given twice"),
        (
            {"terms": {"format_anchor": {"options": {"rescale": True}}}, "rescale": False},
            "rescale of format_anchor is given twice",
        ),
        ({"scorer": "exact"}, "must be callable"),
    ],
)
def test_wrong_recipes_say_what_is_wrong(spec, message):
    with pytest.raises(ValueError, match=message):
        make_preset(spec)


def test_a_video_that_could_not_be_read_is_never_scored():
    with pytest.raises(ValueError, match="not scored"):
        score(episode(THINK + ANSWER, stop_reason="video_error"), PRESETS["paravt"])


# Compliance


@pytest.mark.parametrize(
    "texts",
    [
        [THINK + ANSWER],
        ["<think>x</think><answer>B</answer>"],
        [THINK + CALL + CALL, THINK + ANSWER],
        [THINK + "<tool_code>crop_video(start=1, end=2)</tool_code>\n", "\n" + THINK + ANSWER],
    ],
)
def test_compliant_rollouts(texts):
    assert compliance(episode(*texts))


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        [THINK],
        [ANSWER],
        [ANSWER + THINK],
        [THINK + THINK + ANSWER],
        [THINK + ANSWER + ANSWER],
        [THINK + "so " + ANSWER],
        [THINK + ANSWER + "."],
        [THINK + "<answer> </answer>"],
        [THINK + "<answer>B"],
        ["<think> </think>" + ANSWER],
        ["<think>..........</think>" + ANSWER],
        ["<think><think>hm</think>" + ANSWER],
        [THINK + CALL],
        [THINK + CALL + ANSWER],
        [THINK + ANSWER, THINK + ANSWER],
        [THINK, THINK + ANSWER],
        [THINK + "<tool_call>{}</tool_call>", THINK + ANSWER],
        [CALL, THINK + ANSWER],
        [THINK + "<tool_response>x</tool_response>" + ANSWER],
        [THINK + ANSWER + "</think>"],
    ],
)
def test_rollouts_that_do_not_comply(texts):
    assert not compliance(episode(*texts))


def test_an_agent_without_completions_does_not_comply():
    assert not compliance(array_episode(answer="B"))


# Evidence


def test_evidence_recall():
    assert evidence_recall([(10.0, 20.0)], [(10.0, 20.0)]) == 1.0
    assert evidence_recall([(10.0, 20.0)], [(12.0, 14.0), (13.0, 16.0)]) == pytest.approx(0.4)
    assert evidence_recall([(0.0, 10.0), (20.0, 50.0)], [(0.0, 20.0)]) == 0.25
    assert evidence_recall([(0.0, 10.0), (5.0, 15.0)], [(0.0, 7.5)]) == 0.5
    assert evidence_recall([(0.0, 10.0)], []) == 0.0
    assert evidence_recall([(0.0, 10.0)], [(9.0, 3.0)]) == 0.0
    assert math.isnan(evidence_recall([], [(0.0, 1.0)]))
    assert math.isnan(evidence_recall([(5.0, 5.0)], [(0.0, 9.0)]))


def test_evidence_iou():
    assert evidence_iou([(10.0, 20.0)], [(15.0, 25.0)]) == pytest.approx(5 / 15)
    assert evidence_iou([(10.0, 20.0)], [(12.0, 14.0), (13.0, 16.0)]) == pytest.approx(0.4)
    assert evidence_iou([(10.0, 20.0)], []) == 0.0
    assert math.isnan(evidence_iou([], [(0.0, 1.0)]))


def test_only_executed_crops_cover_evidence():
    task = Task("e", "/v.mp4", "Which?", "mcq", ("x", "y"), "A", evidence=((0.0, 10.0),))
    turns = (
        Turn(None, (crop(window=(0.0, 2.0)), crop("timeout", (0.0, 10.0)))),
        Turn(None, (crop(window=(1.0, 4.0)),)),
    )
    assert transcript_recall(Transcript(task, turns)) == pytest.approx(0.4)


# Task


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "quiz"}, "is not one of mcq, open, grounding"),
        ({"answer": "E"}, "gold answer 'E'"),
        ({"answer": "b"}, "gold answer 'b'"),
        ({"options": ()}, "has 0 options"),
        ({"options": tuple("abcdefghijk")}, "10 at most"),
        ({"kind": "open"}, "a open task has 2 options"),
        ({"kind": "grounding", "options": (), "answer": "20.0-10.0"}, "ends before it starts"),
        (
            {"kind": "grounding", "options": (), "answer": "5-5"},
            "ends before it starts, or at once",
        ),
    ],
)
def test_tasks_that_no_term_could_score(changes, message):
    fields = {"kind": "mcq", "options": ("x", "y"), "answer": "A", **changes}
    with pytest.raises(TaskError, match=message):
        Task("t", "/v.mp4", "Which?", **fields)


def test_the_prompt_of_a_task():
    assert MCQ.prompt == "Which?\nA. red\nB. blue\nC. green\nD. white"
    assert OPEN.prompt == "What?"
