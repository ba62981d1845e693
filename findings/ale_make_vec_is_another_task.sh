#!/usr/bin/env bash
# make_vec of an ALE id is another task than make of it: rewards clipped to 1, grey, small, stacked.
#
# Versions: ale-py 0.12.1, gymnasium 1.4.0, numpy 2.3.5. Seen: 2026-12-01.
# Matters to: whoever compares scores, or records Atari for questions about what is seen. The id has
# a vector entry point of its own, with the classical preprocessing switched on inside it, so one id
# and no further argument give two tasks. `vectorization_mode="sync"` gives the same task as `make`.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet ale-py==0.12.1 gymnasium==1.4.0 numpy==2.3.5

venv/bin/python - 2>log <<'PYTHON' || { cat log >&2; exit 1; }
import sys

import ale_py
import gymnasium as gym
import numpy as np

gym.register_envs(ale_py)
ID = "ALE/MsPacman-v5"


def seen(env, rows):
    """Shape of a row's observation, and the rewards of 400 random actions."""
    shape = env.reset(seed=3)[0].shape
    actions = np.random.default_rng(0).integers(9, size=400)
    rewards = {float(np.max(env.step(np.array([a]) if rows else a)[1])) for a in actions}
    env.close()
    return shape[1:] if rows else shape, sorted(rewards)


single = seen(gym.make(ID), False)
synced = seen(gym.make_vec(ID, num_envs=1, vectorization_mode="sync"), True)
native = seen(gym.make_vec(ID, num_envs=1), True)
print("guess: one id is one task, however many rows")
print("seen, make:          ", *single)
print("seen, make_vec sync: ", *synced)
print("seen, make_vec:      ", *native)
colour = ((210, 160, 3), [0.0, 10.0])
if single != colour or synced != colour or native != ((4, 84, 84), [0.0, 1.0]):
    sys.exit("changed")
PYTHON
