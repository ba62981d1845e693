"""The page of a set: its counts, its baselines, rows with frames, and nothing that acts."""

import json
import re
from pathlib import Path

import pytest
from support.chat_servers import serving

from train.config.reason import QuestionConfig
from train.datagen.engine import Engine
from train.datagen.manifest import MANIFEST, SUMMARY, write_set
from train.datagen.page import write_page
from train.report.rollouts import read_overview


@pytest.fixture
def made(models, settings):
    with serving(models) as endpoint:
        config = settings(endpoint.url, {"prompt_price": 1.0}, samples=3)
        engine = Engine(config, progress=False)
        summary = write_set(engine.run(), engine.planned, config)
    return config, summary


def cells(page, title):
    """The rows of the table whose first head is `title`."""
    table = re.search(rf"<table><tr><th>{title}</th>.*?</table>", page).group()
    return [
        re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(?:<td>.*?)</tr>", table)
    ]


def test_the_page_counts_what_the_files_hold(made):
    config, summary = made
    assert json.loads((Path(config.output) / SUMMARY).read_text()) == summary
    page = write_page(config, summary).read_text()
    rows = [json.loads(line) for line in (Path(config.output) / MANIFEST).read_text().splitlines()]
    for title, field in (("category", "category"), ("letter", "answer"), ("split", "split")):
        shown = {name: int(count) for name, count, _ in cells(page, title)}
        assert shown == {
            name: sum(row[field] == name for row in rows) for name in {r[field] for r in rows}
        }
    reasons = {name: int(count) for name, count, _ in cells(page, "reason")}
    assert reasons == summary["reasons"] and sum(reasons.values()) + len(rows) == 16
    found = sum(row["metadata"]["provenance"]["found_blind"] for row in rows)
    baselines = {row[0]: row[1] for row in cells(page, "")}
    assert baselines["blind, kept rows"] == f"{found} of {len(rows)}"
    per = {}
    for row in rows:
        per.setdefault(row["category"], []).append(row["answer"])
    most = sum(max(map(letters.count, letters)) for letters in per.values())
    assert baselines["majority letter of each category"] == f"{most} of {len(rows)}"
    assert cells(page, "step")[-1][1] == str(summary["total"]["requests"])


def test_samples_show_each_category_before_any_twice_with_frames_and_evidence(made):
    config, summary = made
    page = write_page(config, summary).read_text()
    titles = re.findall(r"<div class=rollout><h3>(\w+) ·", page)
    assert len(titles) == len(set(titles)) == 3
    assert page.count("<img") == 36 and page.count("gold evidence") >= 3


def test_what_models_wrote_is_escaped(made):
    config, summary = made
    path = Path(config.output) / MANIFEST
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["question"] = "<script>alert(1)</script>"
        row["metadata"]["reasoning"] = "<img src=x onerror=alert(2)>"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_page(config, summary).read_text()
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page


def test_a_video_that_is_gone_and_a_set_without_rows_have_a_page_too(made, models, settings):
    config, summary = made

    def gone(video, budget):
        return read_overview(str(Path(video).with_name("gone.mp4")), budget)

    page = write_page(config, summary, gone).read_text()
    assert page.count("frames not available") == 3 and "<img" not in page
    with serving(lambda body: "no") as endpoint:
        none = QuestionConfig(categories=("plot",))
        config = settings(endpoint.url, questions=none, ask_again=True, seed=5)
        Path(config.output, "calls.jsonl").unlink()
        engine = Engine(config, progress=False)
        summary = write_set(engine.run(), engine.planned, config)
    assert summary["kept"] == 0 and summary["reasons"] == {"nonsense": 4}
    page = write_page(config, summary).read_text()
    assert "0 rows of 4 kept" in page and "nonsense" in page
