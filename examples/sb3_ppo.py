"""PPO of Stable-Baselines3 learns where to look: with crops and, the same network, without.

Both policies learn on the array wrappers and then play through the evaluation that LMMs play
through (`train.evaluation.measure`). On one core of a CPU each learns in a few minutes. docs/sb3.md
explains it; run it with `python examples/sb3_ppo.py`, or with any setting of the recipe, such as
`python examples/sb3_ppo.py --episodes 5000 --env.tasks_kwargs.videos=20 --evaluation.tasks=40`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from agents.sb3.agent import SB3Agent
from agents.sb3.training import SB3Config, learn
from paravt_env.settings import EnvSettings
from paravt_env.wrappers import ArrayCodec
from train.config.recipe import load
from train.config.run import TrainConfig
from train.evaluation.agents import evaluated_agent
from train.evaluation.bootstrap import Interval
from train.evaluation.measure import measure
from train.evaluation.scores import EvalReport, paired_difference

RECIPE = Path(__file__).with_name("sb3_count.yaml")
ARMS = {"crops": "tools", "no_crops": "direct"}  # folder of the policy -> evaluation mode
EPISODES = 30_000  # of each arm; with crops one takes two turns, without one


def vocabulary(settings: EnvSettings, split: str) -> ArrayCodec:
    """Of the training tasks and of those that are evaluated."""
    tasksets = [replace(settings, split=name).load_tasks() for name in (settings.split, split)]
    return ArrayCodec.of(*([tasks[i] for i in range(len(tasks))] for tasks in tasksets))


def train_arm(config: TrainConfig, arm: str, episodes: int) -> None:
    """Train one arm and save its policy in the run's folder."""
    settings = config.env if arm == "crops" else replace(config.env, max_turns=0)
    began = time.monotonic()
    codec = vocabulary(settings, config.evaluation.split)  # makes the videos that are missing
    print(f"{arm}: {time.monotonic() - began:.0f} s for the videos, then training", flush=True)
    began, worked = time.monotonic(), time.process_time()

    def progress(turns: int, reward: float) -> None:
        if turns % 5_120 == 0:  # every tenth update
            seconds = time.process_time() - worked
            print(f"  {seconds:4.0f} s  {turns:6d} turns  mean reward {reward:.3f}", flush=True)

    steps = episodes * (settings.max_turns + 1)
    model = learn(settings, codec, SB3Config(steps=steps, seed=config.run.seed), progress)
    weights = sum(parameter.numel() for parameter in model.policy.parameters())
    seconds, wall = time.process_time() - worked, time.monotonic() - began
    cost = f"{seconds:.0f} s of CPU ({wall:.0f} s in all)"
    print(f"  {weights} weights, learned in {cost}", flush=True)
    evaluated = replace(settings, split=config.evaluation.split)
    env = evaluated.make(1)  # type: ignore[attr-defined]
    SB3Agent(model.policy, codec, env).save(config.run.path / arm)
    env.close()


def evaluate_arm(config: TrainConfig, arm: str) -> EvalReport:
    """What `paravt eval` does with that policy."""
    evaluation = replace(config.evaluation, mode=ARMS[arm], resume=False)
    agent = replace(config.agent, checkpoint=str(config.run.path / arm))
    one = replace(config, evaluation=evaluation, agent=agent)
    report = measure(one, evaluated_agent(one), config.run.path / arm / "after.json")
    print(f"  {len(report.rows)} test questions played in {report.seconds:.0f} s", flush=True)
    return report


def main() -> None:
    """Train both arms, evaluate both, print the difference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, default=EPISODES, help="that each arm plays")
    arguments, overrides = parser.parse_known_args()
    config = load(TrainConfig, RECIPE, overrides)
    torch.set_num_threads(config.run.threads)
    reports = {}
    for arm in ARMS:
        train_arm(config, arm, arguments.episodes)
        reports[arm] = evaluate_arm(config, arm)
    for arm, report in reports.items():
        part = report.summary()["overall"]
        print(
            f"{arm}: accuracy {_text(report.accuracy())} on {len(report.rows)} test questions, "
            f"{part['executed']:.2f} crops, evidence recall {part['evidence_recall']:.2f}"
        )
    gain = paired_difference(reports["no_crops"], reports["crops"])
    print(f"crops - no_crops: {_text(gain)}, 95 % interval, bootstrap over questions")


def _text(item: Interval) -> str:
    return f"{item.mean:.3f} [{item.low:.3f}, {item.high:.3f}]"


if __name__ == "__main__":
    main()
