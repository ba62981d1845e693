"""PARA-GRPO, the reinforcement learning of parallel tool calls, on one page (arXiv 2605.20342).

Once a step: collect groups of rollouts that share their start (question, video, frame budget K),
turn their rewards into advantages, and update the policy on the packed groups. What sets PARA-GRPO
apart from GRPO is two mechanisms and a reward, each a setting: exploration anchoring
(`forced_prefix` of the agent and `credit` below), frame-budget gating (`frame_budget` of the
environment) and the tool term of the reward preset. Vanilla GRPO is this file with an empty prefix,
trajectory credit and one fixed budget; `docs/methods.md` lists the other methods that are settings.

Playing and learning are injected, so that this file is the algorithm and nothing else. Train with
`python agents/paragrpo.py --config train/recipes/demo.yaml`, or `paravt train`.
"""

from __future__ import annotations

if __name__ == "__main__":
    import sys

    from train.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
