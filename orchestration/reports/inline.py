"""Inline Markdown as a flat run of pieces, and the cleaning that every text of a report goes through.

The parser knows bold, italics, code, links (http, https, mailto) and citations such as `[3]`; HTML, images and blocks
are plain text to it. What comes out is balanced and names no source that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

Kind = Literal["text", "code", "cite", "strong", "em", "link", "end"]

_CITATION = re.compile(r"\[([0-9]{1,9})\]")
_ALLOWED_LINK = re.compile(r"(https?://|mailto:)\S", re.IGNORECASE)
_OPENS: dict[str, Kind] = {"strong_open": "strong", "em_open": "em", "link_open": "link"}
_CLOSES = {"strong_close": "strong", "em_close": "em", "link_close": "link"}

# Bidirectional controls can make a line read as something else than it is ("Trojan Source"), so they go.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_NEWLINE = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# What no output format can carry: control characters, lone surrogates, noncharacters.
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

# Words longer than this get places to break at. Scripts past U+058F have rules of their own or break anywhere.
_LONG_WORD = re.compile("[!-~\u00a1-\u02ff\u0370-\u058f]{21,}")
_CHUNK = re.compile(r"[^/\\_.:,;=&?@+|-]{1,12}[/\\_.:,;=&?@+|-]?|[/\\_.:,;=&?@+|-]")


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of inline text.

    `text` and `code` carry their text; `cite` its number; `strong`, `em` and `link` open a span (`link` with its
    address as text); `end` closes the span that its text names.
    """

    kind: Kind
    text: str = ""
    number: int = 0


def clean(text: str) -> str:
    """Give `text` without characters that cannot be shown; lines end in `\\n`, tabs become four spaces."""
    text = _NEWLINE.sub("\n", _BIDI.sub("", text)).expandtabs(4)
    return _UNPRINTABLE.sub("\ufffd", text)


def clean_line(text: str) -> str:
    """Give `text` cleaned and on one line, runs of white space as one space."""
    return " ".join(clean(text).split())


def breakable(text: str) -> list[str]:
    """Cut `text` where a long word (a path, a hash) may be broken across lines; joined, the parts give `text` again."""
    parts = [""]
    at = 0
    for word in _LONG_WORD.finditer(text):
        first, *others = _CHUNK.findall(word[0])
        parts[-1] += text[at : word.start()] + first
        parts += others
        at = word.end()
    parts[-1] += text[at:]
    return parts


def parse(text: str, numbers: Collection[int]) -> list[Piece]:
    """Parse inline Markdown; `[n]` becomes a citation if `n` is in `numbers`, and stays plain text otherwise."""
    tokens = _parser().parseInline(clean_line(text))[0].children or []
    pieces: list[Piece] = []
    for piece in _pieces(tokens, numbers):
        if pieces and piece.kind == pieces[-1].kind == "text":  # an escaped sign is a token of its own
            pieces[-1] = Piece("text", pieces[-1].text + piece.text)
        else:
            pieces.append(piece)
    return pieces


def plain(text: str) -> str:
    """Give the text of inline Markdown without its marks; citations keep their brackets."""
    return "".join(piece.text for piece in parse(text, ()) if piece.kind in ("text", "code"))


def _pieces(tokens: list[Token], numbers: Collection[int]) -> Iterator[Piece]:
    in_link = False
    for token in tokens:
        if token.type in _OPENS:
            in_link = in_link or token.type == "link_open"
            yield Piece(_OPENS[token.type], str(token.attrs.get("href", "")))
        elif token.type in _CLOSES:
            in_link = in_link and token.type != "link_close"
            yield Piece("end", _CLOSES[token.type])
        elif token.type == "code_inline":
            yield Piece("code", token.content)
        elif token.type == "text" and not in_link:
            yield from _citations(token.content, numbers)
        elif token.content:
            yield Piece("text", token.content)


def _citations(text: str, numbers: Collection[int]) -> Iterator[Piece]:
    at = 0
    for found in _CITATION.finditer(text):
        number = int(found[1])
        if number not in numbers:
            continue
        if found.start() > at:
            yield Piece("text", text[at : found.start()])
        yield Piece("cite", number=number)
        at = found.end()
    if at < len(text):
        yield Piece("text", text[at:])


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("zero").enable(["escape", "entity", "backticks", "emphasis", "link", "autolink"])
    # Without the join, an escaped bracket stays a token of its own: `\[3\]` is never taken for a citation.
    parser.core.ruler.disable("text_join", ignoreInvalid=True)
    parser.validateLink = lambda url: _ALLOWED_LINK.match(url) is not None  # type: ignore[method-assign]
    return parser
