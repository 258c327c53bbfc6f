"""HTML as blocks: its text with the source's line numbers, without scripts, styles and navigation."""

from __future__ import annotations

from html.parser import HTMLParser

from .blocks import Block, Kind

_SILENT = {
    "script",
    "style",
    "nav",
    "header",
    "footer",
    "aside",
    "noscript",
    "template",
    "form",
    "button",
    "select",
    "svg",
}
_BREAKS = set(
    "p div li ul ol dl dt dd table tr td th section article main blockquote pre br hr h1 h2 h3 h4 h5 h6 body".split()
)
_HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.title = ""
        self._heading = ""
        self._stack: list[str] = []
        self._kind: Kind = "prose"
        self._lines: dict[int, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BREAKS:
            self._flush()
        if tag in _SILENT or tag in _HEADINGS or tag in ("title", "pre"):
            self._stack.append(tag)
        self._kind = {"li": "item", "pre": "code", "td": "data", "th": "data"}.get(tag, self._kind)  # type: ignore[assignment]
        if tag in ("p", "div", "dd", "dt", "section"):
            self._kind = "prose"

    def handle_endtag(self, tag: str) -> None:
        if tag in _HEADINGS:
            heading = " ".join(" ".join(self._lines.values()).replace("¶", "").removesuffix("#").split())
            self._lines = {}
            self._heading = heading or self._heading
        elif tag in _BREAKS:
            self._flush()
        if tag in self._stack:
            while self._stack.pop() != tag:
                pass
        if tag in ("pre", "li", "td", "th"):
            self._kind = "prose"

    def handle_data(self, data: str) -> None:
        if any(tag in _SILENT for tag in self._stack):
            return
        if "title" in self._stack:
            self.title += data
            return
        number = self.getpos()[0]
        for offset, line in enumerate(data.split("\n")):
            self._lines[number + offset] = self._lines.get(number + offset, "") + line

    def _flush(self) -> None:
        preformatted = "pre" in self._stack
        lines = [(n, t if preformatted else " ".join(t.split())) for n, t in sorted(self._lines.items()) if t.strip()]
        if lines:
            self.blocks.append(Block(self._kind, self._heading, lines))
        self._lines = {}

    def close(self) -> None:
        super().close()
        self._flush()


def html_blocks(text: str) -> tuple[str, list[Block]]:
    """The title of an HTML document and its blocks."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return " ".join(reader.title.split()), reader.blocks
