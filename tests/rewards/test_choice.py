"""Options as models name them: every form with every letter."""

import pytest
from support.endless import ends

from paravt_env.rewards.terms.choice import named_options

TEN = tuple(f"thing number {i}" for i in range(10))
FORMS = [
    "{L}", "({L})", "{L}.", "{L})", "[{L}]", "<{L}>", "{L}!", '"{L}"', "**{L}**", "_{L}_", "`{L}`",
    "\\boxed{{{L}}}", "Thus \\boxed{{\\text{{{L}}}}}", "\uff08{L}\uff09", "{L}\u3002", "{F}",
    "\uff08{F}\uff09", "{F}\u3002", "\u9009{L}", "\u9009 {L}", "\u9009\u9879{L}",
    "\u7b54\u6848\u662f{L}", "\u6b63\u786e\u7b54\u6848\u662f\uff1a{L}", "\u7b54\u6848\uff1a{F}",
    "\uc815\ub2f5\uc740 {L}", "\uc815\ub2f5: {L}", "\u7b54\u3048\u306f{L}\u3067\u3059",
    "Option {L}", "Option-{L}", "Option {L} shows it best", "Choice {L}", "Letter {L}.",
    "The answer is {L}", "The answer is {L}.", "The answer is: {L}", "The answer is option {L}",
    "The answer is {L} as he turns the key", "The answer is ({L}) he turns the key",
    "The correct answer is {L} because he turns the key", "Answer: {L}", "Answer={L}",
    "Final answer: ({L})", "The answer should be {L}", "My choice is {L}",
    "The correct option would be {L}, since he turns the key",
    "The best option is {L} given the frames", "{L} - he turns the key",
    "{L} \N{EN DASH} he turns the key", "{L} \N{EM DASH} he turns the key",
    "{L} (he turns the key)", "{L}: he turns the key", "{L}, because he turns the key",
    "{L}. He turns the key, and the door opens", "{L}) he turns the key", "({L}) he turns the key",
    "{L} seems right", "{L} is correct", "{L} because he turns the key", "{L} it is",
    "{L} fits best", "{L} best describes it", "{L} for sure",
    "{L}\n\nExplanation: he turns the key in frame 3", "{L}\nbecause he turns the key",
    "I think {L} is right", "I would go with {L} here", "I choose {L} in the end",
    "It must be {L}.",
    "So it's {L}", "Hence {L}.", "Looks like {L} to me", "Definitely {L}",
    "I'm confident it's {L}, not a guess", "{l}", "({l})", "the answer is {l}.", "option {l}",
    "{l}) he turns the key", "{l}. he turns the key",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_with_every_letter(form):
    for letter in "ABCDEFGHIJ":
        fullwidth = chr(ord(letter) + 0xFEE0)
        text = form.format(L=letter, l=letter.lower(), F=fullwidth)
        assert named_options(text, TEN) == {letter}, text


XYZ = ("x1", "y1", "z1")


@pytest.mark.parametrize(
    ("text", "options", "named"),
    [
        # a leading letter commits
        ("B. a blue car, not a red car", ("a red car", "a blue car"), "B"),
        ("B. Yes, no doubt", ("No", "Yes", "Maybe"), "B"),
        ("B. A woman holding a child", ("a man", "a woman holding a child", "a child"), "B"),
        ("B. A woman holding a child", ("a man", "a woman", "a child"), "B"),
        ("B. Two people (one adult, one child)", ("one", "two people", "three"), "B"),
        ("B\n\nExplanation: the key is seen in frame C", XYZ, "B"),
        ("B. Option A is wrong, and C shows another room", XYZ, "B"),
        ("B because frame C shows it", XYZ, "B"),
        # and is taken back by another one, by another's text, by another answer
        ("B. red", ("red", "blue"), "AB"),
        ("B. or C.", XYZ, "BC"),
        ("A. B. C", XYZ, "ABC"),
        ("B or C", XYZ, "BC"),
        ("A B", XYZ, "AB"),
        ("A or B", XYZ, "AB"),
        ("The answer is B or C", XYZ, "BC"),
        ("C. The answer is A. Option B", XYZ, "ABC"),
        # a claim goes before what else is named
        ("Looking at A and B, the key is turned. The answer is C.", XYZ, "C"),
        # what is negated is not named
        ("not B", XYZ, ""),
        ("It is not B", XYZ, ""),
        ("The answer is not B", XYZ, ""),
        ("It isn't option B", XYZ, ""),
        ("B is not right", XYZ, ""),
        ("B is wrong, so C", XYZ, "C"),
        ("not B but C", XYZ, "C"),
        ("B, not C", XYZ, "B"),
        ("neither A nor B", XYZ, ""),
        ("rather than B, C", XYZ, "C"),
        ("I rule out A and B, so C", XYZ, "C"),
        ("\u4e0d\u662fB", XYZ, ""),
        ("a blue car, not a red car", ("a red car", "a blue car"), "B"),
        # a copied option is that option
        ("A. He\u2019s in gate C", ("He's in gate C", "gate C", "gate"), "A"),
        ("He's in gate C", ("He\u2019s in gate C", "gate C", "gate"), "A"),
        ("\u201cgate C\u201d", ("gate A", 'the "gate C"', "gate C"), "C"),
        ("A. C", ("C", "A", "B"), "A"),
        ("B. A", ("C", "A", "B"), "B"),
        ("C", ("C", "A", "B"), "C"),
        ("D", ("x", "D"), "B"),
        ("C++", ("C", "C++"), "B"),
        ("-5", ("5", "-5"), "B"),
        ("it is -5", ("5", "7"), ""),
        # equal options: the letter decides
        ("B. red", ("red", "red", "blue"), "B"),
        ("red", ("red", "red", "blue"), "AB"),
        # letters past the options
        ("B. Vitamin E, see frame H", XYZ, "B"),
        ("I see H and B", ("x1", "y1"), "B"),
        ("E", XYZ, "E"),
        # no letters
        ("The answer is a man", TEN, ""),
        ("Answer: A man walks", TEN, ""),
        ("Answer: I am sure", TEN, ""),
        ("I think so", TEN, ""),
        ("E.g. this", TEN, ""),
        ("A.M.", TEN, ""),
        ("B-roll", TEN, ""),
        ("A+", TEN, ""),
    ],
)  # fmt: skip
def test_what_a_text_names(text, options, named):
    assert named_options(text, options) == set(named)


HOSTILE = [
    "A ", "B. ", "x", " ", "\\boxed{", "option ", "the answer is ", "answer: B ", "(", "_", "not ",
    "B or ", "not B nor C ", "B is ", "-", "\\{", "B\n", "\u9009B", "I ", "\ud800", "\x00", "*",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_megabytes_are_read_in_time_that_grows_with_them(piece):
    text = piece * (500_000 // len(piece))
    for hostile in (text, "B" + text, f"answer{text}B"):
        with ends():
            assert named_options(hostile, TEN) <= set("ABCDEFGHIJ")


def test_ten_thousand_letters_name_no_single_option():
    assert named_options("A B " * 5_000, TEN) == {"A", "B"}
