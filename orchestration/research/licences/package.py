"""From the claims of a package's papers to its licence: the most exact statement that the others bear out."""

from __future__ import annotations

import re
from typing import Any

from ..sentences import clean
from .claims import Claim
from .names import Options, agree, label

#: Who is asked first.
_AUTHORITY = ("License-Expression", "License", "Classifier", "readme", "licence file")


def by_how(claims: list[Claim], *hows: str) -> list[Claim]:
    """The claims made in one of these ways."""
    return [claim for claim in claims if claim["how"] in hows]


def options_of(claims: list[Claim]) -> list[Options]:
    """All licences that the claims name, each once, in order."""
    return list(dict.fromkeys(tuple(options) for claim in claims for options in claim["licences"]))


def resolve(claims: list[Claim]) -> dict[str, Any]:
    """The licence of a package by its claims.

    Gives `{"licence", "exact", "said_by": [claim numbers], "contains": [...], "notes": [...]}`; `licence` is "" where
    no paper declares one, `contains` lists the licences of parts as `{"licence", "claims": [numbers]}`.
    """
    declared = _declared(claims)
    if declared is None:
        return {"licence": "", "exact": False, "said_by": [], "contains": _contains(claims, []), "notes": []}
    licence, named, said_by, notes = declared
    return {
        "licence": licence,
        "exact": all(len(options) == 1 for options in named),
        "said_by": said_by,
        "contains": _contains(claims, named),
        "notes": notes,
    }


def _declared(claims: list[Claim]) -> tuple[str, list[Options], list[int], list[str]] | None:
    expression = by_how(claims, "License-Expression")
    if expression:
        named = options_of(expression[:1])
        return expression[0]["expression"], named, _supporters(claims, named), []
    files = by_how(claims, "licence file")
    metadata = by_how(claims, "License", "Classifier", "readme")
    choice = next(
        (claim["joiner"] for claim in [*files, *metadata] if claim["joiner"] and len(claim["licences"]) > 1), ""
    )
    field = by_how(claims, "License")
    if field and all(len(options) == 1 for options in field[0]["licences"]):
        named = options_of(field[:1])
        licence = field[0]["expression"] or _join(named, field[0]["joiner"] or choice)
        return licence, named, _supporters(claims, named), []
    named = _from_files_and_names(files, metadata)
    if not named:
        return None
    joiner = choice or "AND"  # the careful reading: without a word of choice all apply
    notes = _precision(named, field)
    if len(named) > 1 and not choice:
        notes.append("several licences, and no paper says whether one may choose, so all are taken to apply")
    notes += _limits_of_choice(metadata) if joiner == "OR" else []
    return _join(named, joiner), named, _supporters(claims, named), notes


def _from_files_and_names(files: list[Claim], metadata: list[Claim]) -> list[Options]:
    """What the licence files hold, made exact by the names in the metadata; else the names alone."""
    names = options_of(metadata)
    texts = options_of(files)
    if not texts:
        exact = [o for o in names if not any(set(other) < set(o) for other in names)]
        return exact[:1] if _one_family(exact) else exact
    narrowed = [_narrow(options, names) for options in texts]
    mentioned = [options for options in narrowed if any(agree(options, name) for name in names)]
    # Of several texts in one file, those that the metadata names are the package's; the rest belong to parts.
    if mentioned:
        return list(dict.fromkeys(mentioned))
    return list(dict.fromkeys(narrowed if len({claim["path"] for claim in files}) > 1 else narrowed[:1]))


def _one_family(options: list[Options]) -> bool:
    return bool(options) and all(agree(options[0], other) for other in options)


def _narrow(options: Options, names: list[Options]) -> Options:
    for name in names:
        both = tuple(option for option in options if option in name)
        if both and len(both) < len(options):
            return both
    return options


def _join(named: list[Options], joiner: str) -> str:
    return f" {joiner or 'AND'} ".join(label(options) for options in named)


def _supporters(claims: list[Claim], named: list[Options]) -> list[int]:
    supporting = []
    for how in _AUTHORITY:
        for number, claim in enumerate(claims):
            if claim["how"] == how and any(agree(tuple(o), name) for o in claim["licences"] for name in named):
                supporting.append(number)
    return supporting


def _limits_of_choice(metadata: list[Claim]) -> list[str]:
    """A choice that only part of the code offers, by a paper's own words."""
    limit = re.compile(r"contributions? (?:after|before|since|until)\b", re.I)
    limited = [clean(claim["text"]) for claim in metadata if limit.search(claim["text"])]
    return [f"the choice does not hold for all of the code; the readme says “{text}”" for text in limited[:1]]


def _precision(named: list[Options], field: list[Claim]) -> list[str]:
    """Where the metadata is vaguer than the licence file: not a conflict, but worth a word."""
    if not field:
        return []
    vague = [claim for claim in field if any(len(options) > 1 for options in claim["licences"])]
    exact = [label(options) for options in named if len(options) == 1]
    if vague and exact:
        return [f"the metadata say only “{vague[0]['text'].removeprefix('License: ')}”, the licence file is {exact[0]}"]
    return []


def _contains(claims: list[Claim], named: list[Options]) -> list[dict[str, Any]]:
    parts: dict[str, list[int]] = {}
    for number, claim in enumerate(claims):
        if claim["how"] not in ("licence file", "bundled licence", "documentation licence", "notice"):
            continue
        for options in map(tuple, claim["licences"]):
            if not any(agree(options, name) for name in named):
                parts.setdefault(label(options), []).append(number)
    return [{"licence": licence, "claims": numbers} for licence, numbers in sorted(parts.items())]
