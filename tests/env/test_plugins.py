"""Other people's code in the environment: a file in a temporary folder, and none of ours touched.

`mine.py` holds one of each: a reward term, a preset, a scorer, a task set, a frame budget and a
prompt style. An episode's reward, its K and what an agent is told show that they were used.
"""

import re
from pathlib import Path

import gymnasium as gym
import pytest
import yaml
from gymnasium.envs.registration import EnvSpec
from support.builders import SIZE, act

from agents.chat.agent import OpenAIAgent
from agents.config import AgentConfig
from paravt_env.protocol.parts import overview_parts, system_text
from paravt_env.protocol.styles import PROMPTS, prompt_style
from paravt_env.rewards import Answer, make_preset
from paravt_env.spaces import batch_actions
from paravt_env.vector import LongVideoVectorEnv
from paravt_env.wrappers import VectorRecordRewardTerms
from train.config.recipe import load
from train.config.run import TrainConfig

MINE = '''
from dataclasses import dataclass, replace

from paravt_env.protocol.styles import PARAVT
from paravt_env.rewards import Answer, RewardPreset
from paravt_env.task import Task


@dataclass(frozen=True)
class Calm:
    """Charges a right answer for more than `most` crops."""

    most: int = 2
    scale: float = 1.0

    def __call__(self, transcript):
        return -self.scale * transcript.correct * (transcript.executed > self.most)


@dataclass(frozen=True)
class Needy:
    least: int

    def __call__(self, transcript):
        return transcript.executed >= self.least


CALM = RewardPreset({"answer": (2.0, Answer()), "calm": (0.5, Calm(most=0))})


def half(task, answer):
    return 0.5 if answer == task.answer else 0.0


class Films:
    name = "films"

    def __init__(self, split, video, count=1):
        self.tasks = [
            Task(f"{split}-{n}", video, "Who?", "open", answer="Ada") for n in range(count)
        ]

    @property
    def ids(self):
        return tuple(task.id for task in self.tasks)

    def __len__(self):
        return len(self.tasks)

    def __getitem__(self, index):
        return self.tasks[index]

    def by_id(self, task_id):
        return self.tasks[self.ids.index(task_id)]


class Odd:
    def __init__(self, low):
        self.low, self.maximum = low, 9

    def sample(self, np_random):
        return self.low + 2 * int(np_random.integers(2))


TERSE = replace(PARAVT, system="Look, then answer. {max_crops} crops.", question="\\n? {question}")
'''


@pytest.fixture
def mine(tmp_path):
    """A door to a name of `mine.py`."""
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return lambda name: f"{path}:{name}"


def plugged(mine, clip):
    """Settings of an environment made of nothing but `mine.py`, as plain data."""
    calm = {"use": mine("Calm"), "weight": 0.5, "options": {"most": 1, "scale": 4.0}}
    return {
        "tasks": mine("Films"),
        "split": "val",
        "tasks_kwargs": {"video": clip, "count": 2},
        "frame_budget": {"kind": mine("Odd"), "low": 5},
        "scorer": mine("half"),
        "reward": {"terms": {"calm": calm}, "weights": {"format_anchor": 0.0}},
        "frame_size": list(SIZE),
        "max_crops": 3,
        "frames_per_crop": 4,
    }


def test_a_term_a_scorer_a_task_set_and_a_budget_of_ones_own_play_an_episode(mine, clip):
    env = gym.make("paravt_env:ParaVT-LongVideo-v0", **plugged(mine, clip))
    observation, info = env.reset(seed=0)
    assert info["task_id"] in ("val-0", "val-1") and observation["question"] == "Who?"
    assert info["frame_budget"] == info["frames_seen"] in (5, 7)
    env.step(act((1, 2), (3, 4)))
    *_, reward, _, _, info = env.step(act(answer="Ada"))
    # answer 0.5; an executed crop and an answer of 0.5: 0.8; calm: 4 * 0.5 for two crops
    assert info["reward_terms"] == {"answer": 0.5, "tool_gain": 0.8, "calm": -2.0, "total": reward}
    assert reward == pytest.approx(0.5 + 0.8 - 0.5 * 2.0)
    assert {env.reset(seed=seed)[1]["frame_budget"] for seed in range(20)} == {5, 7}
    env.close()


def test_an_environment_of_ones_own_code_is_plain_data(mine, clip):
    env = gym.make("paravt_env:ParaVT-LongVideo-v0", **plugged(mine, clip))
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    simulations = env.unwrapped.simulation, again.unwrapped.simulation
    assert simulations[0].preset == simulations[1].preset
    assert again.unwrapped.simulation.budget.low == 5
    env.close()
    again.close()


def recipe(mine, clip, folder):
    """The same as a YAML file."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"env": plugged(mine, clip), "agent": {"checkpoint": "x"}}))
    return path


def test_a_recipe_and_the_command_line_open_the_same_doors(mine, clip, tmp_path):
    config = load(TrainConfig, recipe(mine, clip, tmp_path))
    overrides = [
        f"--env.reward={{terms: {{calm: '{mine('Calm')}'}}}}",
        "--env.scorer",
        "null",
        "--env.frame_budget",
        f"{{kind: '{mine('Odd')}', low: 1}}",
        f"--env.tasks={mine('Films')}",
        f"--agent.prompt_style={mine('TERSE')}",
    ]
    changed = load(TrainConfig, recipe(mine, clip, tmp_path), overrides)
    assert prompt_style(changed.agent.prompt_style).question == "\n? {question}"
    totals = []
    for env in (config.env.make(1), changed.env.make(1)):
        env.reset(seed=0)
        env.step(batched((1, 2), (3, 4), (5, 6)))
        infos = env.step(batched(answer="Ada"))[-1]
        totals.append({k: v[0] for k, v in infos["reward_terms"].items() if k[0] != "_"})
        env.close()
    assert totals[0] == {"answer": 0.5, "tool_gain": 0.8, "calm": -2.0, "total": pytest.approx(0.3)}
    assert totals[1] == {
        "answer": 1.0,
        "format_anchor": 0.0,
        "tool_gain": 0.8,
        "calm": -1.0,
        "total": pytest.approx(0.8),
    }


def batched(*windows, answer=""):
    return batch_actions([act(*windows, answer=answer)], 3)


def test_a_preset_of_ones_own_takes_changes_as_a_built_in_one_does(mine):
    assert make_preset(mine("CALM")).weights == {"answer": 2.0, "calm": 0.5}
    changed = make_preset(
        {
            "preset": mine("CALM"),
            "open_metric": "exact",
            "weights": {"calm": 1.0, "tool_gain": 0.1},
            "terms": {"calm": {"options": {"scale": 3.0}}},
        }
    )
    assert changed.weights == {"answer": 2.0, "calm": 1.0, "tool_gain": 0.1}
    assert (changed.terms["calm"][1].most, changed.terms["calm"][1].scale) == (0, 3.0)
    assert changed.terms["answer"][1] == Answer(open_metric="exact")


def test_a_term_may_need_an_option_and_may_stand_in_for_a_built_in_one(mine):
    needy = {"use": mine("Needy"), "options": {"least": 2}}
    preset = make_preset({"preset": "pyvision", "terms": {"format_anchor": needy}})
    assert preset.weights == {"answer": 1.0, "format_anchor": 1.0, "tool_gain": 1.0}
    assert preset.terms["format_anchor"][1].least == 2
    with pytest.raises(ValueError, match="reward option 'rescale' is not one of"):
        make_preset({"terms": {"format_anchor": needy}, "rescale": True})


def test_terms_of_ones_own_stand_in_the_statistics_of_rows(mine, clip):
    env = VectorRecordRewardTerms(LongVideoVectorEnv(1, **plugged(mine, clip)))
    env.reset(seed=0)
    statistics = env.step(batched(answer="Ada"))[-1]["episode"]
    used = {"answer", "tool_gain", "calm"}
    assert used == set(env.term_queues) == {name for name in statistics if name not in "rlt"}
    assert (statistics["answer"][0], statistics["calm"][0]) == (0.5, 0.0)
    env.close()


def test_an_agent_is_told_what_a_prompt_style_of_ones_own_says(mine, make_env):
    config = AgentConfig(prompt_style=mine("TERSE"))
    agent = OpenAIAgent("http://127.0.0.1:9/v1", "m", config=config)
    agent.close()
    assert system_text(agent.style, 3, 45.0) == "Look, then answer. 3 crops."
    observation, _ = make_env().reset(seed=0, options={"task_id": "name"})
    assert overview_parts(agent.style, observation)[-1].endswith("\n? Who?")
    assert prompt_style("paravt") is PROMPTS["paravt"]


def test_a_scorer_by_door_is_one_source_of_the_answers_value(mine):
    judge = {"url": "http://x", "model": "m"}
    with pytest.raises(ValueError, match="not both"):
        make_preset({"judge": judge}, scorer=mine("half"))
    with pytest.raises(ValueError, match="not both"):
        make_preset({"scorer": mine("half")}, scorer=mine("half"))
    answer = {"options": {"scorer": mine("half")}}
    assert make_preset({"terms": {"answer": answer}}).scorer.__name__ == "half"


def test_the_plug_ins_of_the_pages_play(tmp_path, monkeypatch, clip):
    monkeypatch.chdir(tmp_path)
    pages = Path(__file__).parents[2] / "docs"
    for page, name in (("rewards", "mine"), ("environment", "budgets"), ("data", "films")):
        text = (pages / f"{page}.md").read_text(encoding="utf-8")
        code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        Path(f"{name}.py").write_text("\n".join(code[-1:] if page == "data" else code))
    Path("films").mkdir()
    Path("films/lake.mp4").symlink_to(clip)
    skewed = {"kind": "budgets.py:Skewed", "high": 6}
    settings = {"tasks": "films.py:Films", "frame_budget": skewed, "max_crops": 3}
    env = LongVideoVectorEnv(1, **settings, scorer="mine.py:f", reward="mine.py:REWARD")
    infos = env.reset(seed=0)[1]
    assert infos["task_id"][0] == "lake-1" and 1 <= infos["frame_budget"][0] <= 6
    env.step(batched((1, 2), (3, 4), (5, 6)))
    _, rewards, _, _, infos = env.step(batched(answer="ADA"))
    assert infos["reward_terms"]["answer"][0] == 1.0 and rewards[0] == pytest.approx(1.0 - 0.5)
    env.close()
