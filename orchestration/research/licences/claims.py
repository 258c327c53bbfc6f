"""What each paper of a package says of its licence: one claim per statement, with the line that makes it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from ..files import Unreadable, read_text
from .names import Options, classifier_options, expression_of, label, names_in, symbols_of
from .papers import parse_metadata
from .texts import Hit, recognise

How = Literal[
    "License-Expression",
    "License",
    "Classifier",
    "licence file",
    "bundled licence",
    "documentation licence",
    "readme",
    "notice",
]
_CONFIDENCE: dict[str, float] = {
    "License-Expression": 1.0,
    "licence file": 0.95,
    "License": 0.85,
    "Classifier": 0.8,
    "bundled licence": 0.9,
    "documentation licence": 0.9,
    "readme": 0.7,
    "notice": 0.6,
}
_HEADING = re.compile(r"^\W{0,4}(?:\w+ ){0,2}(?:copyright (?:and|&) )?licen[cs](?:e|es|ing)(?: \w+)?\W*(?:<.*)?$", re.I)
_SENTENCE = re.compile(
    r"(?:is|are|was|been)\s+(?:\w+\s+)?(?:licen[cs]ed|released|distributed|available)\s+under|\blicen[cs]ed under\b|"
    r"^\W*(?:this project|this software|\S+) is \W?[\w .-]{2,20}\W*(?:\(\S+\)\W*)?licen[cs]ed",
    re.I,
)
_EITHER = re.compile(r"\beither\b|\bdual\b|at your option|your choice|\bany of\b", re.I)


class Claim(TypedDict):
    """One statement. `licences` is a list of option lists (see `names`); `joiner` is OR, AND or "" (not said)."""

    how: How
    path: str
    line: int
    text: str
    licences: list[list[str]]
    expression: str
    joiner: str
    confidence: float


def _claim(
    how: How, path: str, line: int, text: str, licences: Sequence[Options], joiner: str = "", expression: str = ""
) -> Claim:
    exact = all(len(options) == 1 for options in licences)
    return Claim(
        how=how,
        path=path,
        line=line,
        text=" ".join(text.split())[:300],
        licences=[list(options) for options in licences],
        expression=expression,
        joiner=joiner,
        confidence=round(_CONFIDENCE[how] * (1.0 if exact else 0.6), 2),
    )


def value_of(claim: Claim) -> str:
    """The claim as a report writes it: its SPDX expression, or the labels of what it names."""
    if claim["expression"]:
        return claim["expression"]
    return f" {claim['joiner'] or 'AND'} ".join(label(tuple(options)) for options in claim["licences"])


def claims_of(package: dict[str, Any]) -> tuple[list[Claim], list[tuple[str, str]]]:
    """All claims of a package's papers, and the papers that could not be read as (path, reason)."""
    claims: list[Claim] = []
    skipped: list[tuple[str, str]] = []
    for paper in package["papers"]:
        try:
            text = read_text(paper["path"])
        except Unreadable as error:
            skipped.append((paper["path"], str(error)))
            continue
        if paper["role"] == "metadata":
            claims += _metadata_claims(paper["path"], text)
        else:
            claims += _file_claims(paper["path"], text, paper["role"], package["papers"])
    return claims, skipped


def _metadata_claims(path: str, text: str) -> list[Claim]:
    headers, (first_line, body) = parse_metadata(text)
    claims: list[Claim] = []
    for key, value, line in headers:
        if key == "License-Expression" and (expression := expression_of(value)):
            licences = [(symbol,) for symbol in symbols_of(expression)]
            claims.append(_claim("License-Expression", path, line, f"{key}: {value}", licences, expression=expression))
        elif key == "License" and value and value.upper() != "UNKNOWN":
            claims += _licence_field(path, line, value)
        elif key == "Classifier" and value.startswith("License ::") and (options := classifier_options(value)):
            claims.append(_claim("Classifier", path, line, value, [options]))
    return claims + _readme_claims(path, first_line, body)


def _licence_field(path: str, line: int, value: str) -> list[Claim]:
    if len(value) > 200:  # some put the whole text of the licence here
        hits = recognise(value)
        return [
            _claim("License", path, line + h.line - 1, value.split("\n")[h.line - 1], [h.options]) for h in hits[:1]
        ]
    if expression := expression_of(value):
        licences = [(symbol,) for symbol in symbols_of(expression)]
        return [_claim("License", path, line, f"License: {value}", licences, expression=expression)]
    names = names_in(value)
    joiner = "OR" if re.search(r"\bor\b|/|\bdual\b", value, re.I) else ""
    return [_claim("License", path, line, f"License: {value}", names, joiner)] if names else []


def _readme_claims(path: str, first_line: int, body: list[str]) -> list[Claim]:
    """The first statement of a licence in a description: under a heading "License", else in a sentence that says so."""
    for index, line in enumerate(body):
        is_heading = bool(_HEADING.match(line)) and (line.lstrip().startswith("#") or _underlined(body, index))
        if not is_heading:
            continue
        section = _section(body, index + 1)
        if claim := _prose_claim(path, first_line + index, body, index, section):
            return [claim]
    for index, line in enumerate(body):
        if not _SENTENCE.search(line) or line.lstrip().startswith(("|", "..", "-", "*", "[")):
            continue
        if claim := _prose_claim(path, first_line + index, body, index, range(index, min(index + 2, len(body)))):
            return [claim]
    return []


def _underlined(body: list[str], index: int) -> bool:
    return index + 1 < len(body) and bool(re.fullmatch(r"\s*([=\-~^*#\"])\1{2,}\s*", body[index + 1]))


def _section(body: list[str], start: int) -> range:
    """The lines below a heading, up to the next heading, twelve at most."""
    end = start + 1
    while end < min(len(body), start + 12) and not (body[end].startswith("#") or _underlined(body, end)):
        end += 1
    return range(start, end)


def _prose_claim(path: str, line: int, body: list[str], heading: int, lines: range) -> Claim | None:
    plain = [re.sub(r"<?https?://[^\s>)]+[>)]?|\[[^\]]*\]\([^)]*\)", _link_text, body[number]) for number in lines]
    for offset, _ in enumerate(plain):
        window = " ".join(plain[offset : offset + 4])
        names = names_in(" ".join(plain[offset : offset + 2]))
        if not names_in(plain[offset]) or not names:
            continue
        number = line - heading + lines[offset]
        # Alternatives are listed over a few lines; without a word of choice only what the first sentence names counts.
        if _EITHER.search(" ".join(plain[: offset + 2])):
            # "some files under A and some under your choice of B or C" is no choice between all three
            joiner = "AND" if re.search(r"\bsome\b.*\band some\b", window, re.I) else "OR"
            return _claim("readme", path, number, body[lines[offset]], names_in(window), joiner)
        sentence = re.split(r"(?<=[a-z)`*_])\.(?:\s|$)", " ".join(plain[offset : offset + 2]))[0]
        joiner = "AND" if re.search(r"\band\b", sentence, re.I) else ""
        return _claim("readme", path, number, body[lines[offset]], names_in(sentence) or names[:1], joiner)
    return None


def _link_text(match: re.Match[str]) -> str:
    link = re.match(r"\[([^\]]*)\]", match.group())
    return link[1] if link else " "


def _file_claims(path: str, text: str, role: str, papers: list[dict[str, str]]) -> list[Claim]:
    how: How = {"main": "licence file", "notice": "notice"}.get(role, "bundled licence")  # type: ignore[assignment]
    lines = text.split("\n")
    hits = recognise(text)
    if hits:
        return [
            _claim(_how_of(hit, how, index), path, hit.line, lines[hit.line - 1], [hit.options])
            for index, hit in enumerate(hits)
        ]
    if referred := _referred(text, path, papers):
        line = next(number for number, content in enumerate(lines, 1) if content.strip())
        return [_claim(how, path, line, text[:300], referred[0], "OR" if _EITHER.search(text) else "AND")]
    for number, content in enumerate(lines[:60], 1):
        if names := names_in(content):
            return [_claim(how, path, number, content, names)]
    return []


def _how_of(hit: Hit, how: How, index: int) -> How:
    """A licence of the documentation, or one named as that of a part, is not the licence of the package."""
    if how == "licence file" and (hit.before.endswith("documentation") or "documentation portion" in hit.before):
        return "documentation licence"
    parts = r"portions of|are licensed under different|the following (files|license)|is based on|derived from|bundled"
    if how == "licence file" and index and re.search(parts, hit.before):
        return "bundled licence"
    return how


def _referred(text: str, path: str, papers: list[dict[str, str]]) -> tuple[list[Options], str] | None:
    """A licence file that only points to its sisters: "either of the licenses in LICENSE.APACHE or LICENSE.BSD"."""
    found: list[Options] = []
    first = ""
    for paper in papers:
        name = os.path.basename(paper["path"])
        if paper["path"] == path or paper["role"] != "main" or name not in text:
            continue
        try:
            hits = recognise(read_text(paper["path"]))
        except Unreadable:
            continue
        found += [hit.options for hit in hits[:1]]
        first = first or name
    return (found, first) if found else None
