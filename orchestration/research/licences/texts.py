"""Recognising licence texts and notices by their characteristic phrases.

A paper is turned into lower case words (punctuation, comment signs and line breaks fall away), each licence has a
phrase by which its text begins, and what stands between that phrase and the next beginning decides between variants
(the 2-clause and the 3-clause BSD licence begin alike). One file may hold many texts: all of them are found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..wordmap import Words
from .names import APACHE, PUBLIC_DOMAIN, Options, gnu

_BSD_START = "redistribution and use in source and binary forms"
_MIT_START = "permission is hereby granted free of charge to any person obtaining a copy of"
_ISC_START = (
    "permission to use copy modify and or distribute this software for any purpose with or without fee is hereby"
)
_ISC_OLD = "permission to use copy modify and distribute this software for any purpose with or without fee is hereby"
_HPND_START = "permission to use copy modify and distribute this software"
_PYTHON_STACK: Options = ("PSF-2.0", "Python-2.0", "Python-2.0.1")


@dataclass(frozen=True, slots=True)
class Rule:
    """One licence: phrases one of which begins it, phrases that must all follow, phrases none of which may follow."""

    options: Options
    starts: tuple[str, ...]
    needs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    kind: str = "text"


@dataclass(slots=True)
class Hit:
    """A licence found in a paper: what it may be, where it begins (line from 1), as a full text or a short notice."""

    options: Options
    line: int
    kind: str
    before: str = field(default="", repr=False)  # the words just before it: what it applies to


def _gnu_notices(name: str, family: str, versions: tuple[str, ...]) -> list[Rule]:
    """The short notices of a GNU licence: "either version 3 ... or any later", and without the "later"."""
    rules = []
    for version in versions:
        number = version.removesuffix(".0").replace(".", " ")
        head = " ".join(f"gnu {name} general public license".split())
        published = f"{head} as published by the free software foundation"
        either = (f"{published} either version {number}",)
        only = (f"{published} version {number}", f"{head} version {number} as published by")
        rules.append(Rule(gnu(family, version, suffixes=("or-later",)), either, ("any later version",), kind="notice"))
        rules.append(Rule(gnu(family, version, suffixes=("only",)), only, kind="notice"))
    return rules


#: Tried in order at each beginning; the first whose needs are met wins.
RULES: list[Rule] = [
    Rule(("MIT-0",), (_MIT_START,), ("to deal in the software without restriction",), ("permission notice",)),
    Rule(("X11",), (_MIT_START,), ("except as contained in this notice the name", "permission notice")),
    Rule(("NCSA",), (_MIT_START,), ("redistributions of source code must retain", "deal with the software")),
    Rule(("Unicode-DFS-2016",), (_MIT_START,), ("unicode data files",)),
    Rule(("MIT",), (_MIT_START,), ("permission notice",)),
    Rule(("ZPL-2.1",), (_BSD_START,), ("source code must retain the accompanying copyright notice",)),
    Rule(
        ("Apache-1.1",),
        (_BSD_START,),
        ("apache software foundation", "products derived from this software may not be called"),
    ),
    Rule(("BSD-4-Clause",), (_BSD_START,), ("all advertising materials mentioning features",)),
    Rule(
        ("BSD-3-Clause-Clear",),
        (_BSD_START,),
        ("endorse or promote", "no express or implied licenses to any party s patent"),
    ),
    Rule(("BSD-3-Clause",), (_BSD_START,), ("endorse or promote", "in binary form must reproduce")),
    Rule(("BSD-2-Clause",), (_BSD_START,), ("source code must retain", "in binary form must reproduce")),
    Rule(("BSD-1-Clause",), (_BSD_START,), ("source code must retain",), ("in binary form",)),
    Rule(("ISC",), (_ISC_START, _ISC_OLD), ("appear in all copies",)),
    Rule(("0BSD",), (_ISC_START, _ISC_OLD), (), ("appear in all copies",)),
    Rule(("MIT-CMU",), (_HPND_START,), ("by obtaining using and or copying this software",)),
    Rule(("HPND",), (_HPND_START,), ("appear in all copies",)),
    Rule(("HPND-Markus-Kuhn",), (_HPND_START,), ("the author disclaims all warranties with regard to this software",)),
    Rule(
        ("Apache-2.0",),
        (
            "apache license version 2 0 january 2004",
            "subject to the terms and conditions of this license each contributor",
        ),
        ("each contributor hereby grants to you a perpetual",),
    ),
    Rule(("Apache-2.0",), ("licensed under the apache license version 2 0",), kind="notice"),
    Rule(APACHE[1:2], ("apache software license version 1 1",)),
    Rule(
        ("MPL-2.0",),
        (
            "mozilla public license version 2 0 1 definitions",
            "1 1 contributor means each individual or legal entity that creates",
        ),
    ),
    Rule(("MPL-1.1",), ("mozilla public license version 1 1 1 definitions",)),
    Rule(
        ("MPL-2.0",),
        (
            "subject to the terms of the mozilla public license v 2 0",
            "subject to the terms of the mozilla public license version 2 0",
        ),
        kind="notice",
    ),
    Rule(gnu("AGPL", "3.0"), ("gnu affero general public license version 3 19 november 2007",)),
    Rule(gnu("LGPL", "3.0"), ("gnu lesser general public license version 3 29 june 2007",)),
    Rule(gnu("LGPL", "2.1"), ("gnu lesser general public license version 2 1 february 1999",)),
    Rule(gnu("LGPL", "2.0"), ("gnu library general public license version 2 june 1991",)),
    Rule(gnu("GPL", "3.0"), ("gnu general public license version 3 29 june 2007",)),
    Rule(gnu("GPL", "2.0"), ("gnu general public license version 2 june 1991",)),
    *_gnu_notices("affero", "AGPL", ("3.0",)),
    *_gnu_notices("lesser", "LGPL", ("3.0", "2.1")),
    *_gnu_notices("", "GPL", ("3.0", "2.0")),
    Rule(("PSF-2.0",), ("python software foundation license version 2",), ("grants licensee a nonexclusive",)),
    Rule(
        ("Zlib",),
        ("this software is provided as is without any express or implied warranty",),
        ("origin of this software must not be misrepresented",),
    ),
    Rule(("Unlicense",), ("this is free and unencumbered software released into the public domain",)),
    Rule(("CC0-1.0",), ("cc0 1 0 universal",), ("statement of purpose",)),
    Rule(("CC-BY-4.0",), ("creative commons attribution 4 0 international public license",)),
    Rule(("CC-BY-SA-4.0",), ("creative commons attribution sharealike 4 0 international public license",)),
    Rule(
        ("CC-BY-SA-4.0",),
        ("creative commons attribution sharealike 4 0 international", "cc by sa 4 0 license"),
        kind="notice",
    ),
    Rule(("BSL-1.0",), ("boost software license version 1 0",)),
    Rule(("OFL-1.1",), ("sil open font license version 1 1",)),
    Rule(("WTFPL",), ("do what the fuck you want to public license",)),
    Rule(("EPL-2.0",), ("eclipse public license v 2 0",)),
    Rule(("Artistic-2.0",), ("the artistic license 2 0",)),
    Rule(("blessing",), ("the author disclaims copyright to this source code",), ("blessing",)),
    Rule(("Unicode-3.0",), ("unicode license v3",)),
    Rule(
        PUBLIC_DOMAIN,
        ("placed in the public domain", "dedicated to the public domain", "released into the public domain by"),
        kind="notice",
    ),
]
_STARTS: dict[str, list[Rule]] = {}
for _rule in RULES:
    for _start in _rule.starts:
        _STARTS.setdefault(_start, []).append(_rule)
_ANY_START = re.compile("|".join(re.escape(s) for s in sorted(_STARTS, key=len, reverse=True)))


def recognise(text: str) -> list[Hit]:
    """Every licence whose text or notice stands in `text`, in order, each licence once."""
    words = Words(enumerate(text.splitlines(), 1))
    starts = [(match.start(), match.group()) for match in _ANY_START.finditer(words.text)]
    hits: list[Hit] = []
    for index, (offset, start) in enumerate(starts):
        end = next((o for o, other in starts[index + 1 :] if _STARTS[other][0] != _STARTS[start][0]), len(words.text))
        segment = words.text[offset:end]
        rule = _rule_for(start, segment, words.text[offset : offset + 1500])
        before = words.text[max(0, offset - 300) : offset]
        if rule is not None and not before.endswith("text of the creative commons public licenses is "):
            hits.append(Hit(rule.options, words.line_at(offset), rule.kind, before))
    return _tidy(hits, words)


def _rule_for(start: str, segment: str, ahead: str) -> Rule | None:
    for rule in _STARTS[start]:
        body = ahead if rule.kind == "notice" else segment
        if all(need in body for need in rule.needs) and not any(banned in segment for banned in rule.without):
            return rule
    return None


def _tidy(hits: list[Hit], words: Words) -> list[Hit]:
    """Drop what is part of another text: notices at a text's end, the history below Python's licence."""
    if "beopen python license agreement" in words.text or "cwi license agreement" in words.text:
        hits = _python_stack(hits, words)
    kept: list[Hit] = []
    for hit in hits:
        family = hit.options[0].rsplit("-", 2)[0].split("-")[0]
        after_text = any(k.kind == "text" and k.options[0].split("-")[0] == family for k in kept)
        if hit.kind == "notice" and after_text:
            continue
        if all(k.options != hit.options for k in kept):
            kept.append(hit)
    return kept


def _python_stack(hits: list[Hit], words: Words) -> list[Hit]:
    """CPython's LICENSE is one licence made of five texts; all from the PSF's text to the last one are that licence."""
    first = words.text.find("python software foundation license version 2")
    last = max(words.text.find("cwi license agreement"), words.text.find("beopen python license agreement"))
    documentation = words.text.find("zero clause bsd license for code in the python documentation")
    tail = documentation if documentation >= 0 else last
    begin, end = words.line_at(max(first, 0)), words.line_at(tail)
    # The text that follows the last heading (CWI's, or the documentation's) belongs to the stack as well.
    following = [hit.line for hit in hits if hit.line >= end]
    end = following[0] if following and following[0] - end < 12 else end
    outside = [hit for hit in hits if not begin <= hit.line <= end]
    stack = Hit(_PYTHON_STACK, begin, "text")
    return sorted([*outside, stack], key=lambda hit: hit.line)
