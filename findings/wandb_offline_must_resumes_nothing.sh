#!/usr/bin/env bash
# wandb offline: resume="must" makes a new run for an id that was never seen, and never resumes one.
#
# Version: wandb 0.31.0. Seen: 2026-12-01.
# Matters to: training that is interrupted on machines without a network. `must` refuses nothing,
# the second run of an id says `resumed` False, starts at step 0 with an empty summary, and writes a
# second folder; its first rows carry the numbers of rows that the first run already has. Give
# `step=` from your own checkpoint with every log call.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet wandb==0.31.0

WANDB_MODE=offline WANDB_SILENT=true WANDB_DIR="$work" WANDB_ERROR_REPORTING=false \
  venv/bin/python - <<'PYTHON'
import sys
from pathlib import Path

import wandb


def play():
    run = wandb.init(project="p", id="never-seen", resume="must")
    start = run.resumed, run.step, run.summary.get("reward")
    for _ in range(3):
        run.log({"reward": 1.0})
    run.finish()
    return start


first, second = play(), play()
folders = len(list(Path("wandb").glob("offline-run-*-never-seen*")))
print("guess: an error the first time; (True, 3, 1.0) had the run been there")
print("seen (resumed, step, summary's reward):", first, second, f"in {folders} folders")
if first != (False, 0, None) or second != (False, 0, None) or folders != 2:
    sys.exit("changed")
PYTHON
