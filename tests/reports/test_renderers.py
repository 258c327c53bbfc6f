"""What every report shows, in Markdown, HTML and PDF, and what no text in it can do."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt
from pypdf import PdfReader

from celeriac.errors import CeleriacError
from celeriac.orchestration.reports.columns import widths
from celeriac.orchestration.reports.html import render_html
from celeriac.orchestration.reports.inline import breakable, clean, parse
from celeriac.orchestration.reports.markdown import render_markdown
from celeriac.orchestration.reports.model import Report, ReportConflict, ReportFinding, Section, Source, Table
from celeriac.orchestration.reports.pdf import PdfError, render_pdf

from .samples import answer, licence_review

HOSTILE = [
    "#eval(\"panic()\") #panic() #import \"@preview/x:1.0.0\" $x^2$ @ref <label> // not a comment",
    "<script>alert(1)</script><img src=x onerror=alert(1)></style></title><!-- --><svg onload=alert(1)>",
    "**bold *never closed `code [text](javascript:alert(1)) [t](data:text/html,x) ![i](http://h/x.png) ]][[((",
    "[1](javascript:alert(1)) ![1](data:x) [1]: x ![1] [1] [99] [1](http://a.example/) \\[1\\] `[1]` [-1] [1e3]"
    " [\u0661]",
    "control \x00\x07\x1b[31m\x7f\x85\ud800\ufffe\u202e\u2066 and\r\nlines\u2028more\tindented",
    "W" * 3000 + " " + "/very/long" * 300,
    "漢字かな交じり文 한국어 😀👩‍👩‍👧‍👦 العربية עברית e\u0301",
    "# heading\n- item\n1. one\n> quote\n---\n```\n| a | b |\n|---|---|\n&lt;b&gt; &#91;1&#93; &copy;",
    "{{ template }} ${shell} %s {0} \\n \\ trailing\\",
    "",
    " ",
]  # fmt: skip


def hostile(text: str) -> Report:
    """A report with `text` in every place that takes text."""
    return Report(
        title=text,
        question=text + "?",
        created_at=text,
        summary=[text],
        sections=[Section(text, [text], [text], [Table([text, "b"], [[text], ["1", "2", text]], text)], level=9)],
        findings=[ReportFinding(text, text, text, 0.5, [1, 99])],
        conflicts=[ReportConflict(text, text, text, [(text, [1, 99])], text, text)],
        sources=[Source(1, text, 1, 2, text, text, 3)],
        skipped=[(text, text)],
        facts={text: text, "nested": {text: [text]}},
    )


class Tags(HTMLParser):
    """Collects every element and every attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "wbr", "br", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def pdf_text(report: Report) -> str:
    pages = PdfReader(io.BytesIO(render_pdf(report))).pages
    return "\n".join(page.extract_text() for page in pages)


def values(page: Tags, name: str) -> list[str]:
    return [value for found, value in page.attributes if found == name]


def test_the_parts_come_in_order_and_conflicts_before_the_sections() -> None:
    report = licence_review()
    order = [
        "Summary",
        "Conflicts",
        "Obligations by licence",
        "Findings",
        "Skipped files",
        "About this report",
        "Sources",
    ]
    in_markdown = re.findall("^## (.*)$", render_markdown(report), re.MULTILINE)
    in_html = re.findall("<h2>(.*?)</h2>", render_html(report))
    in_pdf = [
        str(item.title) for item in PdfReader(io.BytesIO(render_pdf(report))).outline if not isinstance(item, list)
    ]
    assert [name for name in in_markdown if name in order] == order
    assert in_markdown == in_html == in_pdf


def test_empty_parts_are_left_out() -> None:
    report = Report("Nothing", "", "")
    assert render_markdown(report) == "# Nothing\n"
    page = render_html(report)
    assert "<h2>" not in page and "<nav" not in page and "<time" not in page
    assert pdf_text(report).split() == ["Nothing", "1", "/", "1"]


@pytest.mark.parametrize("render", [render_markdown, render_html, render_pdf])
def test_the_same_report_gives_the_same_bytes(render: Any) -> None:
    report = licence_review()
    assert render(report) == render(Report.from_dict(report.to_dict()))


def test_the_worst_conflict_comes_first() -> None:
    assert re.findall(r"^### .*\((\w+)\)$", render_markdown(licence_review()), re.MULTILINE) == [
        "high",
        "medium",
        "low",
    ]
    assert re.findall('class="conflict (\\w+)"', render_html(licence_review())) == ["high", "medium", "low"]


def test_html_citations_and_their_back_links_have_targets() -> None:
    page = Tags(render_html(licence_review()))
    ids = values(page, "id")
    assert len(ids) == len(set(ids))
    inner = [link[1:] for link in values(page, "href") if link.startswith("#")]
    assert len(inner) > 300 and set(inner) <= set(ids)
    assert not page.open


def test_html_asks_for_nothing_from_outside() -> None:
    text = render_html(licence_review())
    page = Tags(text)
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "form", "base"})
    assert not values(page, "src") and not values(page, "style")
    assert "url(" not in text and "@import" not in text and "default-src 'none'" in text


def test_many_skipped_files_are_folded_and_few_are_not() -> None:
    report = licence_review()
    assert "<summary>13 files were not read</summary>" in render_html(report)
    assert "<details>" not in render_html(replace(report, skipped=report.skipped[:10]))


def test_markdown_citations_become_links_where_markdown_is_rendered() -> None:
    text = render_markdown(answer())
    assert "deleted [[1]]." in text
    page = MarkdownIt("commonmark").enable("table").render(text)
    assert '[<a href="#source-2">2</a>][<a href="#source-3">3</a>]' in page
    assert '<a id="source-3"></a><strong>3.</strong> <code>src/logs/reader.py:88-91</code>' in page


def test_a_citation_without_a_source_stays_plain_text() -> None:
    report = Report("T", "", "", summary=["see [2] and [1]"], sources=[Source(1, "a.txt", 1, 1)])
    assert 'see [2] and <a class="cite"' in render_html(report)
    assert "see \\[2\\] and [[1]]" in render_markdown(report)
    assert "see [2] and [1]" in pdf_text(report)


def test_an_escaped_bracket_is_not_a_citation() -> None:
    assert [piece.kind for piece in parse(r"\[1\] `[1]` [x [1]](https://a.example) &#91;1] [1]", {1})].count(
        "cite"
    ) == 1


def test_only_web_and_mail_addresses_become_links() -> None:
    allowed = ["https://a.example/b", "http://a.example", "mailto:a@b.example"]
    refused = [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "//a.example",
        "#x",
        "vbscript:x",
        "https:x",
    ]
    pieces = parse(" ".join(f"[t]({url})" for url in allowed + refused), ())
    assert [piece.text for piece in pieces if piece.kind == "link"] == allowed


def test_a_pdf_holds_the_title_the_citations_and_every_source() -> None:
    report = licence_review()
    text = pdf_text(report)
    assert report.title in text.replace("\n", " ")
    assert "[1][5][8]" in text and "[118][119]" in text
    assert "docs/third-party-notices.pdf, page 41, lines 4-9" in " ".join(text.split())
    reader = PdfReader(io.BytesIO(render_pdf(report)))
    assert reader.metadata is not None and reader.metadata.title == report.title
    assert text.count(f"/ {len(reader.pages)}") == len(reader.pages)


def test_few_sources_say_on_which_page_they_are_cited() -> None:
    assert "cited on p." in pdf_text(answer())


def test_many_sources_are_set_small_below_the_folder_that_they_share() -> None:
    sources = [Source(n, f"/srv/site-packages/package-{n}/METADATA", n, n, "License: MIT " * 30) for n in range(1, 61)]
    text = pdf_text(Report("T", "", "", ["".join(f"[{n}]" for n in range(1, 61))], sources=sources))
    assert text.count("/srv/site-packages/") == 1 and "package-60/METADATA:60" in text.replace("\n", "")
    assert len(PdfReader(io.BytesIO(render_pdf(Report("T", "", "", sources=sources)))).pages) <= 3


def test_a_column_is_as_wide_as_its_longest_word_and_as_its_texts_need() -> None:
    rows = [["pytest_docker_tools", "1", "said by the metadata", "a long remark about what needs a look " * 4]] * 9
    name, version, said, remark = widths(["Package", "Version", "What says so", "Attention"], rows)
    assert name >= len("pytest_docker_tools") * 100 // 104
    assert remark > 2 * said > 2 * version


def test_a_long_path_is_copied_from_a_pdf_without_foreign_characters() -> None:
    path = "/".join(["deep"] * 12) + "/file.py"
    text = pdf_text(Report("T", "", "", sources=[Source(1, path, 1, 1)]))
    assert path in text.replace("\n", "")


def test_without_typst_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(CeleriacError, match=r"celeriac\[pdf\]") as caught:
        render_pdf(answer())
    assert isinstance(caught.value, PdfError)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text_in_html(text: str) -> None:
    rendered = render_html(hostile(text))
    rendered.encode("utf-8")
    page = Tags(rendered)
    assert not page.open
    assert page.tags.isdisjoint({"script", "img", "svg"})
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(link.startswith(("#", "http://a.example", "http://h/")) for link in values(page, "href"))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text_in_markdown(text: str) -> None:
    rendered = render_markdown(hostile(text))
    rendered.encode("utf-8")
    tokens = MarkdownIt("commonmark").enable("table").parse(rendered)
    kinds = [token.type for token in tokens]
    inline = [child for token in tokens for child in token.children or []]
    assert not {"html_block", "fence", "code_block", "hr", "ordered_list_open"} & set(kinds)
    assert kinds.count("heading_open") == 9 and kinds.count("table_open") == 3
    assert {token.content for token in inline if token.type == "html_inline"} == {'<a id="source-1">', "</a>"}
    assert not [token for token in inline if token.type == "image"]
    links = [str(token.attrs["href"]) for token in inline if token.type == "link_open"]
    assert all(link.startswith(("#source-", "http://a.example", "http://h/")) for link in links)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_can_be_set_in_a_pdf(text: str) -> None:
    assert render_pdf(hostile(text)).startswith(b"%PDF")


def test_typst_code_in_a_text_is_shown_and_not_run() -> None:
    shown = pdf_text(hostile(HOSTILE[0])).replace("\n", " ")
    assert '#eval("panic()") #panic() #import "@preview/x:1.0.0" $x^2$ @ref <label>' in shown


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_breaking_long_words_loses_no_character(text: str) -> None:
    assert "".join(breakable(clean(text))) == clean(text)


def test_plain_values_survive_a_trip_through_markdown() -> None:
    for text in [
        "__init__",
        "a_b_c",
        "*.py",
        "C:\\temp\\x",
        "f(x) <T> | y",
        "~/x",
        "1. one",
        "# no",
        "&amp;",
        "`tick`",
    ]:
        report = Report(text, "", "", findings=[ReportFinding(text, "a", text, 1.0)])
        tokens = MarkdownIt("commonmark").enable("table").parse(render_markdown(report))
        shown = ["".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"]
        assert shown.count(text) == 3, text


def test_a_quote_shows_its_code_as_code_and_an_escaped_sign_does_not_split_a_name() -> None:
    source = Source(1, "a.md", 1, 1, quote="`pool_size` is *5* and `b\\*` more\na lone ` tick in x_y")
    report = Report("T", "", "", summary=[r"kept in data\_dir and \_x\_ [1]"], sources=[source])
    text = render_markdown(report)
    assert "> `pool_size` is \\*5\\* and `b\\*` more\n> a lone \\` tick in x_y" in text
    assert "kept in data_dir and \\_x\\_ [[1]]" in text
