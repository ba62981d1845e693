#!/usr/bin/env bash
# What a caption in braces or with a backslash says depends on the reader: {laughs}, \nabla.
#
# Versions: pysubs2 1.8.1, webvtt-py 0.6.0, srt 3.5.3, av 18.1.0 (its FFmpeg). Seen: 2026-12-01.
# Matters to: subtitles of lectures and of speech as evidence. pysubs2 and FFmpeg hold captions as
# ASS, where braces are commands, and do not escape SubRip's text: it is gone from what they show.
# pysubs2 also breaks the line at \n. FFmpeg does escape WebVTT's, with an invisible character
# (U+2060) that PyAV's `dialogue` hands on, having eaten a brace. srt and webvtt-py keep the text.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet pysubs2==1.8.1 webvtt-py==0.6.0 srt==3.5.3 av==18.1.0

venv/bin/python - <<'PYTHON'
import sys
from pathlib import Path

import av
import pysubs2
import srt
import webvtt

CAPTION = r"{laughs} the \nabla operator"
SUBRIP = f"1\n00:00:01,000 --> 00:00:02,000\n{CAPTION}\n"
Path("a.srt").write_text(SUBRIP)
Path("a.vtt").write_text(f"WEBVTT\n\n00:01.000 --> 00:02.000\n{CAPTION}\n")


def ffmpeg(path):
    with av.open(path) as file:
        shown = [s for p in file.demux(subtitles=0) if p.size for s in p.decode()]
    return shown[0].dialogue.decode()


no_braces = r" the \nabla operator"
two_lines = " the \nabla operator"
EXPECTED = {
    "srt": CAPTION,
    "webvtt-py, SubRip": CAPTION,
    "webvtt-py": CAPTION,
    "pysubs2, SubRip": two_lines,
    "pysubs2, WebVTT": two_lines,
    "PyAV, SubRip": no_braces,
    "PyAV, WebVTT": "\\laughs} the \\\u2060nabla operator",
}
seen = {
    "srt": next(iter(srt.parse(SUBRIP))).content,
    "webvtt-py, SubRip": webvtt.from_srt("a.srt")[0].text,
    "webvtt-py": webvtt.read("a.vtt")[0].text,
    "pysubs2, SubRip": pysubs2.load("a.srt")[0].plaintext,
    "pysubs2, WebVTT": pysubs2.load("a.vtt")[0].plaintext,
    "PyAV, SubRip": ffmpeg("a.srt"),
    "PyAV, WebVTT": ffmpeg("a.vtt"),
}
print("guess:", ascii(CAPTION), "from all")
for reader, text in seen.items():
    print(f"seen, {reader + ':':19}", ascii(text))
if seen != EXPECTED:
    sys.exit("changed")
PYTHON
