"""Pictures of tasks: sizes before pixels, what is refused, and how they are scaled."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from paravt_env.common.images import encode_jpeg, encode_png, picture_size
from paravt_env.video.pictures import Pictures, fitted
from paravt_env.video.types import VideoError


def some(height=6, width=10):
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_a_png_comes_back_bit_by_bit_and_is_kept(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(some()))
    pictures = Pictures(100)
    assert pictures.size(str(path)) == (6, 10)
    first = pictures.read(str(path))
    assert np.array_equal(first, some()) and not first.flags.writeable
    assert pictures.read(str(path)) is first
    again = pickle.loads(pickle.dumps(pictures))
    assert again.most_pixels == 100 and np.array_equal(again.read(str(path)), first)


def test_a_jpeg_says_its_size(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_jpeg(some(16, 32)))
    assert picture_size(path.read_bytes()) == (16, 32)
    assert Pictures(512).read(str(path)).shape == (16, 32, 3)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path):
    path = tmp_path / "a.png"
    data = bytearray(encode_png(some()))
    data[16:24] = (20_000).to_bytes(4, "big") + (10_000).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    for ask in (Pictures(199_999_999).size, Pictures(199_999_999).read):
        with pytest.raises(VideoError, match="20000 x 10000 pixels, more than 199999999"):
            ask(str(path))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GIF89a....", "no PNG or JPEG"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "no PNG or JPEG"),
        (encode_png(some())[:60], "cannot be decoded"),
    ],
)
def test_what_is_no_picture_says_so(tmp_path, data, said):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(VideoError, match=said):
        Pictures(100).read(str(path))


def test_a_missing_file(tmp_path):
    with pytest.raises(VideoError, match="cannot be opened"):
        Pictures(100).size(str(tmp_path / "none.png"))


def test_a_wide_picture_stands_in_the_middle():
    frame = fitted(np.full((10, 40, 3), 200, np.uint8), (20, 20))
    assert frame.shape == (20, 20, 3)
    assert (frame[8:12] >= 199).all() and not frame[:7].any() and not frame[13:].any()
    assert np.array_equal(fitted(some(), (6, 10)), some())
