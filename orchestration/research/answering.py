"""The report that answers a question: the answer first, then what each document adds, all of it cited."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

from ..reports.model import Report, ReportConflict, ReportFinding, Section
from .citations import Citations, inline
from .model import Spent, write_with_model
from .scoring import Scorer
from .terms import STOP_WORDS

_SUMMARY_SENTENCES = 5
_SUMMARY_PER_DOCUMENT = 3  # unless there are few documents
_SECTION_SENTENCES = 4  # likewise, in the section of a document
_MORE_SENTENCES = 10  # in the sections, all together
_FINDINGS = 30
_STATED = 6
#: A sentence that holds this share of the question's weight, with the heading above it, answers it.
_FITTING = 0.6
#: A sentence must hold this share of what the fullest one holds of the question.
_COVERAGE_FLOOR, _SCORE_FLOOR = 0.62, 0.4
#: So many good sentences are an answer; where there are fewer, others that hold a telling word are shown as well.
_ENOUGH = 5
#: A sentence must score this much of the best one to be shown, in the summary and in the sections.
_SUMMARY_FLOOR, _SECTION_FLOOR = 0.6, 0.52
_ASKS_VALUE = re.compile(r"\b(defaults?|limits?|how (many|much|long|often|large|big)|maximum|minimum|value)\b", re.I)
_SYMBOL = re.compile(r"--?[\w-]+|[A-Za-z_]\w*(\.\w+)*")


def build_report(request: dict[str, Any]) -> tuple[Report, Spent]:
    """The report from a `synthesise` request (see `documents.synthesise`), and what a model took to write it."""
    check, located, model = request["check"], request["located"], request.get("model") or ""
    weights: dict[str, float] = located["weights"]
    citations = Citations()
    notes = check["notes"]
    scorer = Scorer(request["question"], weights)
    relevant = sorted(check["findings"], key=lambda finding: -_relevance(finding, scorer))
    written, spent = _written(request["question"], notes, model, citations) if model and notes else (None, Spent())
    summary, sections = written or _extracted(request["question"], notes, relevant, scorer, citations)
    asks_value = bool(_ASKS_VALUE.search(request["question"]))
    least = (0.4 if asks_value else 0.7) * _relevance(relevant[0], scorer) if relevant else 0.0
    relevant = [finding for finding in relevant if _relevance(finding, scorer) >= least]
    findings = [_finding(finding, citations) for finding in relevant[: _FINDINGS if asks_value else _FINDINGS // 2]]
    conflicts = [_conflict(conflict, citations) for conflict in check["conflicts"]]
    count = len({source.path for source in citations.sources})
    report = Report(
        title=f"Answer from {count} document{'' if count == 1 else 's'}" if count else "No answer found",
        question=request["question"],
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=summary,
        sections=sections,
        findings=findings,
        conflicts=conflicts,
        sources=citations.sources,
        skipped=[(path, reason) for path, reason in located["skipped"]],
        facts=_facts(check, located, model, bool(written), Spent(**check["spent"]) + spent),
    )
    return report, spent


def _cite(note: dict[str, Any], citations: Citations) -> str:
    places = [note, *note["also"]]
    numbers = [
        citations.number(p["path"], p["line_start"], p["line_end"], p["text"], p["title"], p["page"])
        for p in places[:3]
    ]
    return "".join(f"[{number}]" for number in numbers)


def _extracted(
    question: str,
    notes: list[dict[str, Any]],
    findings: list[dict[str, Any]],
    scorer: Scorer,
    citations: Citations,
) -> tuple[list[str], list[Section]]:
    """Summary and sections in the documents' own sentences; stated values first where the question asks for one."""
    strong = _strong(notes, scorer)
    chosen = _choose(strong, scorer)
    stated = _stated(findings, scorer, citations) if _ASKS_VALUE.search(question) or not _fits(chosen, scorer) else []
    summary = [*([] if stated else _preface(chosen, scorer)), *stated]
    by_path: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for note in chosen:
        by_path[note["path"]].append(note)
    for group in by_path.values():
        group.sort(key=lambda note: (-note["score"] if note is chosen[0] else 0, note["page"] or 0, note["line_start"]))
        summary += _paragraphs(group, citations)
    floor = _SECTION_FLOOR * chosen[0]["score"] if chosen else 0.0
    rest = [note for note in strong if note not in chosen and note["score"] >= floor]
    return summary, _sections(rest, citations)


def _paragraphs(group: list[dict[str, Any]], citations: Citations, led: bool = True) -> list[str]:
    """Each statement as a paragraph, `led` by its heading; those that follow one another in the document are one."""
    paragraphs: list[str] = []
    before: dict[str, Any] | None = None
    for note in group:
        text = f"{inline(note['text'])} {_cite(note, citations)}"
        follows = (
            before is not None
            and note.get("kind") == "prose"
            and all(before.get(key) == note[key] for key in ("heading", "page", "kind"))
        )
        if follows and before is not None and note["line_start"] - before["line_end"] in (0, 1):
            paragraphs[-1] += f" {text}"
        else:
            paragraphs.append(_lead(note) + text if led else text)
        before = note
    return paragraphs


def _lead(note: dict[str, Any]) -> str:
    """The heading above a statement, in bold: of source code the name that it belongs to."""
    heading = note["heading"]
    if not heading or len(heading) > 60 or heading.lower() in note["text"].lower():
        return ""
    return f"**{_named(heading)}:** "


def _named(heading: str) -> str:
    heading = heading.rstrip(": ")
    return f"`{heading}`" if _SYMBOL.fullmatch(heading) and re.search(r"[._(-]", heading) else inline(heading)


def _fits(chosen: list[dict[str, Any]], scorer: Scorer) -> bool:
    """Whether some note covers most of the question, or a model chose it."""
    return any("statement" in note or scorer.share(set(note["covered"])) >= _FITTING for note in chosen)


def _relevance(finding: dict[str, Any], scorer: Scorer) -> float:
    """The share of the question that a finding's name and words carry, the name counting twice."""
    named = scorer.covered(f"{finding['entity'].replace('_', ' ')} {finding['attribute']}")
    said = scorer.covered(" ".join(place["text"] for place in finding["evidence"][:2]))
    return round(2 * scorer.share(named) + scorer.share(said | named), 2)


def _stated(findings: list[dict[str, Any]], scorer: Scorer, citations: Citations) -> list[str]:
    """The surest and most fitting values as one paragraph: for a question about a setting, they are the answer."""
    sure = [f for f in findings if f["attribute"] != "is" and f["confidence"] >= 0.8]
    best = max((_relevance(finding, scorer) for finding in sure), default=0.0)
    sure = [finding for finding in sure if _relevance(finding, scorer) >= max(1.2, 0.6 * best)][:_STATED]
    if not sure:
        return []
    spoken = [
        f"`{f['entity']}`{'' if f['attribute'] == 'value' else ' ' + f['attribute']}: `{str(f['value']).strip('`')}` "
        + "".join(f"[{number}]" for number in _numbers(f["evidence"][:2], citations))
        for f in sure
    ]
    return [f"Stated values: {'; '.join(spoken)}."]


def _strong(notes: list[dict[str, Any]], scorer: Scorer) -> list[dict[str, Any]]:
    """The notes that hold one of the question's telling words, or most of its words, and come near the best one.

    A weak crowd says less than a few good sentences.
    """
    most = max(scorer.weights.values(), default=0.0)
    telling = {term for term, weight in scorer.weights.items() if weight >= 0.6 * most}
    fitting = [
        note
        for note in notes
        if "statement" in note or telling & set(note["covered"]) or scorer.share(set(note["covered"])) >= _FITTING
    ]  # a note with a statement was chosen by a model, which knows better than a count of words
    best = max((scorer.share(set(note["covered"])) for note in fitting), default=0.0)
    near = [note for note in fitting if note["score"] >= max(0.2, _SCORE_FLOOR * fitting[0]["score"])]
    full = [n for n in near if "statement" in n or scorer.share(set(n["covered"])) >= _COVERAGE_FLOOR * best]
    return full if len(full) >= _ENOUGH else near[:_ENOUGH]


def _choose(notes: list[dict[str, Any]], scorer: Scorer) -> list[dict[str, Any]]:
    """Up to five notes: the best, then those that are good and add terms or another document."""
    chosen: list[dict[str, Any]] = []
    covered: set[str] = set()
    pool = list(notes[:40])
    most = _SUMMARY_SENTENCES if len({note["path"] for note in pool}) < 3 else _SUMMARY_PER_DOCUMENT
    while pool and len(chosen) < _SUMMARY_SENTENCES:
        used = Counter(note["path"] for note in chosen)
        gains = [
            note["score"] * (1 + 0.5 * scorer.share(set(note["covered"]) - covered)) * 0.9 ** used[note["path"]]
            for note in pool
        ]
        best = pool.pop(gains.index(max(gains)))
        low = chosen and best["score"] < _SUMMARY_FLOOR * chosen[0]["score"]
        if used[best["path"]] >= most or low:
            continue
        chosen.append(best)
        covered |= set(best["covered"])
    return chosen


def _preface(chosen: list[dict[str, Any]], scorer: Scorer) -> list[str]:
    """What a reader must know before relying on the answer: words found nowhere, or no sentence that fits well."""
    missing = [term for term, weight in scorer.weights.items() if weight == 0 and term.lower() not in STOP_WORDS]
    preface = []
    if not chosen:
        preface.append("**The documents hold no sentence that answers this.**")
    elif not _fits(chosen, scorer):
        preface.append("**No single sentence in these documents answers the whole question.** The closest are these.")
    if missing:
        preface.append(f"None of the documents mentions {_listed(missing)}.")
    return [" ".join(preface)] if preface else []


def _listed(terms: list[str]) -> str:
    quoted = [f"“{term}”" for term in terms]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _sections(notes: list[dict[str, Any]], citations: Citations) -> list[Section]:
    """What else the documents say, the best ten statements: one section a document, or a heading where there are few
    documents, in the document's order."""
    few = len({note["path"] for note in notes}) < 3
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    most = _MORE_SENTENCES if few else _SECTION_SENTENCES
    for note in notes:
        group = groups[note["path"], note["heading"] if few else ""]
        if sum(map(len, groups.values())) < _MORE_SENTENCES and len(group) < most:
            group.append(note)
    sections = []
    filled = {key: group for key, group in groups.items() if group}  # in the order of their best notes
    places = {path: group[0]["title"] for (path, _), group in filled.items()}
    titles = list(places.values())
    for (path, heading), group in filled.items():
        group.sort(key=lambda note: (note["page"] or 0, note["line_start"]))
        title = group[0]["title"]
        if titles.count(title) > 1:
            title = f"{title} ({'/'.join(path.rsplit('/', 2)[-2:])})"
        if heading:
            title = _named(heading) + (f" ({inline(path.rsplit('/', 1)[-1])})" if len(places) > 1 else "")
        sections.append(
            Section(title if heading else inline(title), bullets=_paragraphs(group, citations, not heading))
        )
    return sections


def _written(
    question: str, notes: list[dict[str, Any]], model: str, citations: Citations
) -> tuple[tuple[list[str], list[Section]] | None, Spent]:
    """Summary and sections as a model writes them, None where none of its paragraphs cites a note; what it took."""
    numbered: list[tuple[int, dict[str, Any]]] = []
    for note in notes[:40]:
        _cite(note, citations)
        number = citations.number(
            note["path"], note["line_start"], note["line_end"], note["text"], note["title"], note["page"]
        )
        numbered.append((number, note))
    answer, spent = write_with_model(model, question, numbered)
    if not answer.summary:
        return None, spent
    return (answer.summary, [Section(one.heading, one.paragraphs) for one in answer.sections]), spent


def _numbers(evidence: list[dict[str, Any]], citations: Citations) -> list[int]:
    found = [
        citations.number(
            p["path"], p["line"], p.get("line_end", p["line"]), p["text"], p.get("title", ""), p.get("page")
        )
        for p in evidence[:6]
    ]
    return list(dict.fromkeys(found))


def _finding(finding: dict[str, Any], citations: Citations) -> ReportFinding:
    numbers = _numbers(finding["evidence"], citations)
    return ReportFinding(finding["entity"], finding["attribute"], str(finding["value"]), finding["confidence"], numbers)


def _conflict(conflict: dict[str, Any], citations: Citations) -> ReportConflict:
    values = [(value["value"], _numbers(value["evidence"], citations)) for value in conflict["values"]]
    return ReportConflict(
        conflict["entity"],
        conflict["attribute"],
        conflict["severity"],
        values,
        conflict["explanation"],
        conflict["resolution"],
    )


def _facts(check: dict[str, Any], located: dict[str, Any], model: str, written: bool, spent: Spent) -> dict[str, Any]:
    facts: dict[str, Any] = {**located["counts"], "documents analysed": check["documents"]}
    if model:
        facts["model"] = (
            model if written else f"{model} for reading; its answer cited nothing, so this one is extracted"
        )
        facts["quotes dropped because the document does not hold them"] = check["dropped_quotes"]
        cost = "" if spent.cost is None else f", {spent.cost:.4f} US dollars"
        tokens = f"{spent.input_tokens:,} tokens in, {spent.output_tokens:,} out"
        facts["asked of the model"] = f"{spent.requests} requests, {tokens}{cost}"
    else:
        facts["model"] = "none (sentences are the documents' own)"
    return facts
