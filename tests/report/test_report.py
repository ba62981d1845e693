"""The report page: self-contained, readable without a script, and safe to open."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import av
import numpy as np
import pytest
from support.builders import make_task
from support.evaluations import report, row

from paravt_env.common.images import data_uri, encode_png
from paravt_env.video import VideoError
from train.common.glossary import COST
from train.evaluation.bootstrap import Interval
from train.evaluation.row import EvalRow
from train.report.charts import COLOURS, interval_chart, line_chart
from train.report.curves import curves
from train.report.page import learned, render, write_report
from train.report.plot import Plot, ticks
from train.report.rollouts import choose, read_overview
from train.report.timeline import Stretch, timeline

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
STEPS = [
    {"step": s, "reward": 0.1 * s, "reward/answer": 0.5, "kl": None, "calls/K=4": 1.0}
    for s in range(5)
]


def overview(video, budget):
    return np.full((budget, 20, 30, 3), 128, np.uint8), np.arange(budget) * 5.0, 60.0


def page(before=None, after=None, steps=(), settings=None, read=overview, name="run"):
    return render(name, before, after or report(row()), steps, settings or {}, read, 3)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_text_of_a_model_cannot_become_markup():
    turn = {"completion": HOSTILE, "crops": [{"window": (1, 2), "status": HOSTILE, "frames": 1}]}
    said = {"answer": HOSTILE, "gold": HOSTILE, "question": HOSTILE, "turns": (turn,)}
    hostile = row(HOSTILE, family=HOSTILE, **said)
    other = row(HOSTILE, frame_budget=8, error=HOSTILE, category=HOSTILE, family="plain", **said)
    after = report(hostile, other)
    steps = [{"step": 0, f"reward/{HOSTILE}": 1.0, "reward/b": 1.0}]
    text = page(after, after, steps, {HOSTILE: HOSTILE}, name=HOSTILE)
    parsed = Tags(text)
    assert "script" not in parsed.tags
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert all(src.startswith("data:image/jpeg") for key, src in parsed.attributes if key == "src")
    assert text.count("&lt;script&gt;alert(1)") > 8


def test_the_page_needs_nothing_from_outside():
    text = page(report(row(score=0.0)), report(row()), STEPS, {"config.yaml": "seed: 0"})
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "url(" not in text
    assert "@import" not in text


def test_before_and_after_stand_side_by_side():
    before = report(row("a", 0.0, calls=2), row("b", 0.0, compliant=False))
    after = report(row("a", 1.0), row("b", 1.0))
    text = page(before, after)
    assert "0.0 % [0.0, 0.0]" in text
    assert "<span class=sure>+100.0 [+100.0, +100.0]</span>" in text
    assert "0.50 → 1.00" in text
    assert "1.50 → 1.00" in text
    assert learned(before, after) == (
        "Test accuracy went from 0.0 % to 100.0 %: +100.0 [+100.0, +100.0] points "
        "(the interval excludes zero), with format compliance 1/2 -> 2/2 and 1.50 -> 1.00 calls "
        "per rollout (1.50 -> 1.00 at K <= 8)."
    )


def test_evidence_recall_stands_in_the_page_or_a_dash():
    gold = report(row("a", evidence_recall=0.25), row("b", evidence_recall=0.5), row("c"))
    without = report(row("a"), row("b"), row("c"))
    assert "<td>evidence recall</td><td>- → 0.375</td>" in page(without, gold)


def test_a_change_that_may_be_chance_is_not_called_learning():
    before = report(row("a", 0.0), row("b", 1.0))
    after = report(row("a", 1.0), row("b", 0.0))
    assert "does not exclude zero" in learned(before, after)
    assert "class=sure" not in page(before, after).split("<h2>Rollouts")[0]


def test_frames_that_cannot_be_read_are_said_to_be_missing():
    def broken(video, budget):
        raise VideoError(video, "truncated")

    assert "frames not available: /v.mp4: truncated" in page(read=broken)


def test_gold_evidence_and_crops_are_on_the_time_line():
    crops = [
        {"window": (12.0, 18.0), "status": "ok", "frames": 6},
        {"window": (90.0, 95.0), "status": "outside", "frames": 0},
        {"window": (None, None), "status": "malformed", "frames": 0},
    ]
    text = page(after=report(row(turns=({"completion": "look", "crops": crops},))))
    assert "<title>12.0-18.0 s ok</title>" in text
    assert "<title>1.0-2.0 s gold evidence</title>" in text
    assert "crop no window, malformed, 0 frames" in text
    assert "crop 12.0-18.0 s, ok, 6 frames" in text
    assert [f"<title>{t} s</title>" in text for t in (7.5, 22.5, 37.5, 52.5)] == [True] * 4


def test_rollouts_that_were_learned_come_first():
    rows = [row("same", 1.0), row("lost", 0.0), row("learned", 1.0, parallel=2)]
    before = report(row("same", 1.0), row("lost", 1.0), row("learned", 0.0))
    chosen = choose(before, report(*rows), 6)
    assert chosen[0][0].task_id == "learned"
    assert sorted(pair[0].task_id for pair in chosen) == ["learned", "lost", "same"]
    assert chosen[0][1].score == 0.0


def test_choosing_rollouts_compares_no_row_with_another(monkeypatch):
    """Comparing whole rows took a third of an evaluation of 576 questions."""
    rows = [row("a", 1.0), row("b", 0.0), row("c", 1.0, family="count")]
    monkeypatch.setattr(EvalRow, "__eq__", None)
    chosen = choose(None, report(*rows), 3)
    assert [pair[0].task_id for pair in chosen] == ["a", "b", "c"]


def test_a_run_folder_becomes_a_page(tmp_path, clip):
    task = make_task(clip)
    after = report(row(video=clip, question=task.prompt))
    after.save(tmp_path / "after.json")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "reward": 1.0}\n')
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count("data:image/jpeg;base64,") == 4
    assert "<title>reward: 1</title>" in text


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path):
    report(row(answer="half \ud800", gold="\udfff")).save(tmp_path / "after.json")
    text = write_report(tmp_path, overview=overview).read_text(encoding="utf-8")
    assert "answer half ?" in text and "gold ?" in text


def test_a_training_run_alone_has_its_curves(tmp_path):
    lines = [f'{{"step": {s}, "reward": {0.25 * s}, "calls": null}}' for s in range(4)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 4, "rew']))
    (tmp_path / "config.yaml").write_text("seed: 0")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Trained for 4 steps, not measured yet" in text
    assert "the first and last 2: reward 0.125 -&gt; 0.625." in text
    assert "<h2>Training</h2>" in text and "<title>reward: 0.375</title>" in text
    assert "seed: 0" in text
    assert "<h2>Rollouts</h2>" not in text and "<h2>Test split</h2>" not in text


def test_every_logged_time_is_a_line_once_and_no_chart_has_more_lines_than_colours():
    names = [name for name in COST if name.startswith("time/")]
    charts = curves([{"step": step, **dict.fromkeys(names, 1.5)} for step in range(2)])
    lines = {
        title: re.findall(r"<title>([^:]+): 1.5", chart)[::2]
        for title, chart in re.findall(r'aria-label="([^"]+)">(.*?)</svg>', charts)
    }
    drawn = [name for names in lines.values() for name in names]
    assert sorted(drawn) == sorted(name[5:] for name in names)
    assert list(lines) == ["Seconds of a step", "Seconds of sampling", "Seconds of the update"]
    assert lines["Seconds of sampling"] == ["video", "encode", "prefill", "decode"]
    assert max(map(len, lines.values())) <= len(COLOURS)


def test_a_folder_without_an_evaluation_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="paravt eval"):
        write_report(tmp_path)


def test_the_overview_is_decoded_at_its_instants(clip):
    pixels, times, duration = read_overview(clip, 3)
    assert duration == 30.0
    assert pixels.shape[:2] == (3, 72)
    assert times.tolist() == [5.0, 15.0, 25.0]
    assert len(read_overview(clip, 64)[1]) == 12


def test_a_task_about_a_picture_shows_it_and_no_time_line(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(encode_png(np.full((300, 480, 3), 90, np.uint8)))
    pixels, times, duration = read_overview(str(path), 1)
    assert pixels.shape == (1, 150, 240, 3) and times.tolist() == [0.0] and duration == 0.0
    assert (pixels == 90).all()
    text = page(
        after=report(replace(row(), rollout=replace(row().rollout, video=str(path)))),
        read=read_overview,
    )
    assert "the task&#x27;s first picture, scaled down" in text
    assert text.count("data:image/jpeg") == 1 and "gold evidence</title>" not in text


def test_a_small_picture_keeps_its_size_and_none_is_said_to_be_missing(tmp_path):
    path = tmp_path / "small.png"
    path.write_bytes(encode_png(np.zeros((4, 6, 3), np.uint8)))
    assert read_overview(str(path), 1)[0].shape == (1, 4, 6, 3)
    with pytest.raises(VideoError):
        read_overview(str(tmp_path / "gone.png"), 1)


def test_jpeg_data_uris_hold_the_image():
    image = np.zeros((21, 30, 3), np.uint8)
    image[:, 15:] = (200, 50, 50)
    head, _, data = data_uri(image).partition(",")
    assert head == "data:image/jpeg;base64"
    decoder = av.CodecContext.create("mjpeg", "r")
    packet = av.Packet(base64.b64decode(data))
    decoded = [*decoder.decode(packet), *decoder.decode(None)][0].to_ndarray(format="rgb24")
    assert decoded.shape == (20, 30, 3)
    assert np.abs(decoded[10, 4].astype(int)).max() < 12
    assert np.abs(decoded[10, 26].astype(int) - [200, 50, 50]).max() < 16


def test_charts_of_nothing_are_nothing():
    assert line_chart("t", {"a": []}) == ""
    assert interval_chart("t", {}) == ""


def test_a_line_goes_up_when_its_values_do():
    svg = line_chart("Reward", {"a": [(1, 0.0), (2, 1.0)]})
    points = re.findall(r'class="raw" points="([^"]+)"', svg)[0].split()
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points)
    assert x2 > x1
    assert y2 < y1


def test_constant_and_single_values_can_be_drawn():
    assert "NaN" not in line_chart("t", {"a": [(1, 5.0)]}).replace("nan", "NaN")
    assert "polyline" in line_chart("t", {"a": [(1, 0.0), (2, 0.0)]})
    assert "circle" in interval_chart("t", {"K=4": {"after": Interval(0.0, 0.0, 0.0, 1, 1)}})


def test_ticks_are_round_and_inside():
    assert ticks(0.13, 0.87) == [0.2, 0.4, 0.6, 0.8]
    assert ticks(0.0, 900.0, 7) == [0.0, 200.0, 400.0, 600.0, 800.0]


def test_spans_are_drawn_to_scale_and_failed_ones_hollow():
    svg = timeline(
        100.0, [50.0], {"after": [Stretch(0.0, 50.0, "ok"), Stretch(90.0, 95.0, "no", False)]}
    )
    widths = [float(width) for width in re.findall(r'width="([\d.]+)"', svg)]
    assert widths[0] == pytest.approx(10 * widths[1], rel=0.02)
    assert svg.count('fill="none"') == 1


def test_a_line_runs_from_the_lower_left_to_the_upper_right():
    plot = Plot("t", (0.0, 10.0), (0.0, 1.0))
    assert plot.path([(0, 0.0), (10, 1.0)]) == "44.0,194.0 328.0,44.0"
    assert Plot("t", (5.0, 5.0), (0.0, 1.0)).path([(5, 0.5)]) == "186.0,119.0"
