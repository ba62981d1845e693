#!/usr/bin/env bash
# Gymnasium's vector environments give an info the dtype of the first row's value: 0.7 after 0 is 0.
#
# Versions: gymnasium 1.4.0, numpy 2.3.5. Seen: 2026-12-01.
# Matters to: whoever logs or trains on scores, IoUs or reward terms from `infos`. A grader that
# returns `0` for a miss and a float for a hit reports nothing but zeros as soon as row 0 misses;
# counts after a True become True; the order of the rows decides. Return floats everywhere.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet gymnasium==1.4.0 numpy==2.3.5

venv/bin/python - <<'PYTHON'
import sys

import gymnasium as gym
import numpy as np


class Graded(gym.Env):
    observation_space = gym.spaces.Discrete(1)
    action_space = gym.spaces.Discrete(1)

    def __init__(self, iou, crops):
        self.graded = {"iou": iou, "terms": {"answer": iou}, "crops": crops}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, dict(self.graded)

    def step(self, action):
        return 0, 0.0, True, False, dict(self.graded)


miss, hit = lambda: Graded(0, True), lambda: Graded(0.7, 3)


def seen(first, second):
    rows = gym.vector.SyncVectorEnv([first, second])
    infos = rows.reset()[1]
    rows.close()
    columns = infos["iou"], infos["crops"], infos["terms"]["answer"]
    return [column.tolist() for column in columns]


ahead, behind = seen(hit, miss), seen(miss, hit)
print("guess: iou [0, 0.7] and crops [True, 3], or objects, in either order of the rows")
print("seen, hit first: ", ahead)
print("seen, miss first:", behind)
if ahead != [[0.7, 0.0], [3, 1], [0.7, 0.0]] or behind != [[0, 0], [True, True], [0, 0]]:
    sys.exit("changed")
PYTHON
