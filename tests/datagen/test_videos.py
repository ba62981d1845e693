"""Which videos a folder holds, and splits that follow from what is in them."""

from collections import Counter
from dataclasses import replace

import pytest
from support.builders import make_clip

from paravt_env.video.store.store import FrameStore
from train.common.errors import ConfigError
from train.config.reason import SplitConfig
from train.datagen.refusal import Rejected
from train.datagen.videos import doubles_of, fingerprint_of, names_of, open_film, split_of


def test_names_are_those_of_videos_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "folder.mp4").mkdir()
    for name in ("c.MKV", "b/a.mp4", "a.webm", "note.txt", "mp4"):
        (tmp_path / name).write_bytes(name.encode())
    folder, names = names_of(str(tmp_path))
    assert (folder, names) == (tmp_path.resolve(), ["a.webm", "b/a.mp4", "c.MKV"])
    assert names_of(str(tmp_path), 2)[1] == ["a.webm", "b/a.mp4"]


def test_a_source_that_is_none_says_what_to_give(tmp_path):
    with pytest.raises(ConfigError, match="give --source"):
        names_of("")
    with pytest.raises(ConfigError, match="not a folder"):
        names_of(str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"no file that ends in one of \.3gp"):
        names_of(str(tmp_path))


def test_a_fingerprint_sees_both_ends_and_the_size(tmp_path):
    path = tmp_path / "v"

    def of(content):
        path.write_bytes(content)
        return fingerprint_of(path)

    middle = bytes(3 * 2**20)
    kinds = [b"a" + middle + b"z", b"b" + middle + b"z", b"a" + middle + b"y", b"a" + middle]
    assert len({of(content) for content in kinds}) == 4
    assert of(b"abc") == of(b"abc") != of(b"abx")


def test_a_film_knows_its_length_size_and_split_by_content(tmp_path):
    make_clip(tmp_path, "one.mp4")
    store, splits = FrameStore(), SplitConfig()
    one = open_film(tmp_path, "one.mp4", store, splits, 0)
    assert (one.name, one.duration, one.size) == ("one.mp4", 30.0, (64, 128))
    (tmp_path / "one.mp4").rename(tmp_path / "other.mp4")
    other = open_film(tmp_path, "other.mp4", store, splits, 0)
    assert replace(other, name=one.name, path=one.path) == one
    with pytest.raises(Rejected) as error:
        open_film(tmp_path, "one.mp4", store, splits, 0)
    assert error.value.reason == "unreadable_video"
    store.close()


def test_shares_of_splits_are_those_of_the_settings_and_the_seed_mixes_them():
    shares = SplitConfig(train=0.6, val=0.3, test=0.1)
    names = [str(number) for number in range(4000)]
    counts = Counter(split_of(name, shares, 0) for name in names)
    for split, share in (("train", 0.6), ("val", 0.3), ("test", 0.1)):
        assert abs(counts[split] / 4000 - share) < 0.03
    moved = sum(split_of(name, shares, 0) != split_of(name, shares, 1) for name in names)
    assert 0.4 < moved / 4000 < 0.7
    with pytest.raises(ValueError, match="add up to 1"):
        SplitConfig(train=0.5)


def test_doubles_are_later_names_of_the_same_content(tmp_path):
    for name, content in (("a.mp4", b"1"), ("b.mp4", b"2"), ("c.mp4", b"1"), ("d.mp4", b"1")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    names = ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "gone.mp4"]
    assert doubles_of(tmp_path.resolve(), names) == {"c.mp4": "a.mp4", "d.mp4": "a.mp4"}
