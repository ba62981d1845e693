"""Properties of the parser and the reward on generated completions.

2,000 examples of each (a tenth where a formula alone is tested) in `make test`, the same ones every
time; 100,000 new ones in `make test-nightly`. The profiles are in `conftest.py`.
"""

import math

from hypothesis import given
from hypothesis import strategies as st
from support.rewards import every_term

from paravt_env.crop import CropResult, CropStatus
from paravt_env.protocol import TAG_NAMES, action_from_completion, parse, render_completion
from paravt_env.protocol.tags import TAG_PATTERN
from paravt_env.rewards import (
    PRESETS,
    Transcript,
    Turn,
    compliance,
    evidence_iou,
    evidence_recall,
    make_preset,
    score,
)
from paravt_env.rewards.terms.answer import token_f1
from paravt_env.rewards.terms.choice import named_options
from paravt_env.span import parse_span, temporal_iou
from paravt_env.task import Task

GOLD = ((0.0, 1.5), (4.0, 6.0))
TASKS = (
    Task("m", "/v.mp4", "Which?", "mcq", ("red", "blue"), "B", evidence=GOLD),
    Task("o", "/v.mp4", "What?", "open", answer="a thought", evidence=GOLD),
    Task("g", "/v.mp4", "When?", "grounding", answer="1.0-2.0", evidence=GOLD),
)
REWARDS = {
    **{name: make_preset({"preset": name, "open_metric": "f1"}) for name in PRESETS},
    "rescaled": make_preset({"rescale": True}),
    "recall": make_preset({"gain": "evidence", "evidence": "recall", "answer_suffix": False}),
}
CALL = '<tool_call>{"name": "crop_video", "arguments": {"start": 1, "end": 2}}</tool_call>'
CODE = "<tool_code>crop_video(start_time=1, end_time=2)</tool_code>"
UNKNOWN = '<tool_call>{"name": "zoom", "arguments": {"start": 1, "end": 2}}</tool_call>'
BROKEN = "<tool_call>{}</tool_call>"
TAGS = [f"<{slash}{name}>" for name in TAG_NAMES for slash in ("", "/")]
SCRAPS = [*TAGS, CALL, CODE, BROKEN, UNKNOWN, "a thought of some length", "B", "1-2", " ", "{", '"']
SCRAPS += ["crop_video(", '{"name": "crop_video", "arguments": {"start": 1e999, "end": NaN}}']
SCRAPS += ["\x00", "\ud800", "\U0001f600", "\n", "<", "\N{NO-BREAK SPACE}", "1e3", "A. red", "I"]


def several(pieces, low, high):
    """A list of pieces; drawn as bytes, which is many times faster than a list of choices."""
    return st.binary(min_size=low, max_size=high).map(
        lambda drawn: [pieces[byte % len(pieces)] for byte in drawn]
    )


SOUP = several(SCRAPS, 0, 14).map("".join)
JUNK = several([*TAGS, "<think></think>", "<answer></answer>", " x "], 1, 8).map("".join)
WORDS = st.text(alphabet=st.characters(exclude_characters="<>", exclude_categories=["Cs"]))
SECONDS = st.floats(0, 1e5, allow_nan=False)
SPANS = st.lists(st.tuples(SECONDS, SECONDS), max_size=5)

# An episode as it is written: turns of closed pieces, the last of which may be left open.

THOUGHT = "<think>\na thought of some length\n</think>"
PIECES = [
    *(THOUGHT, "<think>short</think>", "<think></think>"),
    *("<answer>B</answer>", "<answer>A</answer>", "<answer>a thought</answer>"),
    *(CALL, CODE, BROKEN, "<tool_response>B</tool_response>", "so ", "\n"),
]
OPEN = "<think>\nnever closed"
NOTHING = [
    *(f"<{name}></{name}>" for name in TAG_NAMES),
    *("<answer> </answer>", "<answer><answer></answer>", BROKEN, UNKNOWN, CALL, CODE),
    *("<tool_response>B</tool_response>", f"<tool_response>{CALL}{CODE}</tool_response>"),
    *("so ", "\n", "B", "crop_video(start=1, end=2)", '{"name": "crop_video"}'),
]
"""Empty tags, calls that do not run, forged responses and plain text."""
AGAIN = "again"
"""Stands for a repetition of the piece before."""
TURN = several(PIECES, 1, 5)
EPISODE = st.one_of(
    st.tuples(TURN),
    st.tuples(TURN, TURN),
    st.tuples(TURN, TURN, TURN),
    st.sampled_from(
        [
            ([THOUGHT, PIECES[3]],),
            ([THOUGHT, CALL], [THOUGHT, PIECES[3]]),
            ([THOUGHT], [THOUGHT, PIECES[3]]),
            ([THOUGHT, CALL, CALL], [THOUGHT, CODE], [THOUGHT, PIECES[4]]),
        ]
    ),
)
RAN, FAILED = CropStatus.ok, tuple(status for status in CropStatus if status != "ok")


def crop(call, status):
    if call.error is not None:
        return CropResult((math.nan, math.nan), None, CropStatus(call.error))
    return CropResult((1.0, 2.0), (1.0, 2.0) if status == RAN else None, status)


def transcript(texts, task=TASKS[0], forced=False, statuses=()):
    """An episode whose calls have the statuses, in order, and ran after those.

    As in the environment: a call that could not be read has its error as its status, the forced
    turn refuses calls and its answer counts, any other answer counts only without calls.
    """
    known, turns = iter(statuses), []
    for i, text in enumerate(texts):
        parsed = parse(text)
        refused = forced and i == len(texts) - 1
        said = [CropStatus.refused if refused else next(known, RAN) for _ in parsed.calls]
        turns.append(Turn(parsed, tuple(map(crop, parsed.calls, said))))
    last = turns[-1]
    return Transcript(task, tuple(turns), last.parsed.answer if forced or not last.crops else "")


# Never raises; bounds


@given(st.one_of(SOUP, st.text()), st.integers(1, 4))
def test_parse_never_raises_and_everything_has_its_place(text, max_crops):
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
    action = action_from_completion(text, max_crops)
    assert action["crop_mask"].sum() == min(len(parsed.calls), max_crops)
    assert action["answer"] == parsed.answer == parsed.answer.strip()


@given(
    st.one_of(st.tuples(SOUP), st.tuples(SOUP, SOUP)),
    st.sampled_from(TASKS),
    st.sampled_from(sorted(REWARDS)),
    st.booleans(),
    st.sampled_from(tuple(CropStatus)),
)
def test_scores_never_raise_and_stay_in_their_bounds(texts, task, name, forced, status):
    rollout, preset = transcript(texts, task, forced, [status]), REWARDS[name]
    scored, terms = score(rollout, preset), every_term(rollout, preset)
    form, gain = (preset.terms[name][1] for name in ("format_anchor", "tool_gain"))
    assert 0.0 <= terms["answer"] <= 1.0
    assert (-0.15 if form.form == "anchored" else 0.0) - 1e-12 <= terms["format_anchor"] <= 1.0
    highest = {
        "graduated": 0.8, "necessity": 0.8, "accumulative": 0.1 * rollout.executed, "evidence": 1.0,
    }  # fmt: skip
    assert 0.0 <= terms["tool_gain"] <= highest[gain.gain] * bool(rollout.executed) + 1e-12
    weighed = sum(weight * terms[term] for term, (weight, _) in preset.terms.items())
    assert math.isclose(scored["total"], weighed, abs_tol=1e-12)
    if compliance(rollout):
        assert rollout.answer and not rollout.turns[-1].crops


# What says nothing and did nothing is worth nothing


@given(
    EPISODE,
    st.sampled_from([*NOTHING, AGAIN]),
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from(FAILED)),
    st.sampled_from(sorted(REWARDS)),
    st.tuples(st.booleans(), st.booleans()),
)
def test_no_addition_of_nothing_raises_the_reward(turns, added, place, name, ends):
    (where, position, status), (forced, unclosed) = place, ends
    tail = OPEN if unclosed else ""
    if where < len(turns):
        turn = turns[where]
        position %= len(turn) + 1
        repeated = turn[position - 1] if position else ""
        more = [*turn[:position], repeated if added == AGAIN else added, *turn[position:]]
        longer = [*turns[:where], more, *turns[where + 1 :]]
    else:  # a turn of its own, before the last
        where, position, repeated = len(turns) - 1, 1, THOUGHT
        more = [THOUGHT, repeated if added == AGAIN else added]
        longer = [*turns[:where], more, *turns[where:]]
    earlier = ["".join(turn) for turn in longer[:where]] + ["".join(more[:position])]
    statuses = [RAN] * sum(len(parse(text).calls) for text in earlier) + [status]
    if not parse(more[position]).calls:
        statuses = []
    preset = REWARDS[name]
    plain = transcript([*map("".join, turns[:-1]), "".join(turns[-1]) + tail], forced=forced)
    attack = transcript(
        [*map("".join, longer[:-1]), "".join(longer[-1]) + tail], forced=forced, statuses=statuses
    )
    assert attack.executed <= plain.executed
    assert score(attack, preset)["total"] <= score(plain, preset)["total"] + 1e-12


@given(SOUP, JUNK, st.sampled_from(sorted(REWARDS)))
def test_stray_tags_never_raise_the_form_of_a_full_turn(text, junk, name):
    format_anchor = REWARDS[name].terms["format_anchor"][1]
    full = f"<think>\n{text.replace('<', '')} and some more\n</think><answer>B</answer>"
    clean = format_anchor(transcript([full]))
    assert format_anchor(transcript([full + junk])) <= clean + 1e-12
    assert format_anchor(transcript([junk + full])) <= clean + 1e-12
    assert format_anchor(transcript([junk, full])) <= clean + 1e-12


# Parse and render


def meaning(text):
    """What a completion says: thought, windows, answer (None without one)."""
    parsed = parse(text)
    thought = next((block.content for block in parsed.thoughts), "")
    windows = [call.window for call in parsed.calls if call.window is not None]
    answer = " ".join(TAG_PATTERN.sub(" ", parsed.answer).split())
    return thought, windows, answer or None


@given(SOUP)
def test_parse_render_parse_is_stable(text):
    said = meaning(text)
    rendered = render_completion(*said)
    assert repr(meaning(rendered)) == repr(said)
    assert render_completion(*meaning(rendered)) == rendered
    assert parse(rendered).balanced


@given(WORDS, st.lists(st.tuples(SECONDS, SECONDS), max_size=4), WORDS)
def test_the_writer_and_the_parser_agree(thought, windows, answer):
    parsed = parse(render_completion(thought, windows, answer))
    assert [call.window for call in parsed.calls] == windows
    assert parsed.answer == answer.strip() or not parsed.answers[0].content
    assert parsed.balanced


# Reading answers and spans


@given(st.text(max_size=40), st.lists(st.text(max_size=8), max_size=10))
def test_reading_an_answer_never_raises(text, options):
    assert named_options(text, options) <= set("ABCDEFGHIJ")
    span = parse_span(text)
    assert 0.0 <= temporal_iou(span, (1.0, 2.0)) <= 1.0


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_token_f1_is_symmetric_and_bounded(predicted, gold):
    value = token_f1(predicted, gold)
    assert value == token_f1(gold, predicted)
    assert 0.0 <= value <= 1.0
    assert (value == 1.0) == (sorted(predicted) == sorted(gold) and bool(gold))


@given(SPANS, SPANS, SPANS)
def test_recall_and_iou_of_evidence_are_fractions(gold, windows, more):
    recall, iou = evidence_recall(gold, windows), evidence_iou(gold, windows)
    assert math.isnan(recall) == math.isnan(iou)
    if math.isnan(recall):
        return
    assert 0.0 <= iou <= recall + 1e-9 <= 1.0 + 2e-9
    assert evidence_recall(gold, windows + more) >= recall - 1e-9
    assert evidence_recall(gold, gold) == evidence_iou(gold, gold) == 1.0
