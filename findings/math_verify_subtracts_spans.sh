#!/usr/bin/env bash
# math-verify takes a span of seconds for a subtraction: 10-20 equals 30-40.
#
# Versions: math-verify 0.9.0 (latex2sympy2-extended 1.11.0, sympy 1.14.0). Seen: 2026-12-01.
# Matters to: rewards for temporal grounding, or for any answer with times, on top of a mathematical
# grader. Every span of the right length is right, wherever it lies; of mm:ss only the first minutes
# count; a list of two numbers is its last one; 50% is right for 50 and for 0.5.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet math-verify==0.9.0 latex2sympy2-extended==1.11.0 sympy==1.14.0

venv/bin/python - <<'PYTHON'
import sys

from math_verify import parse, verify

PAIRS = [  # gold, answer, guess, seen
    ("10-20", "30-40", False, True),
    (r"\boxed{10.5-20.5}", r"\boxed{30.5-40.5}", False, True),
    ("10-20", "10-21", False, False),
    ("00:10-00:20", "00:30-00:40", False, True),
    ("1:05", "1:50", False, True),
    ("[10, 20]", "[15, 20]", False, True),
    ("50%", "0.5", True, True),
    ("50%", "50", False, True),
]
print(f"{'gold':20}{'answer':20}{'guess':8}seen")
changed = False
for gold, answer, guess, expected in PAIRS:
    equal = verify(parse(gold), parse(answer))
    print(f"{gold:20}{answer:20}{guess!s:8}{equal}")
    changed |= equal != expected
if changed:
    sys.exit("changed")
PYTHON
