"""The licence report: which package carries what, what that asks for, and what needs a look."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from ...agents import AgentOutput
from ...reports.model import Report, ReportConflict, ReportFinding, Section, Table
from ..citations import Citations, inline
from .names import expression_of, symbols_of
from .obligations import category_of_licence, obligations_of

QUESTION = "Which licence does each installed package carry, what does it ask for, and where do its papers disagree?"


def synthesise(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Write the licence report.

    Request: `packages` (the data of every `analyze`), `check` (that of `crosscheck`), `located` (that of `locate`),
    `question`. Data: the report as `Report.to_dict()` gives it.
    """
    packages = sorted(request["packages"], key=lambda package: package["entity"].lower())
    check, located = request["check"], request["located"]
    citations = Citations()
    table = _package_table(packages, check, citations)
    look = _look_at(packages, check, citations)
    sections = [Section("What needs a look", bullets=look)] if look else []
    sections.append(Section("Packages", tables=[table]))
    sections.append(_obligations(packages))
    if parts := _parts(packages, citations):
        sections.append(parts)
    conflicts = [_conflict(conflict, citations) for conflict in check["conflicts"]]
    findings = [_finding(package, citations) for package in packages if package["licence"]]
    report = Report(
        title=f"Licences of {len(packages)} installed packages",
        question=request.get("question") or QUESTION,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        summary=_summary(packages, check, bool(look)),
        sections=sections,
        findings=findings,
        conflicts=conflicts,
        sources=citations.sources,
        skipped=_skipped(packages, located),
        facts=_facts(packages, check, located),
    )
    ctx.progress(1.0, f"report with {len(citations.sources)} sources")
    return AgentOutput(data=report.to_dict())


def _summary(packages: list[dict[str, Any]], check: dict[str, Any], any_look: bool) -> list[str]:
    total = len(packages)
    licences = "By licence: " + ", ".join(f"{licence} ({count})" for licence, count in check["by_licence"])
    categories = dict(check["by_category"])
    first = f"**{total} packages were examined; {total - len(check['without'])} declare a licence.** {licences}."
    copyleft = [p for p in packages if "copyleft" in p["category"]]
    permissive = categories.get("permissive", 0)
    second = f"{permissive} are permissive: keep their copyright notices and licence texts with what you ship."
    if copyleft:
        names = ", ".join(f"{package['name']} ({package['licence']})" for package in copyleft)
        strong = any(package["category"] == "strong copyleft" for package in copyleft)
        reach = "the whole work they become part of" if strong else "their own files or library only, not your code"
        second += f" {len(copyleft)} {'is' if len(copyleft) == 1 else 'are'} copyleft: {names}. It reaches {reach}."
    third = _conflict_sentence(check["conflicts"])
    if any_look and (noted := sum(bool(p["attention"]) for p in packages)):
        third += f" {noted} packages need a look for some other reason; the next section says why."
    return [first, second, third]


def _conflict_sentence(conflicts: list[dict[str, Any]]) -> str:
    if not conflicts:
        return "No package's papers contradict each other."
    listed = ", ".join(f"{c['entity']} ({c['severity']})" for c in conflicts)
    return f"The papers of {len(conflicts)} package{'s' if len(conflicts) > 1 else ''} contradict each other: {listed}."


def _cite(package: dict[str, Any], numbers: list[int], citations: Citations) -> list[int]:
    cited = []
    for number in numbers:
        claim = package["claims"][number]
        cited.append(citations.number(claim["path"], claim["line"], claim["line"], claim["text"], package["entity"]))
    return list(dict.fromkeys(cited))


def _said_by(package: dict[str, Any], citations: Citations) -> str:
    """The papers that say so, the metadata and the licence file first, one of each kind."""
    words: dict[str, int] = {}
    for number in package["said_by"]:
        words.setdefault(package["claims"][number]["how"], number)
    return ", ".join(f"{how} [{_cite(package, [number], citations)[0]}]" for how, number in words.items())


def _package_table(packages: list[dict[str, Any]], check: dict[str, Any], citations: Citations) -> Table:
    severity = {conflict["entity"]: conflict["severity"] for conflict in check["conflicts"]}
    rows = []
    for package in packages:
        notes = [*dict.fromkeys((*package["notes"], *package["attention"]))]
        notes = [inline(re.split(r"[:;]", note)[0]) for note in notes]  # in full under "What needs a look"
        if package["entity"] in severity:
            notes.insert(0, f"papers disagree ({severity[package['entity']]})")
        licence = package["licence"] or "none found"
        rows.append([package["name"], package["version"], licence, _said_by(package, citations), "; ".join(notes)])
    return Table(["Package", "Version", "Licence", "What says so", "Attention"], rows)


def _look_at(packages: list[dict[str, Any]], check: dict[str, Any], citations: Citations) -> list[str]:
    bullets = []
    for conflict in check["conflicts"]:
        values = "; ".join(f"{v['value']} {_marks(v['evidence'][:2], citations)}" for v in conflict["values"])
        bullets.append(f"**{conflict['entity']}**: its papers disagree ({conflict['severity']}): {values}.")
    for package in packages:
        if package["attention"]:
            numbers = package["said_by"][:1] or [n for part in package["contains"] for n in part["claims"]][:1]
            marks = "".join(f"[{n}]" for n in _cite(package, numbers, citations))
            licence = f", {package['licence']} {marks}" if package["licence"] else ""
            bullets.append(f"**{package['entity']}**{licence}: {inline('; '.join(package['attention']))}.")
    return bullets


def _marks(evidence: list[dict[str, Any]], citations: Citations) -> str:
    return citations.marks([(e["path"], e["line"], e["line"], e["text"]) for e in evidence])


def _licences_of(package: dict[str, Any]) -> list[str]:
    return symbols_of(package["licence"]) if expression_of(package["licence"]) else [package["licence"]]


def _obligations(packages: list[dict[str, Any]]) -> Section:
    carriers: dict[str, list[str]] = defaultdict(list)
    for package in packages:
        for licence in filter(None, _licences_of(package)):
            carriers[licence].append(package["name"])
    rows = []
    for licence, names in sorted(carriers.items(), key=lambda item: (-len(item[1]), item[0])):
        asks = obligations_of(licence)
        wording = "; ".join(asks) if asks else ("nothing" if asks == [] else "not known here: read the text")
        rows.append([licence, category_of_licence(licence), wording, ", ".join(names)])
    caption = "What each licence asks of those who pass the software on. A reading aid, not legal advice."
    return Section(
        "What the licences ask for", tables=[Table(["Licence", "Kind", "Asks you to", "Packages"], rows, caption)]
    )


def _parts(packages: list[dict[str, Any]], citations: Citations) -> Section | None:
    bullets = []
    for package in packages:
        if package["contains"]:
            parts = ", ".join(
                f"{part['licence']}{_scope(package, part)} "
                + "".join(f"[{n}]" for n in _cite(package, part["claims"][:2], citations))
                for part in package["contains"]
            )
            bullets.append(
                f"**{package['entity']}** ({package['licence'] or 'no licence found'}) also contains {parts}."
            )
    if not bullets:
        return None
    intro = (
        "These packages carry the licence texts of other people's work, or of their documentation, beside their own."
    )
    return Section("Parts under other licences", [intro], bullets)


def _scope(package: dict[str, Any], part: dict[str, Any]) -> str:
    hows = {package["claims"][number]["how"] for number in part["claims"]}
    return " (the documentation)" if hows == {"documentation licence"} else ""


def _finding(package: dict[str, Any], citations: Citations) -> ReportFinding:
    confidence = max((package["claims"][n]["confidence"] for n in package["said_by"]), default=0.5)
    sources = _cite(package, package["said_by"], citations)
    return ReportFinding(package["entity"], "licence", package["licence"], confidence, sources)


def _conflict(conflict: dict[str, Any], citations: Citations) -> ReportConflict:
    values = [
        (
            v["value"],
            [citations.number(e["path"], e["line"], e["line"], e["text"], conflict["entity"]) for e in v["evidence"]],
        )
        for v in conflict["values"]
    ]
    return ReportConflict(
        conflict["entity"], "licence", conflict["severity"], values, conflict["explanation"], conflict["resolution"]
    )


def _skipped(packages: list[dict[str, Any]], located: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = [*located["skipped"], *(pair for package in packages for pair in package["skipped"])]
    return [(path, reason) for path, reason in pairs]


def _facts(packages: list[dict[str, Any]], check: dict[str, Any], located: dict[str, Any]) -> dict[str, Any]:
    return {
        "packages": len(packages),
        "papers read": located["counts"]["papers"],
        "folders": ", ".join(located["folders"]),
        "statements found": sum(len(package["claims"]) for package in packages),
        "conflicts": len(check["conflicts"]),
        "method": "SPDX expressions, licence texts recognised by their phrases",
    }
