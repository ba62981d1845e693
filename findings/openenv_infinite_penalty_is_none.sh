#!/usr/bin/env bash
# OpenEnv hands a reward of minus infinity, or NaN, to the client as None: no reward at all.
#
# Versions: openenv 0.10.0, pydantic 2.14.3. Seen: 2026-12-01.
# Matters to: trainers on environment servers. The server's type for a reward admits every float,
# JSON does not: the heaviest penalty arrives as "not scored", which a trainer may leave out of the
# group instead of counting it. The same happens to float fields of the observation.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet openenv==0.10.0 pydantic==2.14.3

HF_HOME="$work/home" venv/bin/python - 2>log <<'PYTHON' || { cat log >&2; exit 1; }
import asyncio
import socket
import sys
import threading

import uvicorn
from openenv.core.env_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from openenv.core.generic_client import GenericEnvClient

REWARDS = {"plain": 0.5, "penalty": float("-inf"), "undefined": float("nan")}


class Choice(Action):
    name: str


class Seen(Observation):
    seconds_left: float = 1.0


class Judge(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **options):
        return Seen()

    def step(self, action, **options):
        reward = REWARDS[action.name]
        return Seen(reward=reward, seconds_left=-reward)

    @property
    def state(self):
        return State(episode_id="0", step_count=0)


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
port = listener.getsockname()[1]
app = create_app(Judge, Choice, Seen, env_name="judge", max_concurrent_envs=1)
server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
threading.Thread(target=server.run, args=([listener],), daemon=True).start()


async def play():
    while not server.started:
        await asyncio.sleep(0.1)
    async with GenericEnvClient(base_url=f"http://127.0.0.1:{port}") as client:
        await client.reset()
        results = {name: await client.step({"name": name}) for name in REWARDS}
    return {name: (r.reward, r.observation["seconds_left"]) for name, r in results.items()}


seen = asyncio.run(asyncio.wait_for(play(), 60))
print("guess: -inf and nan as they were sent, or an error that they cannot be sent")
print("sent:", REWARDS)
print("seen (reward, seconds_left):", seen)
same = seen == {"plain": (0.5, -0.5), "penalty": (None, None), "undefined": (None, None)}
server.should_exit = True
if not same:
    sys.exit("changed")
PYTHON
