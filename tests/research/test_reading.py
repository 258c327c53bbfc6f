"""Reading whatever lies in a folder: formats, lines, and everything that cannot be read."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from celeriac.errors import CeleriacError
from celeriac.orchestration.research.blocks import cells_of
from celeriac.orchestration.research.files import MAX_BYTES, Unreadable, decode, read_text, walk
from celeriac.orchestration.research.reading import Document, read_document
from celeriac.orchestration.research.sentences import sentences_of, worth_quoting


def read(path: Path, text: str | bytes) -> Document:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    document = read_document(str(path))
    assert document is not None
    return document


def lines_of(document: Document, kind: str) -> dict[int, str]:
    blocks = [block for passage in document.passages for block in passage.blocks if block.kind == kind]
    return {number: line.strip() for block in blocks for number, line in block.lines}


def test_markdown_keeps_its_headings_and_lines(tmp_path: Path) -> None:
    document = read(tmp_path / "a.md", "# Title\n\nFirst paragraph.\n\n## Inner\n\n- an item\n\n```\ncode = 1\n```\n")
    assert document.title == "Title"
    assert [passage.heading for passage in document.passages] == ["Title", "Inner"]
    assert lines_of(document, "item") == {7: "- an item"}
    assert lines_of(document, "code") == {10: "code = 1"}


def test_restructured_text_headings_are_underlined(tmp_path: Path) -> None:
    document = read(tmp_path / "a.rst", "Title\n=====\n\nText here::\n\n    code = 1\n\nInner\n-----\n\nMore text.\n")
    assert [passage.heading for passage in document.passages] == ["Title", "Inner"]
    assert lines_of(document, "code") == {6: "code = 1"}


def test_html_gives_its_text_with_source_lines_and_without_navigation(tmp_path: Path) -> None:
    page = (
        "<html><head><title>Page</title><script>var x=1</script></head>\n"
        "<body><nav>Menu</nav>\n<h2>Part</h2>\n<p>One\ntwo.</p></body>"
    )
    document = read(tmp_path / "a.html", page)
    assert document.title == "Page"
    assert lines_of(document, "prose") == {4: "One", 5: "two."}


def test_python_docstrings_are_prose_under_the_name_they_document(tmp_path: Path) -> None:
    document = read(
        tmp_path / "a.py",
        'class A:\n    """About A."""\n\n    def run(self):\n        """Runs it."""\n        return 1\n',
    )
    assert [passage.heading for passage in document.passages][:2] == ["A", "A.run"]
    assert lines_of(document, "prose") == {2: "About A.", 5: "Runs it."}


def test_a_pdf_gives_pages(tmp_path: Path) -> None:
    typst = pytest.importorskip("typst")
    source = tmp_path / "a.typ"
    source.write_text("Hello first page.\n#pagebreak()\nHello second page.\n")
    document = read(tmp_path / "a.pdf", typst.compile(str(source)))
    assert [passage.page for passage in document.passages] == [1, 2]


def test_a_damaged_pdf_is_unreadable_with_a_reason(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    with pytest.raises(Unreadable, match="PDF"):
        read(tmp_path / "a.pdf", b"%PDF-1.4 nonsense")


def test_gzipped_text_is_read_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    document = read(tmp_path / "changes.txt.gz", gzip.compress(b"Some text in a packed file.\n"))
    assert lines_of(document, "prose") == {1: "Some text in a packed file."}
    with pytest.raises(Unreadable, match="damaged gzip"):
        read(tmp_path / "b.gz", gzip.compress(b"x" * 1000)[:20])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_text_is_read_in_the_encodings_people_use(encoding: str) -> None:
    assert decode("Café déjà vu".encode(encoding)) == "Café déjà vu"


def test_binary_data_is_refused() -> None:
    with pytest.raises(Unreadable, match="binary"):
        decode(b"\x00\x01\x02" * 50)


def test_whatever_cannot_be_read_is_skipped_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("text")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "picture.png").write_bytes(b"x")
    with open(tmp_path / "huge.txt", "wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    found = walk([str(tmp_path)])
    assert found.files == [str(tmp_path / "good.txt")]
    reasons = {Path(path).name: reason for path, reason in found.skipped}
    assert reasons["empty.txt"] == "empty"
    assert reasons["picture.png"] == "binary (.png)"
    assert reasons["huge.txt"].startswith("too large")
    assert reasons["pipe"].startswith("not a regular file")
    assert reasons["loop"].startswith("a link that leads back")
    assert reasons["nowhere"] == "a link to nowhere"


def test_a_vanished_file_and_a_pipe_in_its_place_are_unreadable_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="vanished"):
        read_text(str(tmp_path / "gone.txt"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="not a regular file"):
        read_text(str(tmp_path / "pipe"))


def test_a_missing_and_an_empty_folder_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CeleriacError, match="does not exist"):
        walk([str(tmp_path / "none")])
    with pytest.raises(CeleriacError, match="holds no file"):
        walk([str(tmp_path)])


def test_a_sentence_knows_its_lines_across_markup() -> None:
    lines = [(10, "See [the"), (11, "guide](http://x) first. A second"), (12, "sentence with ``code`` follows.")]
    found = sentences_of(lines, "prose")
    assert [(s.text, s.line_start, s.line_end) for s in found] == [
        ("See the guide first.", 10, 11),
        ("A second sentence with `code` follows.", 11, 12),
    ]


@pytest.mark.parametrize(
    "scrap",
    [
        "Home | Docs | About",
        "See also the other page for this.",
        "x = foo(bar) if baz else {qux: 1}",
        "and then it",
        "Copyright (c) 2020 by the authors of this.",
    ],
)
def test_scraps_are_not_worth_quoting(scrap: str) -> None:
    assert not worth_quoting(scrap, "prose")


def test_a_quoted_sentence_is_said_without_the_escapes_of_its_source() -> None:
    def said(text: str, kind: str = "prose") -> str:
        return sentences_of([(1, text)], kind)[0].text

    assert said(r"Pressure is 2 \* 3 bar, \_not\_ more, \[see\] C\#.") == "Pressure is 2 * 3 bar, _not_ more, [see] C#."
    assert said(r"Write `a\*b`, or a \`tick\`.") == r"Write `a\*b`, or a `tick`."
    assert said(r"Files of C:\*.txt are kept.") == r"Files of C:\*.txt are kept."
    assert said(r"The pattern \.\* means all.", "comment") == r"The pattern \.\* means all."


def test_rows_of_a_table_keep_their_bars_and_a_table_may_have_no_heads(tmp_path: Path) -> None:
    text = "| setting | one\\|two |\n|---|---|\n| `a` | x \\| y |\n|  | z |\n\n| | |\n|---|---|\n| `b` | first |\n"
    document = read(tmp_path / "a.md", text)
    rows = [block for passage in document.passages for block in passage.blocks if block.kind == "row"]
    assert [cells_of(row.text) for row in rows] == [["`a`", "x | y"], ["", "z"], ["`b`", "first"]]
    assert [cells_of(row.label) for row in rows] == [["setting", "one|two"]] * 2 + [[""]]
