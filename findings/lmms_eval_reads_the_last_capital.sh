#!/usr/bin/env bash
# lmms-eval's multiple-choice reader prefers a later capital letter to the letter that was answered.
#
# Version: lmms-eval 0.7.3, the module that Video-MME, MLVU and LVBench share. Seen: 2026-12-01.
# Matters to: whoever compares accuracies of models that explain themselves with those of models
# that answer with a letter. After "the answer is", the last A, B, C or D counts, inside words too;
# an article at the start of the reply is an A; a refusal can be a letter.
# The module is loaded from the installed wheel on its own, because the package needs torch.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-deps lmms-eval==0.7.3

venv/bin/python - <<'PYTHON'
import importlib.util
import sys
import sysconfig
from pathlib import Path

path = Path(sysconfig.get_path("purelib"), "lmms_eval/tasks/_task_utils/mcq_extract.py")
spec = importlib.util.spec_from_file_location("mcq_extract", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

REPLIES = [  # reply, guess, seen
    ("The answer is B.", "B", "B"),
    ("The answer is B. The car is a Chevrolet.", "B", "C"),
    ("The correct answer is B, because the man spills his Coffee.", "B", "C"),
    ("A man walks in, so the answer is B.", "B", "A"),
    ("The answer is B, not A", "B", "A"),
    ("Cannot be determined.", "", "C"),
]
changed = False
for reply, guess, expected in REPLIES:
    letter = module.extract_mcq_answer(reply, choices=["A", "B", "C", "D"])
    print(f"guess {guess or 'none':5} seen {letter or 'none':5} {reply}")
    changed |= letter != expected
if changed:
    sys.exit("changed")
PYTHON
