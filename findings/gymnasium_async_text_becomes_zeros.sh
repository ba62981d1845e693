#!/usr/bin/env bash
# Gymnasium's AsyncVectorEnv turns text inside a Dict observation into a row of the character "0".
#
# Versions: gymnasium 1.4.0, numpy 2.3.5. Seen: 2026-12-01.
# Matters to: environments whose observation holds a question or an instruction. With shared memory,
# which is the default, the text is neither handed over nor refused: every row reads a full-length
# string of the alphabet's first character, which the observation space even contains. An agent
# trains without its question. `shared_memory=False` hands it over.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet gymnasium==1.4.0 numpy==2.3.5

cat > asked.py <<'PYTHON'
import sys

import gymnasium as gym
import numpy as np


class Asked(gym.Env):
    observation_space = gym.spaces.Dict(
        question=gym.spaces.Text(12), pixels=gym.spaces.Box(0, 255, (2,), np.uint8)
    )
    action_space = gym.spaces.Discrete(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"question": "who", "pixels": np.full(2, 7, np.uint8)}, {}

    def step(self, action):
        return self.reset()[0], 0.0, True, False, {}


def seen(**options):
    rows = gym.vector.AsyncVectorEnv([Asked, Asked], **options)
    observation = rows.reset(seed=0)[0]
    contained = observation in rows.observation_space
    rows.close()
    return observation["question"], observation["pixels"].tolist(), contained


if __name__ == "__main__":
    shared, piped = seen(), seen(shared_memory=False)
    print("guess: ('who', 'who') both times, or an error that shared memory cannot hold text")
    print("seen, default:            ", shared)
    print("seen, shared_memory=False:", piped)
    pixels = [[7, 7], [7, 7]]
    if shared != (("0" * 12,) * 2, pixels, True) or piped != (("who",) * 2, pixels, True):
        sys.exit("changed")
PYTHON
venv/bin/python asked.py
