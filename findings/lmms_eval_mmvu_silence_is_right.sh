#!/usr/bin/env bash
# lmms-eval scores an empty answer to an open MMVU question as right, and so it does a single letter.
#
# Version: lmms-eval 0.7.3, the task mmvu_val. Seen: 2026-12-01.
# Matters to: whoever reports MMVU accuracy of a model that sometimes answers nothing, as agents do
# that run out of turns. The rule looks for the prediction inside the answer too, and an empty text is
# inside every text; it runs before the judge, which is not asked then. A denial of the answer is
# right as well, and a number counts in any unit.
# The module is loaded from the installed wheel on its own, because the package needs torch.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-deps lmms-eval==0.7.3 loguru==0.7.3 pyyaml==6.0.3

venv/bin/python - <<'PYTHON'
import importlib.util
import sys
import sysconfig
from pathlib import Path

path = Path(sysconfig.get_path("purelib"), "lmms_eval/tasks/mmvu/utils.py")
spec = importlib.util.spec_from_file_location("mmvu", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

CASES = [  # answer, prediction, guess, seen
    ("breadth-first search", "breadth-first search", True, True),
    ("breadth-first search", "heap sort", False, False),
    ("breadth-first search", "", False, True),
    ("breadth-first search", "a", False, True),
    ("breadth-first search", "Certainly not breadth-first search.", False, True),
    ("12.5 m/s", "12.5 kg", False, True),
]
changed = False
for answer, prediction, guess, expected in CASES:
    doc = {"question_type": "open-ended", "question": "Which?", "answer": answer}
    seen = module.evaluate_with_rule_based(doc, prediction)
    print(f"guess {guess!s:5} seen {seen!s:5} answer {answer!r}, prediction {prediction!r}")
    changed |= seen != expected
if changed:
    sys.exit("changed")
PYTHON
