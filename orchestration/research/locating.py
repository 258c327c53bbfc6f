"""Choosing the documents that speak to a question: a full-text index over all passages, then the best documents."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import PurePath
from typing import Any

from ...errors import CeleriacError
from ...storage.passages import PassageIndex
from .files import Unreadable, walk
from .reading import Document, read_document
from .related import related
from .terms import prefixes, question_terms, stems_of, weigh

#: How many passages of a document go on to be analysed, and how many hits of the whole search are looked at.
PASSAGES_PER_DOCUMENT = 14
_HITS = 1500
_ALWAYS = 8
#: Of so many of the strongest terms every two are looked for within so many words of one another.
_NEAR_TERMS, _NEAR_WORDS = 4, 12
#: A passage that holds this share of the question speaks to it: change logs need not be read then.
_ANSWERED = 0.75
_RECORDS = re.compile(
    r"(^|[/_.-])(change(s|log)?|news|history|release.?notes|relnotes|copying|copyright|licen[cs]e)", re.I
)
_TRIALS = re.compile(r"(^|/)(tests?|testing|t|fixtures|locale|po|examples?)/|(^|/)test_[^/]*$", re.I)
_RECORD_WORDS = frozenset(
    ("version", "releas", "chang", "new", "histori", "licens", "copyright", "when", "since", "add")
)


@dataclass(slots=True)
class Located:
    """What was located: documents as JSON, skipped files, counts, and each term's weight."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Indexed:
    """The index, and of every passage the document and its place in it."""

    index: PassageIndex
    folders: list[str]
    places: list[tuple[int, int]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    #: How each document was read, to read it in the same way again.
    wanted: list[list[str]] = field(default_factory=list)
    least: list[int] = field(default_factory=list)


def locate_documents(question: str, folders: list[str], limit: int, ctx: Any) -> Located:
    """The up to `limit` best documents below `folders` for a question, with their best passages.

    Change logs and licences are read only where the question asks for such or nothing else speaks to it. Raises
    CeleriacError for an empty question, and as `walk` does for missing and empty folders.
    """
    terms = question_terms(question)
    if not terms:
        raise CeleriacError(f"the question {question!r} holds no word to search for")
    found = walk(folders)
    located = Located(skipped=list(found.skipped))
    indexed = _Indexed(PassageIndex(), folders)
    asks_records = bool(stems_of(question.lower()) & _RECORD_WORDS)
    records = [] if asks_records else [path for path in found.files if _RECORDS.search(_inside(path, folders))]
    try:
        _index_all(sorted(set(found.files) - set(records)), terms, indexed, located, ctx)
        located.weights = _weights(indexed, terms)
        ranking = _rank(indexed, terms, located.weights, asks_records)
        if records and (not ranking or ranking[0].coverage < _ANSWERED):
            _index_all(records, terms, indexed, located, ctx)
            located.weights = _weights(indexed, terms)
            ranking = _rank(indexed, terms, located.weights, asks_records)
            records = []
    finally:
        indexed.index.close()
    located.documents = _documents(ranking[:limit], indexed, located)
    unread = len(located.skipped) - len(found.skipped) + len(records)
    located.counts = {
        "files": len(found.files) + len(found.skipped),
        "documents read": len(found.files) - unread,
        "documents with the question's words": len(indexed.paths),
        "passages indexed": len(indexed.places),
    }
    if records:
        located.counts["change logs and licences left out"] = len(records)
    return located


def _inside(path: str, folders: list[str]) -> str:
    """A path as it is below the folder that was asked for: what that folder is called says nothing of the file."""
    return min((os.path.relpath(path, f) for f in folders if path.startswith(f)), key=len, default=path)


def _index_all(files: list[str], terms: list[str], indexed: _Indexed, located: Located, ctx: Any) -> None:
    """Index every document that holds the question's words: two of them where there are three or more, else one."""
    wanted = [prefixes([term, *related(term)]) for term in terms]
    second_choice: list[str] = []
    indexed.wanted = wanted
    least = 2 if len(terms) > 2 else 1
    before = len(indexed.places)
    for number, path in enumerate(files):
        if number % 50 == 0:
            ctx.check()
            ctx.progress(0.9 * number / len(files), f"{number} of {len(files)} files")
        if _index_one(path, wanted, least, indexed, located):
            continue
        if least > 1:
            second_choice.append(path)
    if len(indexed.places) == before:
        for path in second_choice:
            _index_one(path, wanted, 1, indexed, located)


def _index_one(path: str, wanted: list[list[str]], least: int, indexed: _Indexed, located: Located) -> bool:
    try:
        document = read_document(path, wanted, least)
    except Unreadable as error:
        if (path, str(error)) not in located.skipped:
            located.skipped.append((path, str(error)))
        return True
    except RecursionError:
        located.skipped.append((path, "nested too deeply"))
        return True
    if document is None:
        return False
    if document.digest in indexed.digests:
        located.skipped.append((path, f"the same text as {indexed.digests[document.digest]}"))
        return True
    indexed.digests[document.digest] = path
    number = len(indexed.paths)
    indexed.paths.append(path)
    indexed.least.append(least)
    indexed.titles.append(document.title)
    indexed.index.add((_heading(document, passage.heading), passage.text) for passage in document.passages)
    indexed.places += [(number, ordinal) for ordinal in range(len(document.passages))]
    return True


def _heading(document: Document, heading: str) -> str:
    return heading if heading == document.title else f"{document.title} {heading}"


def _holding(indexed: _Indexed, terms: list[str]) -> dict[str, set[int]]:
    """For each term the passages that hold it or a word that means it."""
    return {term: set().union(*map(indexed.index.holding, (term, *related(term)))) for term in terms}


def _weights(indexed: _Indexed, terms: list[str]) -> dict[str, float]:
    total = indexed.index.count
    return weigh({term: len(ids) for term, ids in _holding(indexed, terms).items()}, total)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A document's score, its number, its passages as (score, place), the share of the question its best one holds."""

    score: float
    document: int
    passages: list[tuple[float, int]]
    coverage: float


def _rank(indexed: _Indexed, terms: list[str], weights: dict[str, float], asks_records: bool) -> list[_Ranked]:
    """The documents, best first.

    A passage scores its BM25 times the square of the share of the question's weight that it covers, more where two
    of the question's words stand close together; a document scores its best passage, half its second and so on, and
    more where its title or path names the question's terms.
    """
    whole = sum(weights.values()) or 1.0
    holding = _holding(indexed, terms)
    strongest = sorted((term for term in terms if weights[term]), key=lambda term: -weights[term])[:_NEAR_TERMS]
    near = [indexed.index.near(one, other, _NEAR_WORDS) for one, other in combinations(strongest, 2)]
    by_document: dict[int, list[tuple[float, int]]] = defaultdict(list)
    coverage: dict[int, float] = defaultdict(float)
    searched = [word for term in terms for word in (term, *related(term))]
    for hit in indexed.index.search(searched, _HITS):
        covered = sum(weight for term, weight in weights.items() if hit.id in holding[term]) / whole
        close = 1 + 0.5 * sum(hit.id in ids for ids in near)
        document, ordinal = indexed.places[hit.id]
        coverage[document] = max(coverage[document], covered)
        by_document[document].append((round((max(hit.score, 0.0) + 0.1) * covered**2 * close, 6), ordinal))
    ranking = []
    for document, passages in by_document.items():
        passages.sort(key=lambda pair: (-pair[0], pair[1]))
        score = sum(value / 2**place for place, (value, _) in enumerate(passages[:5]))
        path = indexed.paths[document]
        named = stems_of(f"{indexed.titles[document]} {PurePath(path).name} {PurePath(path).parent.name}")
        inside = _inside(path, indexed.folders)
        share = sum(weight for term, weight in weights.items() if stems_of(term) <= named) / whole
        score *= (1 + share) * (1.0 if asks_records or not _RECORDS.search(inside) else 0.5)
        score *= 0.5 if _TRIALS.search(inside) else 1.0
        ranking.append(_Ranked(round(score, 6), document, passages, coverage[document]))
    ranking.sort(key=lambda entry: (-entry.score, indexed.paths[entry.document]))
    # Among few documents no score means much: the best are all read, and what they say is weighed sentence by sentence.
    return [entry for place, entry in enumerate(ranking) if place < _ALWAYS or entry.score >= 0.08 * ranking[0].score]


def _documents(ranking: list[_Ranked], indexed: _Indexed, located: Located) -> list[dict[str, Any]]:
    """The chosen documents, read again for their passages; one that vanished meanwhile is skipped."""
    chosen = []
    for entry in ranking:
        path = indexed.paths[entry.document]
        try:
            document = read_document(path, indexed.wanted, indexed.least[entry.document])
        except Unreadable as error:
            located.skipped.append((path, str(error)))
            continue
        if document is None:
            located.skipped.append((path, "changed while reading"))
            continue
        best = [
            (value, ordinal)
            for value, ordinal in entry.passages[:PASSAGES_PER_DOCUMENT]
            if ordinal < len(document.passages)
        ]
        best.sort(key=lambda pair: pair[1])
        chosen.append(
            {
                "path": path,
                "title": document.title,
                "score": entry.score,
                "passages": [{**document.passages[ordinal].to_dict(), "score": value} for value, ordinal in best],
            }
        )
    return chosen
