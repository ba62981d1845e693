#!/usr/bin/env bash
# pyarrow.csv reads minutes:seconds as hours:minutes: 01:30 becomes 5400 seconds.
#
# Version: pyarrow 26.0.1. Seen: 2026-12-01.
# Matters to: annotations of moments in tables. The type depends on the whole column: 01:30 is a
# time of day; one 1:30, one decimal or one 24:05 among them leaves the column text. So what else is
# in the file decides whether a moment is right or 60 times too late. Name the type: `column_types`.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet pyarrow==26.0.1

venv/bin/python - <<'PYTHON'
import io
import sys

from pyarrow import csv

COLUMNS = [  # cells, seen; the guess is text, always
    (["01:30", "02:05"], ["time32[s]", 5400]),
    (["00:01:30", "00:02:05"], ["time32[s]", 90]),
    (["1:30", "02:05"], ["string", "1:30"]),
    (["01:30", "02:05.5"], ["string", "01:30"]),
    (["01:30", "24:05"], ["string", "01:30"]),
]
changed = False
for cells, expected in COLUMNS:
    column = csv.read_csv(io.BytesIO("\n".join(["start", *cells, ""]).encode()))["start"]
    value = column[0].value if str(column.type).startswith("time") else column[0].as_py()
    seen = [str(column.type), value]
    print(f"{cells!s:26} guess ['string', {cells[0]!r}]  seen {seen}")
    changed |= seen != expected
if changed:
    sys.exit("changed")
PYTHON
