"""Pictures from elsewhere: what they say of themselves is checked before it is believed."""

import struct

import numpy as np
import pytest

from paravt_env.common import images


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_that_claims_another_size_reaches_no_decoder(kind, monkeypatch):
    data = bytearray(images.ENCODERS[kind](np.zeros((4, 6, 3), np.uint8)))
    assert images.decode_picture(bytes(data), (4, 6)).shape == (4, 6, 3)
    place = 16 if kind == "png" else data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    monkeypatch.setattr(images.av.CodecContext, "create", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="no such file"):
        images.decode_picture(bytes(data), (4, 6))


@pytest.mark.parametrize("data", [b"", b"\x89PNG", b"\xff\xd8", b"\xff\xd8" + bytes(99), b"GIF89a"])
def test_what_is_no_picture(data):
    with pytest.raises(ValueError, match="no such file"):
        images.decode_picture(data, (4, 6))
