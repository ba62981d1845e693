r"""Which options of a multiple-choice question a text names: letters in any usual form, or text.

Used by the answer term only. In order, the first that says something decides:

1. the whole text is a letter ("(B)", "**B**", "\boxed{B}") or the text of an option;
2. it starts with a letter that stands as an answer ("B. a blue car, not a red car", "B seems
   right"): what follows is explanation, unless it takes the letter back;
3. it claims one ("the answer is B", "정답은 B");
4. all letters and option texts that it names anywhere.

Negated ones ("not B", "rather than a red car") are not named; "A" and "I" count only where they
cannot be the article or the pronoun. A text that names two options names no answer. The work is
proportional to the text. Tests: `pytest tests/rewards/test_choice.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from paravt_env.rewards.terms.folding import CJK, folded
from paravt_env.task import OPTION_LETTERS

MAX_CLAIMS = 1000
"""Claims of one answer that are compared; a text of more says nothing anyhow."""

_OPEN, _CLOSE = r"[\s()\[\]{}<>\"'.,:;!。、「」『』【】《》]*", r"[)\]}>\"'」』】》]"
_ALONE = re.compile(rf"{_OPEN}([A-Ja-j]){_OPEN}")
_ENDS = rf"(?=$|[.,;:!?。、]|{_CLOSE})"
_FEW = _OPEN.replace("]*", "]{0,6}")
_AFTER = r"(?![\w+#])(?!['-]\w)(?!\.\w\.)"
"""What cannot follow a letter: as a word, a grade's sign, a contraction, a compound, "e.g."."""

_LIKE_VERBS = (
    "is|isn't|seems|looks|appears|shows|fits|matches|describes|explains|answers|states|says|stands|"
    "works|makes|gives|captures|reflects|best (?:fits|matches|describes|explains|shows|answers)"
)
_CONNECTS = "because|since|as|due|given|from|here|based|for|then|too|it|he|she|they|we|this|that"
_FOLLOWS_I = rf"(?:{_LIKE_VERBS}|because|since|as|due|given|for|it|he|she|they|we)\b"
_FOLLOWS_A = (
    rf"(?:{_LIKE_VERBS}|{_CONNECTS}|was|has|would|will|can|could|should|must|may|might|does|doesn't|"
    r"in|on|at|by|with|to|if|when|while|where|which|who|there|and|or|but|so|not|you|these|those)\b"
)
_CUE_WORDS = "with|is|be|looks like|choose|pick|select|say|take|guess|prefer|chose|selected|picked"

_LETTERS = (
    # a capital in prose, not part of a word, an abbreviation, a compound or a contraction
    re.compile(rf"(?<!\w)(?<!\w[.'-])([B-HJ]){_AFTER}"),
    # "A" and "I" where a sentence or a bracket ends, and where no noun follows "a", no verb "I"
    re.compile(
        rf"(?<!\w)(?<!\w[.'-])([AI])(?!\.\w\.)(?!'\w)"
        rf"(?:{_ENDS}|(?= ?[-(] )|(?= [A-J](?!\w))|(?= [{CJK}])|(?= [^\w ]))"
    ),
    re.compile(rf"(?<!\w)(?<!\w[.'-])(A)(?= {_FOLLOWS_A})"),
    re.compile(rf"(?<!\w)(?<!\w[.'-])(I)(?= {_FOLLOWS_I})"),
    # inside a sentence the article is no capital, unless all words are
    re.compile(r"(?<=[a-z,] )(A)(?= [^\WA-Z])(?! \w+ [A-Z])"),
    re.compile(rf"(?i:\b(?:{_CUE_WORDS})) (I)(?= (?:{_CONNECTS}|in|and|or|to)\b)"),
    re.compile(r"[(\[{]([a-j])[)\]}]"),
    re.compile(r"^([a-j])[).:](?!\S)"),
    re.compile(rf"\b(?i:option|choice|letter)s?(?: is|[-: #=]){{0,4}}{_FEW}([A-J]){_AFTER}"),
    re.compile(
        rf"\b(?i:option|choice|answer|letter)(?: is|:| ){{0,4}}[(\[{{\"']{{0,4}}([a-j]){_ENDS}"
    ),
)
_LETTER = rf"[(\[{{\"'「【]{{0,4}}([A-J])(?:[)\]}}\"'」】]{{1,4}}|{_AFTER})"
_CLAIM = re.compile(
    r"(?:\b(?i:answer|answer choice|correct (?:option|choice|letter|one)|best (?:option|choice))"
    r"(?: (?i:option|choice|letter))?(?: (?i:is|would be|must be|should be|has to be|will be))?"
    r" ?[:=]? ?(?:(?i:option|choice|letter)[ -])?"
    r"|(?:[选選]项?|答案|正解|答え|정답|답)(?:应该|應該)?[ 是为為選选择は은이가:]{0,6})"
    rf" ?{_LETTER}"
)
_MORE = re.compile(
    rf" ?(?:(?:,|/|&|\+|\b(?i:and|or|nor)\b|[或和及]) ?){{1,3}}(?i:option |choice )?{_LETTER}"
)
_NEGATED = re.compile(
    r"(?:\b(?i:not|isn't|never|neither|nor|cannot be|can't be|rather than|instead of|except|"
    r"excluding|exclude|excludes|eliminate|eliminates|rule out|rules out|ruling out|ruled out|"
    r"unlike|than)(?: (?i:be|the|an?|for|with|option|options|choice|answer|letter|say|pick))*"
    rf"|不是|不选|不選|并非|排除) ?{_LETTER}"
)
_DENIED = re.compile(
    rf"(?<!\w){_LETTER} (?i:is|was|are|seems|looks)(?:n't| not|(?: \w+)?(?= (?i:wrong|incorrect|"
    r"false|impossible|ruled|eliminated|excluded)\b))(?: \w+)?"
)
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|isn't|never|neither|nor|rather than|instead of|except|excluding|unlike)"
    r"(?: (?:a|an|the|it|is|was|be|in|on|at|of|to|option|just))*|不是|并非|不)[ \"'(]*$",
    re.IGNORECASE,
)
_LEAD = re.compile(
    rf"{_OPEN}(?:([A-Ja-j])(?:{_CLOSE}+[.:]?(?=\s|$|[^\w\s])|[.:](?=\s|$|[{CJK}\"'(])|[。、]|[!?]"
    rf"|\s*\n|\s+-+\s|\s*-{{2,}}|\s*=+>?)|([A-J])(?:,(?=\s)|\s*\((?=\w{{2}}|\w\s)|\s+(?=[{CJK}])))"
)
_LEAD_VERB = re.compile(
    rf"{_OPEN}(?:([B-HJ]){_CLOSE}*\s(?=(?:{_LIKE_VERBS}|{_CONNECTS}|was|has|would|will)\b)"
    rf"|(A){_CLOSE}*\s(?={_FOLLOWS_A})|(I){_CLOSE}*\s(?={_FOLLOWS_I}))"
    r"(?!(?i:and|or|but|not|so|is not|isn't|in|on|at|by|with|to)\b)(?!(?i:is|was|seems|looks)"
    r"(?: \w+)? (?i:wrong|incorrect|false|impossible|not|ruled|eliminated|excluded)\b)"
)
_TAKES_BACK = re.compile(
    rf"{_FEW}(?i:(?:(?:or|and|also|maybe|perhaps|possibly|alternatively|either)\b|[,/&]) ?){{0,4}}"
    rf"(?i:option |choice )?(?:{_LETTER}(?= ?(?:$|[.,;:/&!?)]|(?i:or|and)\b)))"
)
_MARKS = re.compile(r"[*`~]+|(?<![^\W_])_+|_+(?![^\W_])")
_BOXED = re.compile(r"\\boxed ?\{([^{}]*)\}")
_MACRO = re.compile(r"\\(?:text|textbf|mathrm|mathbf|bf)? ?\{([^{}]*)\}")
_BESIDE_CJK = re.compile(rf"(?<=[{CJK}])(?=[A-J](?![A-Za-z]))|(?<=[A-J])(?=[{CJK}])")


def named_options(text: str, options: Sequence[str]) -> frozenset[str]:
    """The letters of all options that `text` names.

    Args:
        text: An answer; white space does not matter, but that a line's end ends a letter.
        options: The option texts in order, without letters.

    Returns:
        Letters "A".."J"; such as no option has only where no other is named. One option is named
        when there is one letter.

    >>> options = ("a red car", "a blue car", "nothing")
    >>> [sorted(named_options(t, options)) for t in ("b", "(B) a blue car", "The answer is C.")]
    [['B'], ['B'], ['C']]
    >>> sorted(named_options("B. a blue car, not a red car", options))
    ['B']
    >>> sorted(named_options("C. The answer is A. Option B", options))
    ['A', 'B', 'C']
    """
    found = _named(_cleaned(text), options)
    return found & set(OPTION_LETTERS[: len(options)]) or found


def _named(text: str, options: Sequence[str]) -> frozenset[str]:
    texts = {
        letter: _plain(option) for letter, option in zip(OPTION_LETTERS, options, strict=False)
    }
    line = " ".join(text.split())
    alone = _ALONE.fullmatch(line)
    if alone and (alone[1].upper() in texts or not options):
        return frozenset(alone[1].upper())
    plain = _plain(line)
    if exact := frozenset(letter for letter, option in texts.items() if option == plain):
        return exact
    if alone:
        return frozenset(alone[1].upper())
    everything = frozenset(_anywhere(line, texts))
    lead = _LEAD.match(text) or _LEAD_VERB.match(text)
    if lead is not None:
        letter = next(filter(None, lead.groups())).upper()
        rest = " ".join(text[lead.end() :].split())
        return frozenset(letter) if _stands(letter, rest, texts) else everything | {letter}
    claims = list(islice(_claims(line), MAX_CLAIMS))
    claimed = frozenset(letter for letter, _ in claims)
    if len(claimed) == 1 and _stands(*claims[-1], texts, later_claims=False):
        return claimed
    return everything


def _stands(letter: str, rest: str, texts: Mapping[str, str], later_claims: bool = True) -> bool:
    """Whether what follows a letter leaves it the answer.

    It does not where it copies another option's text, names another letter at once, or says
    later that the answer is another one.
    """
    plain = _plain(rest)
    starts = [other for other, option in texts.items() if _begins(plain, option)]
    longest = max((len(texts[other]) for other in starts), default=0)
    own = [other for other in starts if len(texts[other]) == longest]
    if letter in own:
        return not later_claims or _agrees(letter, rest[longest:])
    if any(_copies(plain, texts[other]) for other in own):
        return False
    back = _TAKES_BACK.match(rest)
    if back is not None and next(filter(None, back.groups())) != letter:
        return False
    return not later_claims or _agrees(letter, rest)


def _agrees(letter: str, rest: str) -> bool:
    return all(claimed == letter for claimed, _ in _claims(rest))


def _begins(plain: str, option: str) -> bool:
    return bool(option) and plain.startswith(option) and not plain[len(option) :][:1].isalnum()


def _copies(plain: str, option: str) -> bool:
    """Whether a text starts with an option as one copies it: up to its end or a stop."""
    after = plain[len(option) :]
    return not after or after[0] in ".,;:!?)"


def _claims(line: str) -> Iterator[tuple[str, str]]:
    """The letters that a text says to be the answer, each with what follows it."""
    for match in _CLAIM.finditer(line):
        letter, end = match[1], match.end()
        after = line[end : end + 80]
        if letter in "AI" and re.match(r" [a-z]", after):
            follows = _FOLLOWS_A if letter == "A" else rf"(?:{_FOLLOWS_I}|(?:{_CONNECTS})\b)"
            if not re.match(rf" {follows}", after):
                continue  # the article, or the pronoun
        yield letter, line[end : end + 1000]
        while (more := _MORE.match(line, end)) is not None:
            end = more.end()
            yield more[1], ""


def _anywhere(line: str, texts: Mapping[str, str]) -> Iterator[str]:
    """The letters and option texts that stand anywhere, without those that are negated."""
    line = _DENIED.sub("_", _without_negated(line))
    # The longest first: "dark blue" does not name "blue". What is found is blanked, so that the
    # article in "B. A red car" is not read as a letter.
    for letter, option in sorted(texts.items(), key=lambda item: -len(item[1])):
        if not option or _ALONE.fullmatch(option):
            continue
        named = False

        def blank(match: re.Match[str]) -> str:
            nonlocal named
            named = named or not _NOT_BEFORE.search(match.string[: match.start()][-40:])
            return "_"

        signed = "+-" if option[0].isdecimal() else ""
        pattern = rf"(?<![\w{signed}])(?<!\d\.){re.escape(option)}(?!\w)(?!\.\d)"
        line = re.sub(pattern, blank, line, flags=re.IGNORECASE)
        if named:
            yield letter
    for pattern_ in _LETTERS:
        for match in pattern_.finditer(line):
            yield match[1].upper()


def _without_negated(line: str) -> str:
    """A text without "not B", and without the letters that continue it ("nor C")."""
    kept, position = [], 0
    for match in _NEGATED.finditer(line):
        if match.start() < position:
            continue
        end = match.end()
        while (more := _MORE.match(line, end)) is not None and "," not in more[0]:
            end = more.end()
        kept.append(line[position : match.start()])
        position = end
    return "_".join([*kept, line[position:]])


def _cleaned(text: str) -> str:
    """One spelling a character, no emphasis, no LaTeX, a space between scripts."""
    text = _BOXED.sub(r" Answer: \1 ", folded(text))
    text = _MARKS.sub("", _MACRO.sub(r"\1", text))
    return _BESIDE_CJK.sub(" ", text).strip()


def _plain(text: str) -> str:
    return " ".join(_MARKS.sub("", folded(text)).split()).strip(" .,:;!\"'`*。").casefold()
