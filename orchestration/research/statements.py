"""Statements in a document as findings: this thing's attribute has that value.

Few and simple patterns, each of which says plainly what it says: a wrong finding is worse than none. Confidence is how
explicit the pattern is: 0.9 for a setting in a data file or "the default of X is V", 0.8 for "X defaults to V" and
limits, 0.6 for definitions; a condition in the sentence ("if", "on Windows") takes 0.3 off, for it may hold only there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from ..agents import Finding
from .declared import declared_findings, evidence_of, module_of
from .reading import SOURCE_SUFFIXES
from .scoring import Scorer
from .sentences import Sentence, sentences_of, worth_quoting
from .terms import STOP_WORDS, stem, words

_NAME = r"[`'\"“]?(?P<entity>[A-Za-z][\w.\-/]*(?:[ ][A-Za-z0-9][\w.\-/]*){0,3})[`'\"”]?"
_UNITS = (
    r"(?:%|percent|[kmgt]i?b\b|bytes?|bits?|ms\b|milliseconds?|microseconds?|seconds?|minutes?|hours?|days?|weeks?|months?|"
    r"years?|times|characters?|lines?|files?|entries|items|connections?|threads?|processes|retries|attempts)"
)
_VALUE = rf"[`'\"“]?(?P<value>[^\s,;()`'\"“”]+(?: {_UNITS})?)[`'\"”]?"
_QUANTITY = rf"(?P<value>\d[\d,._]*(?:\.\d+)?(?:[kKMGT](?:i?B)?)?\s?{_UNITS}?)"
_PATTERNS: list[tuple[str, float, re.Pattern[str]]] = [
    (
        "default",
        0.9,
        re.compile(
            rf"\bdefault(?: value| setting)? (?:of|for) (?:the )?{_NAME} (?:is|are) {_VALUE}(?=[\s.,;)]|$)", re.I
        ),
    ),
    ("default", 0.8, re.compile(rf"(?:^|[.;] )(?:The |the )?{_NAME} defaults? to {_VALUE}(?=[\s.,;)]|$)")),
    ("default", 0.8, re.compile(rf"(?:^|[.;] )(?:The |the )?{_NAME} (?:is|are) {_VALUE} by default(?=[\s.,;)]|$)")),
    ("maximum", 0.8, re.compile(rf"\b(?:maximum|max\.?) {_NAME} (?:is|are) {_QUANTITY}(?=[\s.,;)]|$)", re.I)),
    ("minimum", 0.8, re.compile(rf"\bminimum {_NAME} (?:is|are) {_QUANTITY}(?=[\s.,;)]|$)", re.I)),
    ("limit", 0.8, re.compile(rf"(?:^|[.;] )(?:The |the )?{_NAME} (?:is|are) limited to {_QUANTITY}(?=[\s.,;)]|$)")),
    (
        "requires",
        0.8,
        re.compile(
            r"(?:^|[.;] )(?:The |the )?[`'\"]?(?P<entity>[A-Za-z][\w.\-]*(?: [A-Z0-9][\w.\-]*)?)[`'\"]? requires "
            r"(?P<value>[A-Z][\w.+\-]*(?: [A-Z][\w.]*)? \d+(?:\.\d+)*\+?(?: or (?:later|newer|higher|above))?)"
        ),
    ),
    (
        "released",
        0.8,
        re.compile(
            r"(?:^|[.;] )(?:The |the )?[`'\"]?(?P<entity>[A-Za-z][\w.\-]*(?: v?\d[\w.\-]*)?)[`'\"]? was "
            r"(?:first )?released (?:on|in) "
            r"(?P<value>\d{4}-\d\d-\d\d|(?:\d{1,2} )?[A-Z][a-z]+ (?:\d{1,2}, )?\d{4}|\d{4})(?=[\s.,;)]|$)"
        ),
    ),
    (
        "is",
        0.6,
        re.compile(
            r"^(?:The |A |An )?[`'\"]?(?P<entity>[A-Za-z][\w.\-]*(?: [A-Za-z][\w\-]*){0,2})[`'\"]? is "
            r"(?P<value>(?:an?|the) [a-z][^.;:]{8,140}[A-Za-z0-9)])(?=[.;]|$)"
        ),
    ),
]
_STATED_DEFAULTS = [
    (0.9, re.compile(r"^`(?P<entity>[A-Za-z_]\w*)=(?P<value>[^`]{1,40})`:")),
    (
        0.8,
        re.compile(
            r"`(?P<entity>[A-Za-z_][\w.\-]*)`:?(?: [\w-]+){0,8}? "
            r"\((?:the )?default(?:s to| is|:)? ?(?P<value>`[^`]{1,40}`|[\w.\-]+(?: [a-z]+)?)\)"
        ),
    ),
]
_CONDITION = re.compile(
    r"\b(if|when|unless|except|only|on (?:Windows|Linux|macOS|Unix|POSIX)|before version|prior to|older|was)\b", re.I
)
_SETTING = re.compile(
    r"^\s*[\"']?(?P<key>[A-Za-z][\w.\-]*)[\"']?\s*(?:=(?!=)|:(?!:))\s*(?P<value>[^{}\[\]]*?)\s*,?\s*(?:#.*|;.*)?$"
)
_TABLE = re.compile(r"^\s*\[+([\w.\-\" ]+)\]+\s*$")
_DEFAULT_LINE = re.compile(
    r"^\s*(?:[*\-]\s+)?[*`]*defaults?[*`]*\s*:\s*[*`]*\s*(?P<value>[^\s].{0,60}?)[*`.]*\s*$", re.I
)
_SETTINGS_FILES = (".toml", ".ini", ".cfg", ".yaml", ".yml", ".conf", ".json")
_VAGUE = frozenset(
    (
        "it",
        "this",
        "that",
        "which",
        "they",
        "value",
        "default",
        "option",
        "setting",
        "parameter",
        "one",
        "none",
        "and",
        "there",
        "what",
    )
)
_VAGUE_VALUES = frozenset(
    "the a an this that its it as to not used set on in be you your what whatever also always no".split()
)


def findings_of(document: dict[str, Any], scorer: Scorer, suffix: str) -> list[Finding]:
    """The findings of a located document that bear on the question, the surest first, each statement once."""
    found = [
        finding
        for passage in document["passages"]
        for block in passage["blocks"]
        for finding in _from_block(block, passage, document, scorer, suffix)
    ]
    unique: dict[tuple[str, str, str], Finding] = {}
    for finding in sorted(found, key=lambda f: -f.confidence):
        unique.setdefault((finding.entity.lower(), finding.attribute, str(finding.value).lower()), finding)
    return list(unique.values())


def _from_block(
    block: dict[str, Any], passage: dict[str, Any], document: dict[str, Any], scorer: Scorer, suffix: str
) -> Iterator[Finding]:
    kind, lines = block["kind"], [(number, line) for number, line in block["lines"]]
    if kind in ("prose", "item"):
        yield from _from_prose(lines, kind, passage, document, scorer)
        yield from _from_default_lines(lines, passage, document, scorer)
    elif kind in ("setting", "signature", "row"):
        yield from declared_findings(block, passage, document, scorer)
    elif kind == "data" and suffix in _SETTINGS_FILES:
        yield from _from_settings(lines, passage, document, scorer)


def _from_stated_defaults(
    sentence: Sentence, passage: dict[str, Any], document: dict[str, Any], scorer: Scorer, is_source: bool
) -> Iterator[Finding]:
    """`` `name` ... (default: V) `` and a documented parameter ``name=V``.

    In source code a name counts only where it stands: the name of its function, else of its module, goes before it.
    """
    for confidence, pattern in _STATED_DEFAULTS:
        match = pattern.search(sentence.text)
        if match and scorer.share(scorer.covered(match["entity"])) >= 0.2:
            named = re.fullmatch(r"[A-Za-z_][\w.]*", passage["heading"])
            prefix = f"{passage['heading'] if named else module_of(document['path'])}." if is_source else ""
            evidence = evidence_of(document, passage, sentence.line_start, sentence.line_end, sentence.text)
            value = match["value"].strip("`'\" .")
            yield Finding(f"{prefix}{match['entity']}", "default", value, confidence, [evidence])
            return


def _from_prose(
    lines: list[tuple[int, str]], kind: str, passage: dict[str, Any], document: dict[str, Any], scorer: Scorer
) -> Iterator[Finding]:
    is_source = PurePath(document["path"]).suffix.lower() in SOURCE_SUFFIXES
    for sentence in sentences_of(lines, kind):
        yield from _from_stated_defaults(sentence, passage, document, scorer, is_source)
        if not worth_quoting(sentence.text, kind) and len(sentence.text.split()) > 12:
            continue
        for attribute, confidence, pattern in _PATTERNS:
            match = pattern.search(sentence.text)
            if not match:
                continue
            entity, value = _trimmed(match["entity"]), match["value"].strip(" .,`'\"")
            if not _speaks(entity, value, attribute) or not _relevant(entity, attribute, sentence.text, scorer):
                continue
            if _CONDITION.search(sentence.text) and attribute != "is":
                confidence -= 0.3
            evidence = evidence_of(document, passage, sentence.line_start, sentence.line_end, sentence.text)
            yield Finding(entity, attribute, value, round(confidence, 2), [evidence])
            break


def _trimmed(entity: str) -> str:
    """The name without the words around it that are not part of it."""
    parts = entity.split()
    while parts and (parts[0].lower() in STOP_WORDS or parts[0].lower() in _VAGUE):
        parts = parts[1:]
    while parts and (
        parts[-1].lower() in STOP_WORDS or parts[-1].lower() in ("value", "option", "setting", "parameter")
    ):
        parts = parts[:-1]
    return " ".join(parts)


def _speaks(entity: str, value: str, attribute: str) -> bool:
    inner = {word.lower() for word in entity.split()}
    if not entity or not value or inner & _VAGUE or (len(inner) > 1 and inner & STOP_WORDS):
        return False
    return attribute == "is" or value.lower().split()[0] not in _VAGUE_VALUES


def _relevant(entity: str, attribute: str, text: str, scorer: Scorer) -> bool:
    """The entity names what the question asks about, or the whole sentence covers most of the question."""
    in_entity = scorer.covered(entity)
    if attribute == "is":
        return scorer.share(in_entity) >= 0.3 and len(in_entity) >= max(1, len(words(entity)) - 1)
    return scorer.share(in_entity) >= 0.2 or scorer.share(scorer.covered(text)) >= 0.6


def _from_default_lines(
    lines: list[tuple[int, str]], passage: dict[str, Any], document: dict[str, Any], scorer: Scorer
) -> Iterator[Finding]:
    """ "Default: V" below a heading that is the setting's name."""
    heading = passage["heading"].strip("`'\" ")
    if not re.fullmatch(r"[A-Za-z][\w.\-]*", heading) or not scorer.covered(heading):
        return
    for number, line in lines:
        if match := _DEFAULT_LINE.match(line):
            evidence = evidence_of(document, passage, number, number, line.strip())
            yield Finding(heading, "default", match["value"].strip(" `*"), 0.9, [evidence])


def _from_settings(
    lines: list[tuple[int, str]], passage: dict[str, Any], document: dict[str, Any], scorer: Scorer
) -> Iterator[Finding]:
    table = ""
    for number, line in lines:
        if header := _TABLE.match(line):
            table = header[1].strip('" ')
        elif match := _SETTING.match(line):
            value = match["value"].strip().strip("\"'")
            key = f"{table}.{match['key']}" if table else match["key"]
            stems = {stem(part) for part in re.split(r"[_.\-]+", match["key"])}
            asked = {stem(term) for term in scorer.weights} | {
                stem(p) for t in scorer.weights for p in re.split(r"[_.\-]", t)
            }
            if value and len(value) <= 80 and stems & asked:
                yield Finding(key, "value", value, 0.9, [evidence_of(document, passage, number, number, line.strip())])
