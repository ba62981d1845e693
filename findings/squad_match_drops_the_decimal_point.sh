#!/usr/bin/env bash
# SQuAD's exact match takes 1.05, 10.5 and 105 for the same answer, and 1:05 too.
#
# Versions: transformers 5.19.0 (no torch). Seen: 2026-12-01.
# Matters to: open answers about times, counts and measures, and rewards of exact match or token F1.
# The normalisation drops every punctuation mark, inside numbers too, and signs; articles go as
# well, so that the word "the" is the option "A".

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet transformers==5.19.0

venv/bin/python - 2>log <<'PYTHON' || { cat log >&2; exit 1; }
import sys

from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

PAIRS = [  # gold, answer, exact match seen; the guess is 0 for all but the last
    ("10.5 seconds", "1.05 seconds", 1),
    ("10.5", "105", 1),
    ("1:05", "105", 1),
    ("-5 degrees", "5 degrees", 1),
    ("A", "the", 1),
    ("10.5 seconds", "the 10.5 seconds", 1),
]
seen = []
for gold, answer, _ in PAIRS:
    seen.append(compute_exact(gold, answer))
    print(f"{gold:14}{answer:18}guess {int('the 10' in answer)}  seen {seen[-1]}", end="  ")
    print("F1", float(compute_f1(gold, answer)))
if seen != [expected for *_, expected in PAIRS]:
    sys.exit("changed")
PYTHON
