#!/usr/bin/env bash
# A question that went through datasets or parquet is rendered by Qwen3-VL's template as a video.
#
# Versions: datasets 5.2.0, pyarrow 26.0.1, transformers 5.19.0, and the Qwen3-VL chat template that
# trl 1.16.0 carries. Seen: 2026-12-01.
# Matters to: SFT and RL on messages with text and pictures or video. Arrow gives every part of a
# list the same keys, so the text part gets `video: None`; the template asks whether the key is
# there. The text is gone, and there are two video placeholders for one video. Keep messages as a
# JSON string in the table, or drop the keys that are None before rendering.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.1 transformers==5.19.0 jinja2==3.1.6
venv/bin/pip install --quiet --no-deps trl==1.16.0

HF_HOME="$work/home" venv/bin/python - 2>log <<'PYTHON' || { cat log >&2; exit 1; }
import sys
import sysconfig
from pathlib import Path

from datasets import Dataset
from transformers.utils.chat_template_utils import render_jinja_template

folder = Path(sysconfig.get_path("purelib"), "trl/chat_templates")
template = (folder / "qwen3_vl.jinja").read_text(encoding="utf-8")
messages = [
    {
        "role": "user",
        "content": [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "Who enters?"}],
    }
]
stored = Dataset.from_list([{"messages": messages}])[0]["messages"]


def rendered(conversation):
    return render_jinja_template([conversation], chat_template=template)[0][0]


before, after = rendered(messages), rendered(stored)
print("guess: the same text before and after")
print("part before:", messages[0]["content"][1])
print("part after: ", stored[0]["content"][1])
print("seen before:", repr(before))
print("seen after: ", repr(after))
pads = [text.count("<|video_pad|>") for text in (before, after)]
if "Who enters?" not in before or "Who enters?" in after or pads != [1, 2]:
    sys.exit("changed")
PYTHON
