"""What the first bytes of a packet tell, and the order of showing that follows from it."""

from __future__ import annotations

import av
import numpy as np
import pytest
from support.kinds import write_intra_refresh, write_packed
from support.videos import write_video

from paravt_env.video.readers.bitstream import (
    Mpeg4,
    h264_recovery,
    length_bytes,
    nal_units,
    starts_anew,
)
from paravt_env.video.readers.order import DisplayOrder, Restart, Shown, places


def packets(path):
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        length = length_bytes(context.name, context.extradata)
        stored = [(bytes(p), p.is_keyframe) for p in file.demux(video=0) if p.size]
        return stored, length, context.extradata


@pytest.mark.parametrize("name, length", [("a.mp4", 4), ("a.ts", 0), ("a.avi", 0)])
def test_idr_pictures_and_recovery_points(tmp_path, name, length):
    stored, found, _ = packets(write_video(tmp_path / name, frames=60, open_gop=True))
    assert found == length
    keys = [data for data, key in stored if key]
    assert [h264_recovery(data, length) for data in keys] == [0, 0, 0]
    assert [starts_anew("h264", data, length) for data in keys] == [True, False, False]
    others = {h264_recovery(data, length) for data, key in stored if not key}
    assert others == {None}


def test_a_recovery_point_says_after_how_many_frames(tmp_path):
    stored, length, _ = packets(write_intra_refresh(tmp_path / "a.mp4"))
    counts = [h264_recovery(data, length) for data, key in stored if key]
    assert counts[0] == 0 and all(count is not None and count > 3 for count in counts[1:])


def test_bytes_that_are_no_video_are_no_error():
    rng = np.random.default_rng(0)
    for size in (0, 1, 3, 7, 64, 1000):
        for _ in range(50):
            data = rng.bytes(size)
            for length in (0, 1, 2, 4):
                list(nal_units(data, length))
                h264_recovery(data, length)
                starts_anew("hevc", data, length)
            for start in (b"", b"\0\0\1\x20", b"\0\0\1\xb6", b"\0\0\1\x06\x06"):
                Mpeg4(start + data).pictures(start + data)
                h264_recovery(start + data, 0)


def test_the_kinds_of_mpeg4_pictures(tmp_path):
    options = {"codec": "mpeg4", "frames": 30, "fps": 25}
    stored, _, extradata = packets(write_video(tmp_path / "a.avi", b_frames=2, **options))
    mpeg4 = Mpeg4(extradata)
    kinds = [mpeg4.pictures(data) for data, _ in stored]
    assert "".join(kinds[:7]) == "IPBBPBB" and kinds.count("I") == 2
    source = write_video(tmp_path / "b.avi", b_frames=1, **options)
    stored, _, extradata = packets(write_packed(tmp_path / "c.avi", source))
    mpeg4 = Mpeg4(extradata)
    kinds = [mpeg4.pictures(data) for data, _ in stored]
    assert kinds[:4] == ["I", "PB", "-", "PB"] and "IB" in kinds


def order(*stored: str) -> list[int]:
    shown = Shown()
    for tick, pictures in enumerate(stored):
        shown.add(pictures, tick, False)
    return shown.frames().tolist()


def test_places_of_pictures_that_are_packed_or_not_coded():
    assert order("I", "P", "B", "B", "P") == [0, 1, 2, 3, 4]
    assert order("I", "PB", "-", "PB", "-") == [0, 1, 2, 3, 4]
    assert order("I", "P", "-", "-", "P") == [0, 1, 1, 1, 2]  # the same picture three times
    assert order("-", "I", "P") == [0, 0, 1]
    assert order("I", "PB") == [0, 1, 2]  # one more picture than packets


def test_packed_pictures_have_places_or_are_refused():
    four = np.arange(4)
    assert places([0, 10, 20, 30], four, True, 10)[0].tolist() == [0, 10, 20, 30]
    assert places([0, 20, 30], four, True, 10)[0].tolist() == [0, 10, 20, 30]  # 10 is absent
    assert places([0, 10, 20], four, True, 10)[0].tolist() == [0, 10, 20, 30]  # the last is packed
    assert places([0, 20, 60], four, True, 10) is None  # which of seven repeat?
    assert places([0, 20, 40], four[:3], False, 10)[0].tolist() == [0, 20, 40]


def test_restarts_count_what_is_shown_before_them():
    shown = Shown()
    for tick, pictures in enumerate(["I", "P", "B", "I", "B", "P", "P"]):
        shown.add(pictures, tick, False)
    shown.frames()
    assert shown.restarts == [Restart(0, 0), Restart(4, 3)]  # I P B, then the B before the I
    shown = Shown()
    for tick, anew in enumerate([True, False, False, True, False]):
        shown.add("P", tick, anew)
    assert shown.restarts == [Restart(0, 0), Restart(3, 3)]


def test_a_frame_is_found_by_the_first_of_its_places():
    starts, frames = np.array([0, 10, 20, 30]), np.array([0, 1, 1, 2])
    table = DisplayOrder(starts, frames, (Restart(0, 0), Restart(2, 30)), 40)
    assert [table.at(tick) for tick in (-5, 9, 10, 29, 99)] == [
        (0, 0), (0, 0), (1, 10), (1, 10), (2, 30),
    ]  # fmt: skip
    assert table.restart(1) == Restart(0, 0) and table.restart(2) == Restart(2, 30)
    assert table.start_of(Restart(2, 30)) == 30
