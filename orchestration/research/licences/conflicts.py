"""Where the papers of one package disagree about its licence."""

from __future__ import annotations

import re
from typing import Any

from ...agents import Severity
from .claims import Claim, value_of
from .names import Options, agree
from .obligations import category_of_licence
from .package import by_how

_DECLARING = ("License-Expression", "License", "Classifier", "licence file", "readme")
_ORDER: list[Severity] = ["low", "medium", "high"]


def severity_between(first: Options, second: Options) -> Severity:
    """How much hangs on which of two disagreeing licences holds.

    low: the same licence, only one says "or any later version"; medium: relatives of one category (BSD-2-Clause and
    BSD-3-Clause, GPL-2.0 and GPL-3.0); high: different licences, or copyleft against permissive.
    """
    one, other = (re.sub(r"-(only|or-later)$", "", options[0]) for options in (first, second))
    if one == other:
        return "low"
    if category_of_licence(first[0]) != category_of_licence(second[0]):
        return "high"
    return "medium" if one.split("-")[0] == other.split("-")[0] else "high"


def conflict_of(entity: str, claims: list[Claim], licence: str) -> dict[str, Any] | None:
    """The conflict between the declaring papers of a package, or None.

    Two ways of declaring conflict where they name no licence in common; a vaguer name ("BSD") agrees with an exact one
    (BSD-3-Clause). Classifiers that name a licence beyond the SPDX expression are a conflict of severity low. Texts of
    bundled parts and further texts in a licence file never are.
    """
    named = {how: by_how(claims, how) for how in _DECLARING if by_how(claims, how)}
    disputes: list[tuple[Severity, str, str]] = []
    hows = list(named)
    for index, first in enumerate(hows):
        for second in hows[index + 1 :]:
            if dispute := _between(named[first], named[second]):
                disputes.append((dispute, first, second))
    if not disputes:
        extra = _beyond_the_expression(named)
        return (
            _conflict(entity, "low", extra, licence, "the classifiers name a licence that the expression does not")
            if extra
            else None
        )
    severity = max((dispute[0] for dispute in disputes), key=_ORDER.index)
    involved = dict.fromkeys(how for _, first, second in disputes for how in (first, second))
    shown = [claim for how in involved for claim in named[how]]
    pairs = "; ".join(f"{_spoken(first)} against {_spoken(second)}" for _, first, second in disputes)
    return _conflict(entity, severity, shown, licence, pairs)


def _between(first: list[Claim], second: list[Claim]) -> Severity | None:
    ones = [tuple(options) for claim in first for options in claim["licences"]]
    others = [tuple(options) for claim in second for options in claim["licences"]]
    if any(agree(one, other) for one in ones for other in others):
        return None
    return min((severity_between(one, other) for one in ones for other in others), key=_ORDER.index)


def _beyond_the_expression(named: dict[str, list[Claim]]) -> list[Claim]:
    expression, classifiers = named.get("License-Expression"), named.get("Classifier")
    if not expression or not classifiers:
        return []
    allowed = [tuple(options) for options in expression[0]["licences"]]
    extra = [c for c in classifiers if not any(agree(tuple(c["licences"][0]), options) for options in allowed)]
    return [*expression, *extra] if extra else []


def _spoken(how: str) -> str:
    return {"License": "the License field", "Classifier": "the classifier", "readme": "the readme"}.get(
        how, f"the {how}"
    )


def _conflict(entity: str, severity: Severity, claims: list[Claim], licence: str, explanation: str) -> dict[str, Any]:
    values: dict[str, list[dict[str, Any]]] = {}
    for claim in claims:
        places = values.setdefault(value_of(claim), [])
        places.append({"path": claim["path"], "line": claim["line"], "text": claim["text"], "how": claim["how"]})
    return {
        "entity": entity,
        "attribute": "licence",
        "type": "papers disagree",
        "severity": severity,
        "values": [{"value": value, "evidence": places} for value, places in values.items()],
        "explanation": explanation[0].upper() + explanation[1:] + ".",
        "resolution": f"Taken as {licence}, by the paper with the highest authority; ask the authors.",
    }
