#!/usr/bin/env bash
# With NumPy 2, Gymnasium's RecordVideo leaves out 21 of 101 frames at 10 frames a second.
#
# Versions: gymnasium 1.4.0, moviepy 2.2.1, av 18.1.0, numpy 2.3.5 and 1.26.4. Seen: 2026-12-01.
# Matters to: whoever reviews episodes in a recording, or makes videos of rendered worlds to ask
# questions about. The file's rate looks right; frames are written twice and their successors left
# out (at 30 a second 3 of 101, at 4 none), and the last one, the end of the episode, is lost at 10
# and 30 with NumPy 1 too. moviepy takes a float32 epsilon from the start of each picture; under
# NumPy 2's promotion the start itself becomes float32, and some are a rounding later than the
# float64 time they are looked up by. Write frames with an encoder (PyAV) to keep all of them.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet gymnasium==1.4.0 moviepy==2.2.1 av==18.1.0 numpy==2.3.5

cat > record.py <<'PYTHON'
import sys
from pathlib import Path

import av
import gymnasium as gym
import numpy as np

STEPS = 100


class Counter(gym.Env):
    """Shows the number of the step, in binary, as white squares."""

    observation_space = gym.spaces.Discrete(1)
    action_space = gym.spaces.Discrete(1)
    render_mode = "rgb_array"

    def __init__(self, fps):
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.turn = 0
        return 0, {}

    def step(self, action):
        self.turn += 1
        return 0, 0.0, self.turn == STEPS, False, {}

    def render(self):
        picture = np.zeros((64, 128, 3), np.uint8)
        for bit in range(8):
            picture[:, 16 * bit : 16 * bit + 16] = 255 * (self.turn >> bit & 1)
        return picture


def recorded(fps):
    folder = f"fps{fps}"
    env = gym.wrappers.RecordVideo(Counter(fps), folder, lambda n: True, disable_logger=True)
    env.reset()
    for _ in range(STEPS):
        env.step(0)
    env.close()
    (path,) = Path(folder).glob("*.mp4")
    with av.open(str(path)) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        rate = film.streams.video[0].average_rate
    return rate, [
        sum(int(p[32, 16 * bit + 8].mean() > 128) << bit for bit in range(8)) for p in pictures
    ]


print(f"numpy {np.__version__}")
print("  guess: 101 pictures, 0 to 100, in order, at every rate")
lost = {}
for fps in (4, 10, 30):
    rate, shown = recorded(fps)
    lost[fps] = sorted(set(range(STEPS + 1)) - set(shown))
    print(f"  seen at {rate} a second: {len(shown)} pictures, {len(lost[fps])} lost: {lost[fps]}")
if np.__version__.startswith("1."):
    same = lost == {4: [], 10: [100], 30: [100]}
else:
    same = not lost[4] and len(lost[10]) == 21 and lost[30] == [74, 89, 100]
if not same:
    sys.exit("changed")
PYTHON
venv/bin/python record.py
venv/bin/pip install --quiet numpy==1.26.4
rm -r fps*
venv/bin/python record.py
