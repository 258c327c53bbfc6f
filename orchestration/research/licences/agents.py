"""The agents of the licence plan: locate the packages, analyze each, crosscheck all."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...agents import AgentOutput, Finding
from .claims import Claim, claims_of, value_of
from .conflicts import conflict_of
from .names import Options, agree
from .obligations import category_of, category_of_licence
from .package import by_how, options_of, resolve
from .papers import distributions, site_packages

#: How sure the session takes a contradicting statement to be, by the severity of the contradiction.
_RIVAL = {"high": 0.8, "medium": 0.7, "low": 0.4}


def locate(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """List the installed packages and their papers.

    Request: `folders`, site-packages folders or virtual environments; empty means the running interpreter's. Data:
    `{"packages": [...], "skipped": [[path, reason]], "folders", "counts"}`. Raises CeleriacError where a folder is
    missing or holds no package.
    """
    folders = list(request.get("folders") or site_packages())
    packages, skipped = distributions(folders)
    papers = sum(len(package["papers"]) for package in packages)
    ctx.progress(1.0, f"{len(packages)} packages with {papers} papers")
    return AgentOutput(
        data={
            "packages": packages,
            "skipped": [list(pair) for pair in skipped],
            "folders": folders,
            "counts": {"packages": len(packages), "papers": papers},
        }
    )


def analyze(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Which licence one package's papers declare.

    Request: `package` as `locate` gives it. Data: name, version, licence (an SPDX expression, "" where none is
    declared), exact, category, contains, notes, attention, claims, said_by (claim numbers), conflict, skipped. One
    finding holds the licence with every paper that bears it out, one more each statement that contradicts it.
    """
    package = request["package"]
    claims, skipped = claims_of(package)
    resolved = resolve(claims)
    entity = f"{package['name']} {package['version']}".strip()
    category = category_of(resolved["licence"]) if resolved["exact"] else _vague_category(claims, resolved["licence"])
    conflict = conflict_of(entity, claims, resolved["licence"])
    data = {
        "name": package["name"],
        "version": package["version"],
        "entity": entity,
        **resolved,
        "category": category,
        "claims": claims,
        "conflict": conflict,
        "attention": _attention(package, claims, resolved, category),
        "papers": len(package["papers"]),
        "skipped": [list(pair) for pair in skipped],
    }
    ctx.partial({"package": entity, "licence": resolved["licence"] or "none found", "attention": data["attention"]})
    ctx.progress(1.0, f"{entity}: {resolved['licence'] or 'no licence found'}")
    return AgentOutput(data=data, findings=_findings(entity, claims, resolved, conflict))


def crosscheck(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Count what was found and collect the conflicts, most severe first.

    Request: `packages`, the data of every `analyze`. Data: `{"conflicts", "by_licence", "by_category", "without"}`.
    """
    packages = request["packages"]
    conflicts = [package["conflict"] for package in packages if package["conflict"]]
    rank = {"high": 0, "medium": 1, "low": 2}
    conflicts.sort(key=lambda conflict: (rank[conflict["severity"]], conflict["entity"].lower()))
    ctx.progress(1.0, f"{len(conflicts)} conflicts in {len(packages)} packages")
    return AgentOutput(
        data={
            "conflicts": conflicts,
            "by_licence": Counter(package["licence"] or "none found" for package in packages).most_common(),
            "by_category": Counter(package["category"] for package in packages).most_common(),
            "without": [package["entity"] for package in packages if not package["licence"]],
        }
    )


def _vague_category(claims: list[Claim], licence: str) -> str:
    """A licence whose version is not said still has a category where all it may mean share one."""
    if not licence:
        return "unknown"
    categories = {category_of_licence(option) for options in options_of(claims) for option in options}
    return categories.pop() if len(categories) == 1 else "unknown"


def _attention(package: dict[str, Any], claims: list[Claim], resolved: dict[str, Any], category: str) -> list[str]:
    notes = [note for note in resolved["notes"] if note.startswith(("several", "the choice"))]
    if not resolved["licence"]:
        notes.append("no paper declares a licence")
    elif category in ("weak copyleft", "strong copyleft"):
        notes.append(category)
    elif not resolved["exact"]:
        notes.append("not exact enough to know what it asks for")
    if resolved["licence"] and not by_how(claims, "licence file"):
        notes.append("no licence text in the package")
    for part in resolved["contains"]:
        if all(claims[number]["how"] == "documentation licence" for number in part["claims"]):
            continue  # asks nothing of those who ship the code
        options = [o for number in part["claims"] for o in map(tuple, claims[number]["licences"])]
        kinds = {category_of_licence(option) for group in options for option in group} - {"permissive"}
        if kinds and kinds != {"unknown"}:
            notes.append(f"a part is under {part['licence']} ({', '.join(sorted(kinds))})")
    notes += [f"parts without a paper of their own in {part}" for part in package["without_paper"]]
    return notes


def _findings(
    entity: str, claims: list[Claim], resolved: dict[str, Any], conflict: dict[str, Any] | None
) -> list[Finding]:
    """The licence; where the papers disagree also what else they say, so surely that the session's conflict is as
    severe as the report's (which knows that BSD-2-Clause and BSD-3-Clause are relatives)."""
    findings = []
    supporting = [claims[number] for number in resolved["said_by"]]
    confidence = max((claim["confidence"] for claim in supporting), default=0.5)
    if conflict:
        confidence = max(confidence, _RIVAL[conflict["severity"]])
    if resolved["licence"]:
        findings.append(Finding(entity, "licence", resolved["licence"], confidence, [_evidence(c) for c in supporting]))
    accepted: list[Options] = options_of(supporting)
    if conflict is None:
        return findings + _bundled(entity, claims, resolved)
    for value in conflict["values"]:
        places = [{key: place[key] for key in ("path", "line", "text")} for place in value["evidence"]]
        said = options_of([c for c in claims if value_of(c) == value["value"]])
        if not any(agree(one, known) for one in said for known in accepted):
            rival = min(_RIVAL[conflict["severity"]], confidence)
            findings.append(Finding(entity, "licence", value["value"], rival, places))
    return findings + _bundled(entity, claims, resolved)


def _bundled(entity: str, claims: list[Claim], resolved: dict[str, Any]) -> list[Finding]:
    """What else a package contains, as one finding, or none."""
    if not resolved["contains"]:
        return []
    numbers = [number for part in resolved["contains"] for number in part["claims"]]
    parts = sorted({part["licence"] for part in resolved["contains"]})
    return [Finding(entity, "also contains", parts, 0.9, [_evidence(claims[n]) for n in numbers])]


def _evidence(claim: Claim) -> dict[str, Any]:
    return {"path": claim["path"], "line": claim["line"], "text": claim["text"]}
