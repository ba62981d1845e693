"""One row of every published data set, in its exact schema, and the writers of annotation files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VIDEO_MME = {
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Humanity & History",
    "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
    "videoID": "fFjv93ACGo8",
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "How many candles are lit?",
    "options": ["A. One.", "B. Two.", "C. Three.", "D. Four."],
    "answer": "C",
}
LONGVIDEOBENCH = {
    "id": "86CxyhFV9MI_0",
    "video_id": "86CxyhFV9MI",
    "video_path": "86CxyhFV9MI.mp4",
    "subtitle_path": "86CxyhFV9MI_en.json",
    "correct_choice": 2,
    "question": "Which subtitles appear with the man in black?",
    "option0": "promisc",
    "option1": "run away",
    "option2": "i was just scared",
    "option3": "countless",
    "option4": "N/A",
    "duration": 190.16,
    "duration_group": 600,
    "question_category": "T2A",
    "topic_category": "NP-News-Programs",
    "starting_timestamp_for_subtitles": 100.0,
}
LVBENCH = {
    "uid": "55",
    "question": "What year appears in the caption?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633",
    "answer": "D",
    "question_type": ["key information retrieval", "reasoning"],
    "time_reference": "00:15-00:19",
    "video_path": "Cm73ma6Ibcs.mp4",
    "video_info": {"duration_minutes": 62, "fps": 30.0},
}
MLVU = {
    "video_name": "needle_32.mp4",
    "duration": 467.98,
    "question": "What does the hand coming out of the computer do?",
    "candidates": ["Delivers a product", "Shakes the hand", "Takes a picture", "Points"],
    "answer": "Delivers a product",
    "task_type": "needle",
    "question_id": "needle_32_0",
}
MMVU = {
    "id": "validation_0",
    "video": "https://huggingface.co/datasets/yale-nlp/MMVU/resolve/main/videos/Art/0.mp4",
    "question": "Which school does the painter belong to?",
    "choices": {"A": "Cubism", "B": "Fauvism", "C": "Dada", "D": "Baroque", "E": "Pop"},
    "answer": "B",
    "question_type": "multiple-choice",
    "metadata": {"subject": "Art", "textbook": "", "rationale": ""},
}
CHARADES_STA = {
    "video": "3MSZA.mp4",
    "caption": "person turn a light on",
    "timestamp": [24.3, 30.4],
}
LONGVIDEO_REASON = {
    "problem_id": 7,
    "problem": "What is the goal of the chase?\nA. To eat\nB. To contrast\nC. To rest\nD. To sell",
    "data_type": "video",
    "problem_type": "goal",
    "reasoning": "The sequence begins by ...",
    "videos": "longvila_videos/I_Q3ajyOrcI.mp4",
    "answer": "<answer>B</answer>",
}
PARAVT_RL = {
    "prompt": [
        {"role": "system", "content": "Think first."},
        {"role": "user", "content": "<video>Which colour is the car?\nA. red\nB. blue"},
    ],
    "videos": [{"video": "longvt_source/videor1_1/a.mp4"}],
    "extra_info": json.dumps({"answer": "B", "question_type": "mcq"}),
}
CONVERSATION = [
    {"role": "system", "content": [{"type": "text", "text": "Think first."}]},
    {
        "role": "user",
        "content": [
            {"type": "video_url", "video_url": {"url": "museg/charades/3MSZA.mp4"}},
            {"type": "text", "text": "When does the light go on?"},
        ],
    },
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "<think>look</think><answer>1-2</answer>"}],
    },
    {"role": "user", "content": [{"type": "text", "text": "Crop 1: light at 24 s"}]},
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "<think>so</think><answer>24.3-30.4</answer>"}],
    },
]
PARAVT_SFT = {"messages": json.dumps(CONVERSATION)}


def write_rows(path: Path, *rows: Mapping[str, Any]) -> Path:
    """Rows as Parquet, JSONL or JSON, by the suffix of the path; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(list(rows)), encoding="utf-8")
    return path


def touch(folder: Path, *names: str) -> None:
    """Files that are there, though no videos."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def srt(*lines: tuple[str, str, str]) -> str:
    """A SubRip file of (start, end, text)."""
    blocks = [f"{i}\n{start} --> {end}\n{text}\n" for i, (start, end, text) in enumerate(lines, 1)]
    return "\n".join(blocks)


def changed(rows: Sequence[Mapping[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    """The rows with the same changes; a value of `...` takes the field away."""
    new = [{**row, **changes} for row in rows]
    return [{key: value for key, value in row.items() if value is not ...} for row in new]
