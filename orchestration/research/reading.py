"""Reading one document, whatever its format, into passages."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath

from .blocks import Block, Passage, data_blocks, passages_of, prose_blocks
from .files import Unreadable, read_bytes, read_text
from .markup import html_blocks
from .source import comment_blocks, python_blocks
from .windows import numbered_lines

_HTML = {".html", ".htm", ".xhtml"}
_DATA = {
    ".json",
    ".toml",
    ".yaml",
    ".yml",
    ".csv",
    ".tsv",
    ".ini",
    ".cfg",
    ".conf",
    ".xml",
    ".jsonl",
    ".properties",
    ".env",
}
_SOURCE = set(
    ".c .h .cc .cpp .hpp .rs .go .java .js .ts .tsx .jsx .rb .sh .bash .zsh .pl .pm .lua .sql .kt .swift .cs .php .r"
    " .jl .scala .hs .ml .el .lisp .clj .ex .exs .erl .tcl .awk .vim .css .scss .cmake .mk .pyx .pxd".split()
)
#: Files whose names mean something only where they stand.
SOURCE_SUFFIXES = frozenset((*_SOURCE, ".py", ".pyi"))
_PDF_HEADING = re.compile(r"[A-Z]|\d+(\.\d+)*\.? [A-Z]")
_METADATA = {"METADATA", "PKG-INFO"}


@dataclass(slots=True)
class Document:
    """A document that was read: its title, its passages, and a digest of its text."""

    path: str
    title: str
    passages: list[Passage]
    digest: str


def read_document(path: str, wanted: list[list[str]] | None = None, least: int = 1) -> Document | None:
    """Read a document. With `wanted`, groups of lower case strings, None for one whose text holds strings of fewer
    than `least` of the groups; of a long plain text only the stretches around them are taken. The same arguments give
    the same passages.

    Raises Unreadable with the reason.
    """
    name = PurePath(path.removesuffix(".gz"))
    suffix = name.suffix.lower()
    if suffix == ".pdf":
        text, blocks = _pdf_blocks(path)
        title = ""
    else:
        text = read_text(path)
        title, blocks = "", []
    if wanted is not None:
        lower = text.lower()
        if sum(any(part in lower for part in group) for group in wanted) < least:
            return None
    if suffix != ".pdf":
        title, blocks = _blocks_of(text, name.name, suffix, numbered_lines(text, wanted, least))
    passages = passages_of(blocks)
    if not passages:
        raise Unreadable("no text in it")
    digest = hashlib.blake2b(" ".join(text.split()).encode("utf-8", "replace"), digest_size=12).hexdigest()
    return Document(path, title or _title_of(blocks, path, name.name, suffix), passages, digest)


def _blocks_of(text: str, name: str, suffix: str, lines: list[tuple[int, str]]) -> tuple[str, list[Block]]:
    if suffix in _HTML or text[:200].lstrip().lower().startswith(("<!doctype html", "<html")):
        return html_blocks(text)
    if suffix in (".py", ".pyi"):
        return "", python_blocks(text)
    if suffix in _DATA:
        return "", data_blocks(lines)
    if suffix in _SOURCE or text.startswith("#!"):
        return "", comment_blocks(lines)
    if name in _METADATA:
        end = next((place for place, (_, line) in enumerate(lines) if not line.strip()), len(lines))
        return "", [*data_blocks(lines[:end]), *prose_blocks(lines[end:])]
    return "", prose_blocks(lines)


def _pdf_blocks(path: str) -> tuple[str, list[Block]]:
    try:
        import pypdf
    except ImportError as error:
        raise Unreadable("PDF, and pypdf is not installed (the extra `pdf` brings it)") from error
    import logging

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # its warnings about other people's files are noise here
    try:
        reader = pypdf.PdfReader(io.BytesIO(read_bytes(path)))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("PDF that needs a password")
        pages = [page.extract_text() or "" for page in reader.pages]
    except Unreadable:
        raise
    except Exception as error:  # a damaged PDF makes pypdf raise whatever its parser ran into
        raise Unreadable(f"PDF that cannot be read: {str(error)[:80] or type(error).__name__}") from error
    if not any(page.strip() for page in pages):
        raise Unreadable("PDF without text (scanned pages?)")
    blocks: list[Block] = []
    heading = ""
    for number, page in enumerate(pages, 1):
        lines = list(enumerate(page.split("\n"), 1))
        places = _pdf_headings([line.strip() for _, line in lines])
        for first, last in pairwise([-1, *places, len(lines)]):
            heading = lines[first][1].strip() if first >= 0 else heading
            blocks += prose_blocks(lines[first + 1 : last], page=number, heading=heading)
    return "\n".join(pages), blocks


def _pdf_headings(lines: list[str]) -> list[int]:
    """Which lines of a page are headings. A PDF's text has no blank lines: a heading is a short line without an end,
    after one that has ended or is a heading, before one that begins anew."""
    found: list[int] = []
    for place, line in enumerate(lines[:-1]):
        ended = place == 0 or lines[place - 1][-1:] in ".!?:" or found[-1:] == [place - 1]
        short = 3 <= len(line) <= 70 and line.count(" ") <= 8 and line[-1] not in ".!?:;,-"
        if ended and short and _PDF_HEADING.match(line) and re.match(r"[A-Z•\d]", lines[place + 1]):
            found.append(place)
    return found


def _title_of(blocks: list[Block], path: str, name: str, suffix: str) -> str:
    """The first heading near the top of a prose document, else its file name."""
    if suffix in SOURCE_SUFFIXES or suffix in _DATA or name in _METADATA:
        return "/".join(PurePath(path).parts[-2:])
    heading = next((block.heading for block in blocks[:4] if block.heading), "")
    return heading if 3 <= len(heading) <= 90 and re.search(r"[A-Za-z]{3}", heading) else name
