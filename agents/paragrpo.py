"""PARA-GRPO, the reinforcement learning of parallel tool calls (arXiv 2605.20342): the door.

Once a step, groups of rollouts that share their start (question, video, frame budget K) are
collected, their rewards become advantages, and the policy is updated on the packed groups. What
sets PARA-GRPO apart from GRPO is two mechanisms and a reward, each a setting: exploration anchoring
(`agent.forced_prefix` and `algorithm.credit`), frame-budget gating (`env.frame_budget`) and the
tool term of the reward preset (`env.reward`). Vanilla GRPO is the same code with an empty prefix,
trajectory credit and one fixed budget; `docs/methods.md` lists the other methods that are settings.

| stage | file |
|---|---|
| the step, from top to bottom | `train/loop/trainer.py` |
| collect: the tasks and seeds of the groups | `train/rollout/starts.py` |
| collect: a turn of all rows, then the next | `train/rollout/play.py` |
| collect: which groups are worth an update | `train/rollout/selection.py` |
| credit: rewards to the advantage of every token | `agents/algorithm/credit.py` |
| credit: the estimators | `agents/algorithm/advantages.py` |
| update: a group as one sequence, its prompt once | `train/packing/pack.py` |
| update: the loss of every token | `agents/algorithm/losses.py` |
| update: micro-batches to an optimizer step | `train/learner/learner.py` |

`examples/grpo_in_one_file.py` is the same in one file. Train with `python agents/paragrpo.py demo`,
or `paravt train`.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys

    from train.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
