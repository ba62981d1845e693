"""Messages of published conversations: how they are divided into turns, without any model."""

import pytest

from train.sft.messages import (
    Medium,
    PublishedMessage,
    Unusable,
    check_opening,
    divided,
    refuse_marks,
)


def said(role, *parts):
    return PublishedMessage(role, parts)


SYSTEM, ASKED = said("system", "Think."), said("user", Medium("video_url", "v.mp4"), "When?")
LOOK, SEEN, MORE = said("assistant", "look"), said("tool", "a light"), said("user", "So?")
ANSWER, THANKS = said("assistant", "at 12"), said("user", "Thank you.")


def test_blocks_are_turns_and_what_stands_between_them():
    before, blocks = divided([SYSTEM, ASKED, LOOK, SEEN, MORE, ANSWER, THANKS])
    assert before == [SYSTEM, ASKED]
    assert blocks == [[LOOK], [SEEN, MORE], [ANSWER]]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "no assistant turn"),
        ([ASKED, THANKS], "no assistant turn"),
        ([LOOK], "no question before"),
        ([SYSTEM, LOOK], "no question before"),
        ([SEEN, LOOK], "no question before"),
        ([ASKED, LOOK, ANSWER], "two assistant turns"),
        ([ASKED, said("assistant", "\n")], "or empty"),
        ([ASKED, said("assistant", "see", Medium("image_url", "i.png"))], "not text alone"),
        ([ASKED, LOOK, SEEN, SYSTEM, ANSWER], "system message after"),
    ],
)
def test_turns_that_do_not_follow_one_another_are_refused(messages, why):
    with pytest.raises(Unusable, match=why) as error:
        divided(messages)
    assert error.value.kind == "malformed"


def test_the_first_mark_in_the_alphabet_is_named_with_its_message():
    refuse_marks([ASKED, LOOK], ["<b>", "<a>"])
    with pytest.raises(Unusable, match="message 2 holds <a> as text"):
        refuse_marks([ASKED, said("tool", "<b> and <a>")], ["<b>", "<a>"])


def test_an_opening_shows_one_video():
    check_opening([SYSTEM, ASKED])
    for messages, shown in (
        ([MORE], "no file"),
        ([ASKED, ASKED], "video_url, video_url"),
        ([said("user", Medium("image_url", "i.png"))], "image_url"),
    ):
        with pytest.raises(Unusable, match=f"the question shows {shown}") as error:
            check_opening(messages)
        assert error.value.kind == "opening"
