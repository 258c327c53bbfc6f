"""Values that source code and tables declare, as findings: settings, defaults of parameters, columns of defaults.

A name in source code is said with its class, function or module before it, for it means something only there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from ..agents import Finding
from .blocks import cells_of
from .scoring import Scorer
from .sentences import clean

#: A name must carry this share of the question's weight, or this with the words around it.
_NAME_SHARE, _AROUND_SHARE = 0.3, 0.6
_PARAMETER = re.compile(
    r"(?<![\w.])(?P<name>[a-z]\w*)\s*(?::[^=()]{1,60})?=\s*(?P<value>-?\d[\w.]*|True|False|'[^']*'|\"[^\"]*\")"
)
_DEFAULT_HEAD = re.compile(r"\bdefault", re.I)


def declared_findings(
    block: dict[str, Any], passage: dict[str, Any], document: dict[str, Any], scorer: Scorer
) -> Iterator[Finding]:
    """The findings of a block of kind `setting`, `signature` or `row`."""
    if block["kind"] == "setting":
        yield from _from_setting(block, passage, document, scorer)
    elif block["kind"] == "signature":
        yield from _from_signature(block, passage, document, scorer)
    else:
        yield from _from_row(block, passage, document, scorer)


def _from_setting(
    block: dict[str, Any], passage: dict[str, Any], document: dict[str, Any], scorer: Scorer
) -> Iterator[Finding]:
    symbol = passage["heading"]
    in_name = scorer.covered(symbol.replace("_", " "))
    if not in_name or scorer.share(in_name) < _NAME_SHARE:
        return
    default, declared = _default_of(block["label"])
    value, attribute = (default, "default") if default is not None else (declared, "declared as")
    lines = [(n, line) for other in passage["blocks"] if other["kind"] != "code" for n, line in other["lines"]]
    lines = [(n, line) for n, line in lines if n <= block["lines"][-1][0]]
    text = " ".join(line.strip() for _, line in lines)
    evidence = evidence_of(document, passage, lines[0][0], lines[-1][0], text)
    sure = scorer.share(in_name | scorer.covered(text)) >= _AROUND_SHARE
    entity = symbol if "." in symbol else f"{module_of(document['path'])}.{symbol}"
    yield Finding(entity, attribute, value, 0.9 if sure else 0.8, [evidence], exclusive=False)


def _default_of(label: str) -> tuple[str | None, str]:
    """The default that a setting's value gives, of `Option(30, type="int")` the 30; and the value as it stands."""
    try:
        value = ast.parse(label, mode="eval").body
    except SyntaxError:
        return None, label
    if not isinstance(value, ast.Call):
        return label, label
    named = [keyword.value for keyword in value.keywords if keyword.arg == "default"]
    first = next(iter([*named, *value.args]), None)
    return (ast.unparse(first) if isinstance(first, ast.Constant) else None), label


def _from_signature(
    block: dict[str, Any], passage: dict[str, Any], document: dict[str, Any], scorer: Scorer
) -> Iterator[Finding]:
    for number, line in block["lines"]:
        for match in _PARAMETER.finditer(line):
            if scorer.share(scorer.covered(match["name"].replace("_", " "))) >= _NAME_SHARE:
                entity = f"{passage['heading']}.{match['name']}"
                evidence = evidence_of(document, passage, number, number, line.strip())
                yield Finding(entity, "default", match["value"], 0.9, [evidence], exclusive=False)


def _from_row(
    block: dict[str, Any], passage: dict[str, Any], document: dict[str, Any], scorer: Scorer
) -> Iterator[Finding]:
    """The cell below a head such as "Default", of the thing that the first cell names."""
    number, raw = block["lines"][0]
    cells = [clean(cell).strip("` ") for cell in cells_of(raw)]
    heads = cells_of(block["label"])
    at = next((place for place, head in enumerate(heads) if place and _DEFAULT_HEAD.search(head)), None)
    if at is None or at >= len(cells) or not cells[at] or len(cells[at]) > 60 or not cells[0]:
        return
    if scorer.share(scorer.covered(cells[0])) >= 0.2 or scorer.share(scorer.covered(raw)) >= _AROUND_SHARE:
        evidence = evidence_of(document, passage, number, number, raw)
        yield Finding(cells[0].replace("`", ""), "default", cells[at], 0.9, [evidence])


def module_of(path: str) -> str:
    """The name by which a source file is imported, without its packages."""
    parts = PurePath(path)
    return parts.parent.name if parts.stem == "__init__" else parts.stem


def evidence_of(document: dict[str, Any], passage: dict[str, Any], first: int, last: int, text: str) -> dict[str, Any]:
    """The place of a finding, and the words that say it."""
    return {
        "path": document["path"],
        "line": first,
        "line_end": last,
        "page": passage["page"],
        "text": text[:400],
        "title": document["title"],
    }
