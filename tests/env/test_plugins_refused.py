"""Mistakes in other people's code for the environment: each is said, and says where it is."""

import numpy as np
import pytest
from support.builders import act

from paravt_env.budget import draw_frames, make_budget
from paravt_env.protocol.styles import PROMPTS, prompt_style
from paravt_env.rewards import TermError, make_preset
from paravt_env.task import TaskError
from paravt_env.tasksets import load_tasks
from train.common.errors import ConfigError
from train.config.recipe import load
from train.config.run import TrainConfig

BAD = """
from dataclasses import dataclass, replace

from paravt_env.protocol.styles import PARAVT
from paravt_env.rewards import ScorerError


@dataclass(frozen=True)
class Raises:
    def __call__(self, transcript):
        return 1 / 0


@dataclass(frozen=True)
class Gives:
    value: object

    def __call__(self, transcript):
        return self.value


@dataclass(frozen=True)
class Unscored:
    def __call__(self, transcript):
        raise ScorerError("the model of this term is asleep")


@dataclass(frozen=True)
class Picky:
    most: int = 1

    def __post_init__(self):
        if self.most < 1:
            raise ValueError("most must be at least 1")

    def __call__(self, transcript):
        return 0.0


@dataclass(frozen=True)
class NoCall:
    most: int = 1


def function(transcript):
    return 1.0


def many(split):
    return ["task"]


def wrong(task, answer):
    return "right"


def broken(task, answer):
    return {}["verdict"]


class NoSample:
    maximum = 3


class Loose:
    def __init__(self, frames, maximum=9):
        self.frames, self.maximum = frames, maximum

    def sample(self, np_random):
        return self.frames


EXTRA = replace(PARAVT, system="{tols}")
OPEN = replace(PARAVT, frame="<{time")
PLACE = replace(PARAVT, question="{}")
SILENT = replace(PARAVT, evidence="{index}")
"""


@pytest.fixture
def bad(tmp_path):
    """A door to a name of a file of mistakes; a name that is a door already stays."""
    path = tmp_path / "bad.py"
    path.write_text(BAD)
    return lambda name: name if ":" in name else f"{path}:{name}"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"use": "nowhere.py:Calm"}, "reward term 'nowhere.py:Calm'.*cannot be imported"),
        ({"use": "Lost"}, "there is no 'Lost'"),
        ({"use": "function"}, "'calm' must be the class of a dataclass"),
        ({"use": "EXTRA"}, "'calm' must be a dataclass whose call"),
        ({"use": "NoCall"}, "'calm' must be a dataclass whose call"),
        ({"use": "Gives"}, "reward term 'calm': .*missing 1 required.*'value'"),
        ({"use": "Picky", "options": {"moost": 2}}, "did you mean 'most'"),
        ({"use": "Picky", "options": {"most": 0}}, "'calm': most must be at least 1"),
        ({"use": "Picky", "weight": "much"}, "the weight of calm must be a number"),
    ],
)
def test_a_bad_term_is_refused_before_anything_is_played(bad, entry, message):
    with pytest.raises(ValueError, match=message):
        make_preset({"terms": {"calm": {**entry, "use": bad(entry["use"])}}})


def ended(make_env, **settings):
    env = make_env(**settings)
    env.reset(seed=0, options={"task_id": "colour"})
    return env.step(act(answer="B"))


@pytest.mark.parametrize(
    ("use", "options", "message"),
    [
        ("Raises", {}, "raised ZeroDivisionError: division by zero"),
        ("Gives", {"value": float("nan")}, "must give a finite number, not nan"),
        ("Gives", {"value": float("inf")}, "must give a finite number, not inf"),
        ("Gives", {"value": "1.0"}, "must give a finite number, not '1.0'"),
        ("Gives", {"value": None}, "must give a finite number, not None"),
        ("Gives", {"value": [1.0, 2.0]}, "must give a finite number"),
        ("Gives", {"value": 10**400}, "must give a finite number"),
    ],
)
def test_a_term_that_fails_names_itself_and_the_task(bad, make_env, use, options, message):
    terms = {"calm": {"use": bad(use), "options": options}}
    with pytest.raises(TermError, match=f"task 'colour': reward term 'calm' {message}"):
        ended(make_env, reward={"terms": terms})


@pytest.mark.parametrize("value", [True, np.float32(1.0), np.bool_(True), np.array(1.0), 1])
def test_any_number_is_a_value(bad, make_env, value):
    terms = {"calm": {"use": bad("Gives"), "options": {"value": value}}}
    given = ended(make_env, reward={"terms": terms})[-1]["reward_terms"]["calm"]
    assert given == 1.0 and type(given) is float


def test_a_term_that_cannot_score_masks_the_episode_out(bad, make_env):
    reward = {"terms": {"calm": bad("Unscored")}, "weights": {"tool_gain": 0}}
    _, paid, terminated, _, info = ended(make_env, reward=reward)
    assert (paid, terminated, info["stop_reason"]) == (0.0, True, "judge_error")
    assert info["error"] == "the model of this term is asleep"
    assert set(info["reward_terms"]) == {"answer", "format_anchor", "calm", "total"}
    assert np.isnan(list(info["reward_terms"].values())).all()


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ("nowhere.py:scorer", "answer scorer 'nowhere.py:scorer'.*cannot be imported"),
        ("EXTRA", "scorer must be callable"),
        ("wrong", "'colour': .*'answer'.*must return a number in .0, 1., not 'right'"),
    ],
)
def test_a_bad_scorer_is_said(bad, make_env, scorer, message):
    with pytest.raises(ValueError, match=message):
        ended(make_env, scorer=bad(scorer))


def test_a_bad_preset_is_said(bad):
    with pytest.raises(ValueError, match="must lead to a RewardPreset, not PromptStyle"):
        make_preset(bad("EXTRA"))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nowhere.py:Films", {}, "task set 'nowhere.py:Films'.*cannot be imported"),
        ("Films", {}, "there is no 'Films'"),
        ("EXTRA", {}, "must be a class or a function"),
        ("many", {}, "made a list, not a TaskSet"),
        ("many", {"root": "x"}, "unexpected keyword argument 'root'; its arguments are split"),
    ],
)
def test_a_bad_task_set_is_said(bad, name, arguments, message):
    with pytest.raises(TaskError, match=message):
        load_tasks(bad(name), split="val", **arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nowhere.py:Odd", {}, "cannot be imported"),
        ("EXTRA", {}, "must be a class, not"),
        ("NoSample", {}, "must have sample"),
        ("Loose", {}, "missing 1 required"),
        ("Loose", {"framse": 2}, "did you mean 'frames'"),
        ("Loose", {"frames": 2, "maximum": 2.5}, "maximum of .* whole number of frames"),
        ("Loose", {"frames": 2, "maximum": -1}, "maximum of .* at least 0"),
    ],
)
def test_a_bad_budget_is_said(bad, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_budget({"kind": bad(name), **arguments})


@pytest.mark.parametrize(
    ("frames", "message"),
    [(2.5, "whole number of frames, not 2.5"), (-1, "at least 0"), (10, "returned 10, above")],
)
def test_a_budget_that_draws_no_number_of_frames_is_said(bad, make_env, frames, message):
    env = make_env(frame_budget={"kind": bad("Loose"), "frames": frames})
    with pytest.raises(ValueError, match=f"frame budget: .*{message}"):
        env.reset(seed=0)
    within = make_budget({"kind": bad("Loose"), "frames": 9})
    assert draw_frames(within, np.random.default_rng(0)) == 9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:TERSE", "cannot be imported"),
        ("many", "must lead to a PromptStyle"),
        ("EXTRA", r"its system is filled with tools, .*not with \['tols'\]"),
        ("PLACE", r"its question is filled with question, not with \[''\]"),
        ("OPEN", "its frame: "),
        ("SILENT", "its evidence must hold {evidence} once"),
    ],
)
def test_a_bad_prompt_style_is_said(bad, name, message):
    with pytest.raises(ValueError, match=message):
        prompt_style(bad(name))
    with pytest.raises(ValueError, match="did you mean 'paravt'"):
        prompt_style("parvat")


def test_every_style_of_ours_is_filled_with_what_it_asks_for():
    assert [prompt_style(name) for name in PROMPTS] == list(PROMPTS.values())


def test_a_door_that_leads_nowhere_is_an_error_of_the_recipe(bad):
    with pytest.raises(ConfigError, match="there is no 'Even'"):
        load(TrainConfig, None, [f"--env.frame_budget={{kind: '{bad('Even')}'}}"])


def test_a_scorer_that_raises_is_that_rows_error(bad, make_env):
    _, paid, terminated, _, info = ended(make_env, scorer=bad("broken"))
    assert (paid, terminated, info["stop_reason"]) == (0.0, True, "judge_error")
    assert info["error"] == "task 'colour': the scorer raised KeyError: 'verdict'"
