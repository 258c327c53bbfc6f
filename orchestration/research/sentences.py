"""Sentences of a block with their lines, and telling a sentence worth quoting from scraps, menus and code."""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import partial

from .blocks import cells_of
from .terms import STOP_WORDS

_ABBREVIATIONS = (
    "e.g.",
    "i.e.",
    "etc.",
    "vs.",
    "cf.",
    "dr.",
    "mr.",
    "no.",
    "fig.",
    "approx.",
    "resp.",
    "incl.",
    "sec.",
    "al.",
    "st.",
)
_END = re.compile(
    r"[.!?](?:[\"'”’)\]`*]{0,3})(?=\s+[\"'“(\[`*<]{0,2}[A-Z0-9]|\s+\([a-z])|[.!?](?:[\"'”’)\]`*]{0,3})\s*$"
)
_BULLET = re.compile(r"^\s*(?:[*\-+•o]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+")
#: Stands for the line breaks of a block while its markup is taken off.
_BREAK = "\ue000"
_ROW_LENGTH = 320
_FIELD = re.compile(r"^\s*:(?:param|keyword) (?:[\w.\[\], ]+ )?([*\w=.'\"]+):")
_MARKUP = [
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\]]+)\]\((?:[^()]|\([^)]*\))*\)"), r"\1"),
    (re.compile(r":[a-zA-Z][\w:+-]*:`[~!]?\.?(?:_\w+\.)?([^`<]+?)\s*(?:<[^>`]*>)?`"), r"`\1`"),
    (re.compile(r"`([^`<]+?)\s*<[^>`]*>`__?"), r"\1"),
    (re.compile(r"``([^`]+)``"), r"`\1`"),
    (re.compile(r"`([^`]+)`__?(?!\w)"), r"`\1`"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])"), r"\1"),
    (  # tags only: <package> in a manual is a placeholder
        re.compile(
            r"</?(?:a|b|i|u|p|em|tt|h[1-6]|strong|code|span|br|hr|div|img|sub|sup|kbd|pre|small|font|center|"
            r"table|t[rdh]|[uod]l|li|d[td]|picture|source|details|summary)(?:\s[^<>]{0,200})?/?>",
            re.I,
        ),
        "",
    ),
    (re.compile(r"\|([A-Za-z][\w -]*)\|"), r"\1"),
]
#: Code, in which a backslash means itself, or an escaped sign. That of `C:\\*` parts folders.
_ESCAPED = re.compile(r"`+[^`]*`+|(?<!\w:)\\([!-/:-@\[-`{-~])")
#: An escaped sign becomes one of these letters while markup is taken off, and then itself.
_PRIVATE = 0xE100
_SIGNS = {_PRIVATE + sign: sign for sign in range(128)}
_NOISE = re.compile(
    r"^(see (also|the)\b|copyright\b|all rights|click |table of contents|contents$|next:|previous|signed-off|thanks to|"
    r"for (more|further) (information|details)|for details|refer to|please (see|refer|read)|note that this file|"
    r"last (updated|modified)|edit this|home\b|this (document|section|page|chapter|file) "
    r"(describes|is|was|explains|contains|lists)|"
    r"todo\b|fixme\b|xxx\b|:param|:returns?|:raises|@param|arguments:|returns:)",
    re.I,
)
_LEANING = re.compile(
    r"^(this|that|these|those|it|they|he|she|such|however|otherwise|therefore|thus|hence|but|and|so|then|also|instead|"
    r"in (this|that|such|both|these|those) cases?|for this reason|as a result|the (former|latter|same)|if (not|so)|"
    r"both|either|neither|as such|similarly|likewise|consequently|accordingly|additionally|furthermore|moreover|"
    r"besides|for (example|instance)|along with (this|that|it))\b",
    re.I,
)
_PERSON = re.compile(r"\b(i am|i'm|i've|i'd|my|thanks|thank you|hi|hello)\b|(?<![\w/])I(?= )", re.I)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, cleaned of markup, with its first and last line, and whether it leans on the one before.

    `own`: of a row of a table the cells alone, without the heads of their columns.
    """

    text: str
    line_start: int
    line_end: int
    leans: bool
    own: str = ""


def _unmarked(match: re.Match[str], replacement: str) -> str:
    """The replacement for some markup, with as many line breaks as the markup spanned."""
    text = match.expand(replacement)
    return text + _BREAK * (match.group().count(_BREAK) - text.count(_BREAK))


def clean(line: str, escapes: bool = True) -> str:
    """Text without its inline markup (Markdown, reStructuredText, HTML), nor `escapes` of signs by backslashes."""
    escapes = escapes and "\\" in line
    if escapes:
        line = _ESCAPED.sub(lambda match: chr(_PRIVATE + ord(match[1])) if match[1] else match[0], line)
    if any(sign in line for sign in "`*[<|"):
        for pattern, replacement in _MARKUP:
            line = pattern.sub(partial(_unmarked, replacement=replacement), line)
    if line.startswith(("NB:", "Note:", "NOTE:", "Note that ")):
        line = re.sub(r"^(?:NB|Note|NOTE)(?: that|:) +(.)", lambda match: match[1].upper(), line)
    line = html.unescape(line) if "&" in line else line
    return line.translate(_SIGNS) if escapes else line


def sentences_of(lines: list[tuple[int, str]], kind: str) -> list[Sentence]:
    """The sentences of a block's lines, given as (number, text); none for code and data."""
    if kind not in ("prose", "item", "comment") or not lines:
        return []
    text, offsets, numbers = _joined(lines, escapes=kind != "comment")
    found: list[Sentence] = []
    start = 0
    for end in [*_ends(text), len(text)]:
        part = text[start:end]
        body = part.strip()
        if body:
            first = start + len(part) - len(part.lstrip())
            last = start + len(part.rstrip()) - 1
            begins = numbers[bisect_right(offsets, first) - 1]
            finishes = numbers[bisect_right(offsets, last) - 1]
            found.append(Sentence(body, begins, finishes, bool(_LEANING.match(body))))
        start = end
    return found


def row_sentences(lines: list[tuple[int, str]], heads: str) -> list[Sentence]:
    """A row of a table as statements: `name: head of the column: cell; ...`, one for each cell where that is too long.

    `heads` is the row of the table that holds the heads of its columns, empty where there is none.
    """
    number, raw = lines[0]
    cells = [" ".join(clean(cell).split()) for cell in cells_of(raw)]
    names = [" ".join(clean(name).split()) for name in cells_of(heads)]
    led = 2 if len(cells) > 2 and len(cells[0]) < 5 else 1  # a mere number is no name
    lead = " ".join(cell for cell in cells[:led] if cell)
    parts = [
        (f"{names[at]}: {cell}" if at < len(names) and names[at] else cell, cell)
        for at, cell in enumerate(cells)
        if at >= led and cell not in ("", "-", "–", "—")
    ]
    if not lead or not parts:
        return []
    whole = "; ".join(text for text, _ in parts)
    said = [(f"{lead} — {whole}", " ".join(cells))]
    if len(said[0][0]) > _ROW_LENGTH:
        said = [(f"{_shortened(lead, 140)} — {text}", f"{lead} {cell}") for text, cell in parts]
    return [
        Sentence(_shortened(text, _ROW_LENGTH), number, number, False, own)
        for text, own in said
        if len(own.split()) > 4
    ]


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0].rstrip(",;:—") + " …"


def _joined(lines: list[tuple[int, str]], escapes: bool) -> tuple[str, list[int], list[int]]:
    """The lines as one text with single blanks, and where each line begins in it."""
    raw = _BREAK.join(line for _, line in lines)
    parts = clean(_FIELD.sub(r"`\1`:", _BULLET.sub("", raw)), escapes).split(_BREAK)
    text = ""
    offsets: list[int] = []
    numbers: list[int] = []
    for (number, _), words in zip(lines, parts, strict=False):
        part = " ".join(words.split())
        if not part:
            continue
        glue = "" if not text else " "
        if re.search(r"[a-z]-$", text) and part[:1].islower() and not re.search(r"\b(non|self|re|pre|so|by)-$", text):
            text, glue = text, ""  # a compound or a word broken at the line's end; the hyphen may be either's
        offsets.append(len(text) + len(glue))
        numbers.append(number)
        text += glue + part
    return text, offsets or [0], numbers or [lines[0][0]]


def _ends(text: str) -> list[int]:
    ends = []
    for match in _END.finditer(text):
        word = text[: match.start() + 1].rsplit(" ", 1)[-1].lower().lstrip("(\"'")
        if word not in _ABBREVIATIONS and not re.fullmatch(r"[a-z]\.", word):
            ends.append(match.end())
    return [end for end in ends if end < len(text)]


def worth_quoting(text: str, kind: str) -> bool:
    """True for a whole, readable sentence; a list item may lack its full stop, nothing may lack sense."""
    count = len(text.split())
    if not 6 <= count <= 60 or len(text) > 480 or _NOISE.match(text):
        return False
    ended = bool(re.search(r"[.!][\"'”’)\]`]{0,3}$", text))
    if not ended and (kind != "item" or re.search(r"[:,;(\-–—/?]$", text)):
        return False
    # A sentence may begin with a name: "git rebase" learned ..., `x` is ..., task_acks_late means ...
    if not re.match(r"[\"'“‘(\[`]*[A-Z0-9À-Þ`]|[\"'“‘`]\w", text) and not re.match(r"[a-z_]+[_.(-][\w]", text):
        return False
    if re.match(r"\d+[.)\s]|\(?\d", text) and not re.match(r"\d+ [a-z]", text):
        return False
    letters = sum(character.isalpha() or character == " " for character in text)
    digits = sum(character.isdigit() for character in text)
    signs = sum(text.count(sign) for sign in "|{}<>=\\$;#~^@")
    if letters < 0.65 * len(text) or letters + digits < 0.8 * len(text) or signs > max(2, len(text) // 45):
        return False
    if re.search(r"\bsee (also )?(the )?`|\b(above|below|following)[:.]$|``", text, re.I):
        return False  # it points elsewhere
    if re.search(r"\w(?:Error|Exception|Warning): ", text):
        return False  # a list of what a function raises
    if text.count(": ") > 2 or re.search(
        r"\((?:bool|int|str|float|list|dict|tuple|callable|Any|None|\d+)[^)]*\):", text
    ):
        return False  # a list of parameters or of changes run together
    little = sum(word.lower().strip(".,:;()") in STOP_WORDS for word in text.split())
    if little < max(2, count // 8):
        return False
    balanced = text.count("(") == text.count(")") and text.count("`") % 2 == 0 and text.count('"') % 2 == 0
    return balanced and not _PERSON.search(text) and "..." not in text and "…" not in text


def is_plain(text: str) -> bool:
    """True for a short plain sentence, worth quoting only where it says all that is asked: `Acme sells cocoa.`"""
    if not 3 <= len(text.split()) <= 12 or _NOISE.match(text) or _PERSON.search(text):
        return False
    return bool(re.fullmatch(r"[A-ZÀ-Þ][^|{}<>=\\$;#~^@`\n]*[.!]", text)) and "..." not in text
