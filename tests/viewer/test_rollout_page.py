"""The page of a rollout: numbers become classes, marks seek, terms add up."""

import re

from support.viewed_runs import record

from train.report.bars import waterfall
from train.viewer.listing import Source
from train.viewer.record import Crop, Shown
from train.viewer.rollout_page import rollout_page


def page(**changes):
    return rollout_page("r", Source(1), 2, Shown.from_file(record("/v.mp4", **changes)), 4)


def test_tokens_have_the_class_of_each_number():
    talk = {
        "kind": "main", "version": 0, "prompt": "p", "pieces": ["g", "a", "b", "c"],
        "roles": [3, 1, 5, 4], "logprobs": [None, -5.0, -0.7, -0.01],
        "advantages": [None, -2.0, 0.0, None], "ratios": [None, 0.5, 1.0, 3.0],
    }  # fmt: skip
    text = page(conversations=[talk], turns=[])
    tokens = re.findall(r'<span class="(t r\d[^"]*)"[^>]*>(\w)</span>', text)
    assert tokens == [
        ("t r3 given", "g"),
        ("t r1 l0 a0 q0", "a"),
        ("t r5 l3 a3 q3", "b"),
        ("t r4 l5 q6", "c"),
    ]
    assert 'title="think, log-probability -5.000, advantage -2.000, ratio 0.500"' in text


def test_frames_of_a_crop_stand_beside_its_reading_and_seek():
    assert Crop((10.0, 14.0), "ok", "", 4, None).times(60.0) == [10.5, 11.5, 12.5, 13.5]
    assert Crop((-2.0, 9.0), "ok", "", 2, None).times(4.0) == [1.0, 3.0], "inside the video"
    text = page()
    assert re.findall(r"amp;t=([\d.]+)\"", text.split("<h2>Crops")[1])[:2] == ["6.000", "8.000"]
    crop = text.split("<section class=crop>")[1]
    assert "0:05.0 to 0:09.0" in crop and ">blue</span>" in crop
    failed = text.split("<section class=crop>")[2]
    assert "no window" in failed and "malformed, 0 frames (no)" in failed and "<img" not in failed


def test_every_mark_of_the_time_line_is_a_link():
    line = page().split("<svg")[1].split("</svg>")[0]
    assert re.findall(r'href="#t=([\d.]+)"', line) == [
        *("3.75", "11.25", "18.75", "26.25"),  # overview, K = 4 of 30 s
        "6.00",  # gold
        "5.00",  # the crop
    ]
    assert 'data-duration="30.000"' in line


def test_terms_are_bars_that_add_up():
    drawn = waterfall({"a": 1.0, "b": -0.5}, 0.5)
    found = re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn)
    bars = [(float(x), float(wide)) for x, wide in found]
    (a, wide), (b, half), (total, end) = bars
    assert (a, wide) == (150.0, 300.0) and (b, half) == (300.0, 150.0)
    assert (total, end) == (150.0, 150.0)
    assert ">+1.000<" in drawn and ">-0.500<" in drawn and "together 0.500" in drawn
    assert "<script>" not in waterfall({"<script>": 1.0}, 1.0)
