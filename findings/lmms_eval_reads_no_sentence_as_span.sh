#!/usr/bin/env bash
# lmms-eval's Charades-STA scores a plain sentence, or a list of two numbers, as no answer.
#
# Version: lmms-eval 0.7.3. Seen: 2026-12-01.
# Matters to: temporal grounding scores. "10.5 - 20.3 seconds" is read; the same span as a sentence
# with units, as [10.5, 20.3] or as JSON has IoU 0, since one number a sentence is looked for and
# "10s" is none. A clock with decimals becomes another span. Ask for the one form, or convert.
# The function is taken from the installed wheel on its own, because the package needs torch.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --no-deps lmms-eval==0.7.3

venv/bin/python - <<'PYTHON'
import ast
import re
import sys
import sysconfig
from pathlib import Path

path = Path(sysconfig.get_path("purelib"), "lmms_eval/tasks/charades_sta/utils.py")
wanted = {"extract_time", "_time_to_seconds"}
tree = ast.parse(path.read_text(encoding="utf-8"))
tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in wanted]
functions = {"re": re}
exec(compile(tree, str(path), "exec"), functions)

SPAN = [[10.5, 20.3]]
REPLIES = [  # reply, guess, seen
    ("10.5 - 20.3 seconds", SPAN, SPAN),
    ("From 10.5 seconds to 20.3 seconds.", SPAN, []),
    ("It starts at 10.5 seconds and ends at 20.3 seconds.", SPAN, []),
    ("[10.5, 20.3]", SPAN, []),
    ('{"start": 10.5, "end": 20.3}', SPAN, []),
    ("1:05.5 - 1:10.2", [[65.5, 70.2]], [[1.0, 5.5]]),
]
changed = False
for reply, guess, expected in REPLIES:
    span = functions["extract_time"](reply)
    print(f"guess {guess!s:16} seen {span!s:16} {reply}")
    changed |= span != expected
if changed:
    sys.exit("changed")
PYTHON
