"""Text as blocks: paragraphs, list items, code, tables, under their headings, with the line of every line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

#: `setting` is a name with its value in source code, `signature` a function's first lines, `row` a row of a table.
Kind = Literal["prose", "item", "comment", "code", "data", "setting", "signature", "row"]

#: A passage is closed when it has this many characters.
PASSAGE_CHARACTERS = 1100
_RULE_SIGNS = frozenset("=-~^*#\"'+_.`:")
_AFTER_LETTER = (".", ")")
_ITEM = re.compile(r"\s*(?:[*\-+•o]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+\S")
_FENCE = re.compile(r"\s*(```|~~~)")
_BAR = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"[\s|+\-=:*_#~.]*$")
_MARKDOWN_HEADING = re.compile(r"(#{1,6})\s+(\S.*?)\s*#*$")


@dataclass(slots=True)
class Block:
    """Lines that belong together, as (number, text). `label`: a setting's value; for a row, its table's first row."""

    kind: Kind
    heading: str
    lines: list[tuple[int, str]] = field(default_factory=list)
    page: int | None = None
    label: str = ""

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)


@dataclass(slots=True)
class Passage:
    """Neighbouring blocks under one heading: what the index holds and what is read as a whole."""

    heading: str
    blocks: list[Block]
    page: int | None = None

    @property
    def text(self) -> str:
        return "\n\n".join(block.text for block in self.blocks)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: heading, page, line_start, line_end, and the blocks as {kind, label, lines: [[number, text]]}."""
        return {
            "heading": self.heading,
            "page": self.page,
            "line_start": self.blocks[0].lines[0][0],
            "line_end": self.blocks[-1].lines[-1][0],
            "blocks": [{"kind": b.kind, "label": b.label, "lines": list(map(list, b.lines))} for b in self.blocks],
        }


def prose_blocks(lines: list[tuple[int, str]], page: int | None = None, heading: str = "") -> list[Block]:
    """Blocks of plain text, Markdown or reStructuredText."""
    return _ProseReader(lines, page, heading).read()


class _ProseReader:
    """One pass over the lines. First letters are looked at before patterns: most lines begin with a plain word."""

    def __init__(self, lines: list[tuple[int, str]], page: int | None, heading: str) -> None:
        self.lines, self.page, self.heading = lines, page, heading
        self.blocks: list[Block] = []
        self.current: Block | None = None
        self.after_blank = True
        self.heads, self.table_end = "", -1  # the column heads of the table at hand, and its last line so far
        self.code_indent: int | None = None  # indentation of the line that announced a literal block

    def read(self) -> list[Block]:
        index, count = 0, len(self.lines)
        while index < count:
            number, line = self.lines[index]
            body = line.strip()
            if not body:
                self.after_blank, self.current = True, None
            elif body[0] in "`~" and _FENCE.match(line):
                index = self._fence(index)
            elif self._is_heading(index, body):
                self.current, self.code_indent = None, None
                self.heading = _heading_text(line)
                index += 1 if _underlined(self.lines, index, body) else 0
            elif not body[0].isalnum() and _RULE.match(line):
                self._rule(number, body)
            elif body[0] == "|" and body.count("|") > 2:
                self._row(number, body)
            else:
                self._line(number, line, body)
            index += 1
        return self.blocks

    def _fence(self, index: int) -> int:
        """Take a fenced block whole; gives the index of its last line."""
        fence = self.lines[index][1].strip()[:3]
        end = index + 1
        while end < len(self.lines) and not self.lines[end][1].strip().startswith(fence):
            end += 1
        inside = self.lines[index + 1 : end]
        if inside:
            self.blocks.append(Block("code", self.heading, inside, self.page))
        self.current = None
        return end

    def _is_heading(self, index: int, body: str) -> bool:
        if self.code_indent is not None and not self.lines[index][1][: self.code_indent + 1].strip():
            return False
        if body[0] == "#" and self.after_blank and _MARKDOWN_HEADING.match(self.lines[index][1]):
            return True
        return self.current is None and len(body) < 100 and _underlined(self.lines, index, body)

    def _rule(self, number: int, body: str) -> None:
        """A line of signs alone: it goes on with the table above it, or is the first row of one without heads."""
        self.current = None
        if self.table_end != number - 1:
            headless = body.count("|") > 1 and not body.strip("| ")
            self.heads, self.table_end = "", number if headless else -1
        else:
            self.table_end = number

    def _row(self, number: int, body: str) -> None:
        """A row of a table; the first row of a table gives the heads of those that follow."""
        self.current = None
        if self.table_end == number - 1:
            self.blocks.append(Block("row", self.heading, [(number, body)], self.page, self.heads))
        else:
            self.heads = body
        self.table_end = number

    def _line(self, number: int, line: str, body: str) -> None:
        indent = len(line) - len(line.lstrip())
        if self.code_indent is not None and indent <= self.code_indent:
            self.code_indent = None
        if self.code_indent is not None or body.startswith(".. "):
            kind: Kind = "code"
        elif _begins_item(line, body):
            kind, self.current = "item", None
        else:
            kind = "item" if self.current is not None and self.current.kind == "item" else "prose"
        if self.current is None or self.current.kind != kind:
            self.current = Block(kind, self.heading, [], self.page)
            self.blocks.append(self.current)
        self.current.lines.append((number, line))
        if self.code_indent is None and body.endswith("::"):
            self.code_indent = indent
        self.after_blank = False


def cells_of(row: str) -> list[str]:
    """The cells of a row of a Markdown table, as they are written; `\\|` is a bar within a cell."""
    body = re.sub(r"^\s*\|", "", re.sub(r"(?<!\\)\|\s*$", "", row))
    return [cell.strip().replace("\\|", "|") for cell in _BAR.split(body)]


def _begins_item(line: str, body: str) -> bool:
    if body.startswith((":param ", ":keyword ", ":return")):
        return True
    return (body[0] in "*-+•o(" or body[1:2] in _AFTER_LETTER or body[0].isdigit()) and bool(_ITEM.match(line))


def _underlined(lines: list[tuple[int, str]], index: int, title: str) -> bool:
    if index + 1 >= len(lines):
        return False
    rule = lines[index + 1][1].strip()
    if len(rule) < 3 or rule[0] not in _RULE_SIGNS or len(rule) < min(len(title), 4):
        return False
    return rule == rule[0] * len(rule) and not _RULE.match(title)


def _heading_text(line: str) -> str:
    match = _MARKDOWN_HEADING.match(line)
    text = match[2] if match else line
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)|:[\w:]+:`([^`<]*)[^`]*`|<[^>]*>", lambda m: m[1] or m[2] or "", text)
    return " ".join(re.sub(r"[`*]", "", text).split())


def data_blocks(lines: list[tuple[int, str]], heading: str = "", kind: Kind = "data", size: int = 30) -> list[Block]:
    """Blocks of `size` lines, for data and code; blank lines fall away."""
    full = [(number, line) for number, line in lines if line.strip()]
    return [Block(kind, heading, full[at : at + size]) for at in range(0, len(full), size)]


def passages_of(blocks: list[Block]) -> list[Passage]:
    """Neighbouring blocks under one heading, put together to about 1,100 characters."""
    passages: list[Passage] = []
    size = 0
    for block in blocks:
        if not block.lines:
            continue
        last = passages[-1] if passages else None
        length = sum(len(line) + 1 for _, line in block.lines)
        together = last is not None and last.heading == block.heading and last.page == block.page
        if last is not None and together and size + length <= PASSAGE_CHARACTERS:
            last.blocks.append(block)
            size += length
        else:
            passages.append(Passage(block.heading, [block], block.page))
            size = length
    return passages
