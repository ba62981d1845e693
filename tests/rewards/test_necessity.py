"""The necessity gain: a call pays for what it makes knowable, and a blind one for its luck."""

from statistics import fmean

import numpy as np
import pytest

from paravt_env.crop import CropResult, CropStatus
from paravt_env.protocol import parse, render_completion
from paravt_env.rewards import PRESETS, Transcript, Turn, make_preset, score
from paravt_env.rewards.terms.evidence import unseen_evidence
from paravt_env.task import Task

SECONDS, LONGEST, CALLS = 900.0, 45.0, 5
ANSWER = parse(render_completion("I have looked at it.", answer="B"))
OVERVIEW = (100.0, 300.0, 500.0, 700.0)


def task(*evidence, answer="B"):
    options = ("red", "blue", "green", "white")
    return Task("m", "/v.mp4", "?", "mcq", options, answer, evidence=evidence)


def rollout(asked, windows, overview=OVERVIEW, ran=True):
    looked = ()
    if windows:
        status = CropStatus.ok if ran else CropStatus.too_long
        crops = tuple(CropResult(w, w if ran else None, status) for w in windows)
        looked = (Turn(parse(render_completion("I look there now.", windows)), crops),)
    return Transcript(asked, (*looked, Turn(ANSWER)), "B", overview=overview)


def gain(asked, *windows, preset="paravt_necessity", **more):
    return score(rollout(asked, windows, **more), PRESETS[preset])["tool_gain"]


@pytest.mark.parametrize(
    ("evidence", "windows", "value"),
    [
        ([(200, 210)], [(195, 235)], 0.8),  # unseen, and found
        ([(200, 210)], [(205, 245)], 0.4),  # half of it
        ([(200, 210)], [(400, 440)], 0.0),  # looked elsewhere
        ([(200, 210)], [], 0.0),
        ([(295, 305)], [(280, 320)], 0.0),  # a frame of the overview shows it
        ([(290, 300)], [(280, 320)], 0.0),  # at its very end
        ([(295, 305), (200, 210)], [(195, 235)], 0.8),  # the other half was seen
        ([(295, 305), (200, 210)], [(280, 320)], 0.0),
        ([(200, 210), (400, 430)], [(195, 235)], 0.2),  # 10 of 40 unseen seconds
        ([], [(195, 235)], 0.0),  # nobody knows where to look
    ],
)
def test_a_call_pays_where_it_changed_what_could_be_known(evidence, windows, value):
    assert gain(task(*evidence), *windows) == pytest.approx(value)


def test_a_wrong_answer_keeps_the_pay_of_the_look():
    assert gain(task((200, 210), answer="A"), (195, 235)) == pytest.approx(0.3)
    assert gain(task((200, 210)), (195, 235), ran=False) == 0.0


def test_the_share_and_the_published_term_are_what_they_say():
    whole, half = task((200, 210)), (205, 245)
    published = gain(whole, half, preset="paravt")
    assert (published, gain(whole, half)) == (0.8, 0.4)
    assert gain(task((295, 305)), (280, 320), preset="paravt") == 0.8
    assert unseen_evidence([(10, 20)], [9.9, 20.1]) == [(10, 20)]
    assert unseen_evidence([(10, 20)], [10.0]) == unseen_evidence([(10, 20)], [20.0]) == []


def test_the_rest_of_the_reward_is_the_published_one():
    both = [make_preset(name) for name in ("paravt_necessity", "paravt")]
    assert both[0].weights == both[1].weights
    assert both[0].terms["format_anchor"] == both[1].terms["format_anchor"]


def spread(rng, count):
    """Questions whose evidence lies anywhere, 12 seconds each."""
    starts = rng.uniform(0, SECONDS - 12, count)
    return [task((float(s), float(s) + 12)) for s in starts]


def searched(preset, tasks, rounds, rng):
    """The best windows for all questions alike: a policy that knows nothing of any of them."""
    best, plan = -1.0, []
    for _ in range(rounds):
        tried = list(plan)
        if not tried or rng.random() < 0.5:
            start = float(rng.uniform(0, SECONDS - LONGEST))
            tried = [*tried, (start, start + LONGEST)][-CALLS:]
        else:
            tried.pop(int(rng.integers(len(tried))))
        value = fmean(score(rollout(one, tried), preset)["total"] for one in tasks)
        if value >= best:
            best, plan = value, tried
    return best, plan


def test_no_blind_plan_earns_more_than_its_part_of_the_video():
    """Five windows are a quarter of these seconds; a look where the evidence is earns all."""
    rng = np.random.default_rng(0)
    tasks = spread(rng, 150)
    skips = fmean(score(rollout(one, []), PRESETS["paravt"])["total"] for one in tasks)

    def over_skipping(preset):
        return searched(PRESETS[preset], tasks, 120, np.random.default_rng(1))[0] - skips

    part = CALLS * LONGEST / SECONDS
    assert 0.0 < over_skipping("paravt_necessity") < 1.4 * part * 0.8
    assert over_skipping("paravt") == pytest.approx(0.8), "the published term pays for any call"
    looked = [rollout(one, [(one.evidence[0][0] - 9, one.evidence[0][1] + 9)]) for one in tasks]
    honest = fmean(score(one, PRESETS["paravt_necessity"])["total"] for one in looked) - skips
    seen = fmean(not unseen_evidence(one.evidence, OVERVIEW) for one in tasks)
    assert honest == pytest.approx(0.8 * (1 - seen))
