"""Secrets in running text: the shipped patterns, and a check that a pattern of one's own cannot take for ever.

All shipped patterns take time in proportion to the text: each begins where a word begins and repeats so often at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ...errors import SettingsError

#: What stands in the place of a secret.
REDACTED: Final = "[redacted]"
#: In how many ways a pattern may match at one place; more could take longer than anybody waits.
MOST_WAYS: Final = 1000
#: A repeat without an end counts as so many.
ENDLESS: Final = 10_000

#: Gives what stands in the place of a secret.
Instead = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Text:
    """A pattern: the group `secret` of each match (or all of it) is taken out.

    `needles` are lower-case words of which a text must hold one, or nothing in it can match; none: every text may.
    """

    name: str
    pattern: re.Pattern[str]
    needles: tuple[str, ...]

    def sub(self, text: str, instead: Instead) -> str:
        """The text without what matches."""
        group = "secret" if "secret" in self.pattern.groupindex else 0

        def put(match: re.Match[str]) -> str:
            if match.start(group) < 0:
                return match[0]
            before = text[match.start() : match.start(group)]
            return f"{before}{instead(match[group])}{text[match.end(group) : match.end()]}"

        return self.pattern.sub(put, text)


class PrivateKey:
    """Private keys in PEM: from their first line to their last, or to the end of the text where that is missing."""

    name = "private-keys"
    needles = ("private key-----",)
    _begin = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----")
    _end = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----")

    def sub(self, text: str, instead: Instead) -> str:
        """The text without private keys."""
        parts, at = [], 0
        while begin := self._begin.search(text, at):
            end = self._end.search(text, begin.end())
            parts += [text[at : begin.start()], instead(text[begin.start() : end.end() if end else len(text)])]
            at = end.end() if end else len(text)
        return "".join([*parts, text[at:]]) if parts else text


def _texts(name: str, *patterns: tuple[str, str]) -> tuple[Text, ...]:
    return tuple(Text(name, re.compile(p), tuple(needles.split())) for p, needles in patterns)


_WORD: Final = r"(?<![A-Za-z0-9_-])"
_NAMES: Final = (
    r"pass(?:word|wd|phrase)|pwd|secret|(?:access|auth|api|refresh|id)[_-]?token|token|credentials?|"
    r"(?:api|access|private|secret|encryption)[_-]?key|authorization"
)

#: The shipped patterns by name.
SHIPPED: Final[dict[str, tuple[Text | PrivateKey, ...]]] = {
    "private-keys": (PrivateKey(),),
    "api-keys": _texts(
        "api-keys",
        (_WORD + r"sk-[A-Za-z0-9_-]{16,300}", "sk-"),
        (_WORD + r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,300}", "k_live_ k_test_"),
        (_WORD + r"gh[pousr]_[A-Za-z0-9]{30,300}", "ghp_ gho_ ghu_ ghs_ ghr_"),
        (_WORD + r"github_pat_[A-Za-z0-9_]{20,300}", "github_pat_"),
        (_WORD + r"glpat-[A-Za-z0-9_-]{16,300}", "glpat-"),
        (_WORD + r"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])", "akia asia"),
        (_WORD + r"AIza[0-9A-Za-z_-]{30,60}", "aiza"),
        (_WORD + r"xox[abeoprs]-[A-Za-z0-9-]{10,300}", "xox"),
        (_WORD + r"(?:hf|npm)_[A-Za-z0-9]{30,80}", "hf_ npm_"),
        (_WORD + r"pypi-[A-Za-z0-9_-]{50,400}", "pypi-"),
        (_WORD + r"SG\.[A-Za-z0-9_-]{16,40}\.[A-Za-z0-9_-]{20,80}", "sg."),
    ),
    "bearer-tokens": _texts(
        "bearer-tokens",
        (r"(?i)(?<![a-z])(?:bearer|basic)\s{1,4}(?P<secret>[a-z0-9._~+/=-]{8,8000})", "bearer basic"),
        (_WORD + r"eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{4,8000}(?:\.[A-Za-z0-9_-]{0,4000})?", "eyj"),
    ),
    "url-passwords": _texts(
        "url-passwords",
        (r"://[^\s:/@\"'<>]{0,200}:(?P<secret>(?!\d{1,5}/|\*{3}@)[^\s\"'<>]{1,400})@", "://"),
    ),
    "assignments": _texts(
        "assignments",
        (
            rf"(?i)(?:{_NAMES})\\?[\"']?\s{{0,4}}(?:=>|[:=])\s{{0,4}}\\?[\"']?(?:(?:basic|bearer|token)\s{{1,4}})?"
            r"(?P<secret>[^\s\"',;&)}\]]{3,2000})",
            "pass pwd secret token credential key authorization",
        ),
    ),
    "emails": _texts(
        "emails",
        (r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}", "@"),
    ),
}
#: What is taken out of error texts and log lines where nothing is set.
USUAL: Final = ("private-keys", "api-keys", "bearer-tokens", "url-passwords", "assignments")


def own(name: str, pattern: str, where: str) -> Text:
    """A pattern of one's own. Raises SettingsError for one that is none, matches nothing at all, or could take long."""
    try:
        compiled = re.compile(pattern)
        tree = re._parser.parse(pattern)  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError) as fault:
        raise SettingsError(f"{where}: {pattern!r:.80} is not a regular expression: {fault}") from None
    if compiled.match(""):
        raise SettingsError(f"{where}: {pattern!r:.80} matches text of no length; it would match everywhere")
    ways = _ways(tree, last=True)
    if ways > MOST_WAYS:
        raise SettingsError(
            f"{where}: {pattern!r:.80} could take very long: it can match in more than {MOST_WAYS} ways at one place; "
            "bound its repeats, as in {1,20}, and nest none"
        )
    ignores_case = bool(compiled.flags & re.IGNORECASE)
    return Text(name, compiled, _needles(tree, ignores_case))


def _ways(tree: Any, last: bool) -> int:
    """How many ways there are, at most, to match a pattern at one place. `last`: nothing comes after it, so that a
    repeat at its end is never tried again.
    """
    ways, items = 1, list(tree)
    for place, (code, argument) in enumerate(items):
        ways *= _ways_of(str(code), argument, last and place == len(items) - 1)
        if ways > MOST_WAYS:
            return ways
    return ways


def _ways_of(code: str, argument: Any, last: bool) -> int:
    if code in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = argument
        once = _ways(inner, last=False)
        count = min(int(most), ENDLESS)
        if once > 1:
            return MOST_WAYS + 1 if count > 10 else sum(min(once, MOST_WAYS) ** n for n in range(int(least), count + 1))
        simple = all(str(c) in ("LITERAL", "NOT_LITERAL", "IN", "ANY") for c, _ in inner) and len(inner) == 1
        return 1 if last and simple and code == "MAX_REPEAT" else count - int(least) + 1
    if code == "BRANCH":
        return sum(_ways(one, last) for one in argument[1])
    if code == "SUBPATTERN":
        return _ways(argument[-1], last)
    if code == "ATOMIC_GROUP":
        return _ways(argument, last=False)
    if code in ("ASSERT", "ASSERT_NOT"):
        return _ways(argument[1], last=False)
    return MOST_WAYS + 1 if code.startswith("GROUPREF") else 1


def _needles(tree: Any, ignores_case: bool) -> tuple[str, ...]:
    """The longest run of plain ASCII letters, digits and signs that every match holds, in lower case."""
    runs = list(_runs(tree))
    found = max(runs, key=len, default="")
    if len(found) < 2 or ignores_case and not found.isascii():
        return ()
    return (found.lower(),)


def _runs(tree: Any) -> Iterator[str]:
    """Runs of characters of which each match holds all; none that JSON would write in another way."""
    run = ""
    for code, argument in tree:
        if str(code) == "LITERAL" and 32 < argument < 127 and chr(argument) not in '"\\':
            run += chr(argument)
            continue
        yield run
        run = ""
    yield run
