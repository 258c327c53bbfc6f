"""Putting the documents' notes and findings side by side: what agrees, what conflicts, what is said twice."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from ..agents import Finding, Severity
from ..conflicts import severity as severity_by_confidence
from .terms import stem, words

#: Attributes with one right answer at a time; two definitions ("is") differ in words without disagreeing.
COMPARABLE = frozenset(("default", "maximum", "minimum", "limit", "requires", "released", "value"))
#: How sure a value is of which its document gives another as well.
_UNSURE = 0.45
_DECISIVE = frozenset(
    stem(word)
    for word in "not no never cannot without one two three four five six seven eight nine ten true false none".split()
)
_SECONDS = {
    "ms": 0.001,
    "millisecond": 0.001,
    "microsecond": 1e-6,
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "week": 604800,
}
_BYTES = {
    "byte": 1,
    "kb": 1000,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1024,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_TRUE, _FALSE = ("true", "yes", "on", "enabled", "1"), ("false", "no", "off", "disabled", "0")


def normal_value(value: Any) -> str:
    """A value for comparing: `1 hour` and `3600 seconds` are one, so are `True` and `enabled`, `"x"` and `x`."""
    text = " ".join(str(value).lower().replace("_", " ").strip(" .`'\"").split())
    match = re.fullmatch(r"(\d[\d,.]*?)\s*([a-z]+|%)", text)
    if match:
        number, unit = float(match[1].replace(",", "").rstrip(".") or 0), match[2].removesuffix("s")
        if unit in _SECONDS:
            return f"{number * _SECONDS[unit]:g} s"
        if (unit if unit in _BYTES else match[2]) in _BYTES:
            return f"{number * _BYTES[unit if unit in _BYTES else match[2]]:g} bytes"
        return f"{number:g} {unit}"
    if re.fullmatch(r"\d[\d,]*(\.\d+)?", text):
        return f"{float(text.replace(',', '')):g}"
    return "true" if text in _TRUE else "false" if text in _FALSE else text


def _entity_key(entity: str) -> str:
    return " ".join(word.lower().strip("`'\"-") for word in entity.split())


def group_findings(findings: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Findings with the same entity, attribute and value as one (evidence of all, surer with each further document),
    and the conflicts among them.

    Each finding is `{entity, attribute, value, confidence, evidence, exclusive}`. One that is not exclusive is true
    only where it stands (a name in a source file), and conflicts with none. Confidence of an agreement: one minus the
    product of the doubts of its documents, 0.99 at most.
    """
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for finding in findings:
        groups[_entity_key(finding["entity"]), finding["attribute"]][normal_value(finding["value"])].append(finding)
    merged: list[dict[str, Any]] = []
    conflicts: list[dict[str, Any]] = []
    for (_, attribute), values in groups.items():
        sides = [_merge(same) for same in values.values()]
        sides.sort(key=lambda side: (-side["confidence"], -len(side["evidence"]), str(side["value"])))
        merged += sides if attribute in COMPARABLE else sides[:1]
        rivals = [side for side in sides if side.get("exclusive", True)]
        if attribute in COMPARABLE and len(rivals) > 1 and (conflict := _conflict(attribute, rivals)):
            conflicts.append(conflict)
    merged.sort(key=lambda finding: (-finding["confidence"], finding["entity"].lower(), finding["attribute"]))
    rank = {"high": 0, "medium": 1, "low": 2}
    conflicts.sort(key=lambda conflict: (rank[conflict["severity"]], conflict["entity"].lower()))
    return merged, conflicts


def _merge(same: list[dict[str, Any]]) -> dict[str, Any]:
    doubt_by_path: dict[str, float] = {}
    evidence: list[dict[str, Any]] = []
    for finding in same:
        for place in finding["evidence"]:
            if place not in evidence:
                evidence.append(place)
            doubt_by_path[place["path"]] = min(doubt_by_path.get(place["path"], 1.0), 1 - finding["confidence"])
    doubt = 1.0
    for part in doubt_by_path.values():
        doubt *= part
    best = max(same, key=lambda finding: finding["confidence"])
    confidence = round(min(0.99, 1 - doubt), 2)
    return {
        **best,
        "confidence": max(confidence, best["confidence"]),
        "evidence": evidence,
        "documents": sorted(doubt_by_path),
    }


def _conflict(attribute: str, sides: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The conflict between sides with different values, or None where one merely says the other more fully.

    Severity: high where two documents each say it plainly (confidence 0.8 or more); medium where one is less plain
    about it (0.5 or more), low below that, and where a single document gives the values: then each likely holds in its
    own place, and none is sure.
    """
    distinct = [side for side in sides if not any(_fuller(other, side) for other in sides if other is not side)]
    if len(distinct) < 2:
        return None
    first, second = distinct[:2]
    together = bool(set(first["documents"]) & set(second["documents"]))
    for side in distinct:
        side["in_conflict"] = True
        side["confidence"] = min(side["confidence"], _UNSURE) if together else side["confidence"]
    severity: Severity = severity_by_confidence(first, second)  # type: ignore[assignment]
    kind = "version" if attribute in ("requires", "released") else "value"
    where = (
        "one document, which gives both"
        if together
        else f"{len({p for s in distinct for p in s['documents']})} documents"
    )
    return {
        "entity": first["entity"],
        "attribute": attribute,
        "type": kind,
        "severity": severity,
        "values": [{"value": str(side["value"]), "evidence": side["evidence"]} for side in distinct],
        "explanation": f"Different values in {where}.",
        "resolution": _resolution(first, second),
    }


def settled(merged: list[dict[str, Any]]) -> list[Finding]:
    """The findings of `group_findings` that can be compared, for the session.

    Those in a conflict are exclusive, so that the session's conflicts are those of the report; values that mean the
    same are one by now and raise none.
    """
    return [
        Finding(f["entity"], f["attribute"], f["value"], f["confidence"], f["evidence"], bool(f.get("in_conflict")))
        for f in merged
        if compared(f)
    ]


def compared(finding: dict[str, Any]) -> bool:
    """Whether what one document says here can disagree with what another says."""
    return finding["attribute"] in COMPARABLE and bool(finding.get("exclusive", True))


def _fuller(one: dict[str, Any], other: dict[str, Any]) -> bool:
    mine, theirs = normal_value(one["value"]), normal_value(other["value"])
    return mine != theirs and bool(re.match(rf"{re.escape(theirs)}\b", mine)) and not re.match(r"[\d.]+", theirs)


def _resolution(first: dict[str, Any], second: dict[str, Any]) -> str:
    if len(first["documents"]) > len(second["documents"]):
        return f"More documents say {first['value']}."
    if first["confidence"] > second["confidence"]:
        return f"{first['value']} is said more plainly."
    return "Not decided: both are said equally plainly."


def merge_notes(notes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Notes with near-duplicates (four fifths of their words in common) put together, best first.

    The best wording stays; `also` lists the other places that say it, and each further document lifts its score by 5 %.
    """
    kept: list[tuple[frozenset[str], dict[str, Any]]] = []
    for note in sorted(notes, key=lambda n: (-n["score"], n["path"], n["line_start"])):
        mine = frozenset(stem(word) for word in words(note["text"]))
        twin = next((known for tokens, known in kept if _similar(mine, tokens)), None)
        if twin is None:
            kept.append((mine, {**note, "also": []}))
        elif note["path"] != twin["path"] and all(note["path"] != place["path"] for place in twin["also"]):
            twin["also"].append({key: note[key] for key in ("path", "line_start", "line_end", "page", "title", "text")})
            twin["score"] = round(twin["score"] * 1.05, 4)
    return sorted((note for _, note in kept), key=lambda n: (-n["score"], n["path"], n["line_start"]))


def _similar(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two sentences say the same; never where one holds a number or a "not" that the other lacks."""
    if any(word in _DECISIVE or word[0].isdigit() for word in one ^ other):
        return False
    both = len(one & other)
    return both >= 0.8 * len(one | other) or both >= 0.9 * min(len(one), len(other))
