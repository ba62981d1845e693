#!/usr/bin/env bash
# With two tools, code that fails is scored as the final answer, or not, by the tools' order.
#
# Versions: gem-llm 0.1.0. Seen: 2026-12-01.
# Matters to: whoever trains an agent with several tools on GEM, or compares tool use with it. Its
# wrapper asks the tools one after another and stops at the first that worked. After one that was
# called and failed it goes on to the next, which finds no call of its own, and that is what counts:
# the turn goes to the environment as an answer. So a ZeroDivisionError ends the episode without a
# tool call being counted if the code tool stands first, and comes back as text if it stands last.
# Put the tool that fails most often last, or wrap one tool that chooses among yours.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet gem-llm==0.1.0 numpy==2.3.5 regex==2026.11.19 requests==2.34.2

venv/bin/python - <<'PYTHON'
import sys

from gem.core import Env
from gem.tools.python_code_tool import PythonCodeTool
from gem.tools.search_tool import SearchTool
from gem.tools.tool_env_wrapper import ToolEnvWrapper

TURN = "<think>By minute.</think><python>print(60 / 0)</python>"


class Question(Env):
    """One answer, right or wrong."""

    def reset(self, seed=None):
        return "How many?", {}

    def step(self, action):
        return "over", float("7" in action), True, False, {}


def play(tools):
    env = ToolEnvWrapper(Question(), tools, tool_reward=0.1)
    env.reset()
    text, reward, terminated, _, info = env.step(TURN)
    return "ZeroDivisionError" in text, terminated, info["tool_use_counter"], reward


def search():
    return SearchTool(search_url="http://127.0.0.1:9/never-asked")


seen = {
    "code": play([PythonCodeTool()]),
    "search, code": play([search(), PythonCodeTool()]),
    "code, search": play([PythonCodeTool(), search()]),
}
print("guess: in any order the error comes back as an observation, and the episode goes on")
print("seen (error shown, episode over, calls counted, reward):")
for tools, what in seen.items():
    print(f"  tools {tools:13}: {what}")
expected = {
    "code": (True, False, 1, 0.1),
    "search, code": (True, False, 1, 0.1),
    "code, search": (False, True, 0, 0.0),
}
sys.exit(seen != expected)
PYTHON
