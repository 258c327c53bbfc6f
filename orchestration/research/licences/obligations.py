"""What the common licences ask of those who pass the software on. A reading aid, not legal advice."""

from __future__ import annotations

import re
from typing import Literal

from .names import spdx

Category = Literal["permissive", "weak copyleft", "strong copyleft", "unknown"]

NOTICE = "keep the copyright notices"
TEXT = "include the licence text"
CHANGES = "state what you changed"
NOTICE_FILE = "pass on the NOTICE file"
FILES = "give the source of the licensed files, changed ones too"
LIBRARY = "give the source of the library and let users replace it"
WHOLE = "give the source of the whole work"
SAME = "license the whole work alike"
NETWORK = "offer the source to users over a network"
ENDORSE = "do not use the authors' names to endorse"
PATENT = "grants patents; lost by suing over them"
ORIGIN = "do not misstate who wrote it"
NAMES = "do not sell under the reserved name"

_PERMISSIVE: dict[str, list[str]] = {
    "MIT": [NOTICE, TEXT],
    "X11": [NOTICE, TEXT, ENDORSE],
    "MIT-0": [],
    "MIT-CMU": [NOTICE, TEXT, ENDORSE],
    "0BSD": [],
    "BSD-1-Clause": [NOTICE],
    "BSD-2-Clause": [NOTICE, TEXT],
    "BSD-3-Clause": [NOTICE, TEXT, ENDORSE],
    "BSD-4-Clause": [NOTICE, TEXT, ENDORSE, "acknowledge the authors in advertising"],
    "Apache-1.0": [NOTICE, TEXT, ENDORSE, "acknowledge the authors in advertising"],
    "Apache-1.1": [NOTICE, TEXT, ENDORSE, "acknowledge the authors in the documentation"],
    "Apache-2.0": [NOTICE, TEXT, CHANGES, NOTICE_FILE, PATENT],
    "PSF-2.0": [NOTICE, TEXT, CHANGES],
    "Python-2.0": [NOTICE, TEXT, CHANGES],
    "Python-2.0.1": [NOTICE, TEXT, CHANGES],
    "ISC": [NOTICE, TEXT],
    "HPND": [NOTICE, TEXT, ENDORSE],
    "HPND-Markus-Kuhn": [],
    "Unlicense": [],
    "CC0-1.0": [],
    "WTFPL": [],
    "blessing": [],
    "LicenseRef-public-domain": [],
    "ZPL-2.1": [NOTICE, TEXT, ENDORSE, CHANGES],
    "BSL-1.0": [NOTICE, TEXT],
    "Zlib": [ORIGIN, CHANGES, NOTICE],
    "Unicode-3.0": [NOTICE, TEXT, ENDORSE],
    "Unicode-DFS-2016": [NOTICE, TEXT, ENDORSE],
    "NCSA": [NOTICE, TEXT, ENDORSE],
    "Artistic-2.0": [NOTICE, CHANGES],
    "CC-BY-4.0": [NOTICE, "name the authors", CHANGES],
    "BSD-3-Clause-Clear": [NOTICE, TEXT, ENDORSE],
}
_WEAK: dict[str, list[str]] = {
    "MPL-1.1": [NOTICE, FILES, PATENT],
    "MPL-2.0": [NOTICE, FILES, PATENT],
    "EPL-1.0": [NOTICE, FILES, PATENT],
    "EPL-2.0": [NOTICE, FILES, PATENT],
    "LGPL-2.0": [NOTICE, TEXT, CHANGES, LIBRARY],
    "LGPL-2.1": [NOTICE, TEXT, CHANGES, LIBRARY],
    "LGPL-3.0": [NOTICE, TEXT, CHANGES, LIBRARY, PATENT],
    "OFL-1.1": [NOTICE, TEXT, NAMES, "keep the fonts under this licence"],
    "CC-BY-SA-4.0": [NOTICE, "name the authors", CHANGES, "share adaptations alike"],
}
_STRONG: dict[str, list[str]] = {
    "GPL-1.0": [NOTICE, TEXT, CHANGES, WHOLE, SAME],
    "GPL-2.0": [NOTICE, TEXT, CHANGES, WHOLE, SAME],
    "GPL-3.0": [NOTICE, TEXT, CHANGES, WHOLE, SAME, PATENT],
    "AGPL-3.0": [NOTICE, TEXT, CHANGES, WHOLE, SAME, NETWORK, PATENT],
}
_ORDER: list[Category] = ["permissive", "weak copyleft", "strong copyleft", "unknown"]


def _stem(licence: str) -> str:
    return re.sub(r"-(only|or-later)$", "", licence.split(" WITH ")[0])


def obligations_of(licence: str) -> list[str] | None:
    """What one SPDX identifier asks for; [] where it asks nothing, None where it is not in the table."""
    stem = _stem(licence)
    for table in (_PERMISSIVE, _WEAK, _STRONG):
        if stem in table:
            return table[stem]
    return None


def category_of_licence(licence: str) -> Category:
    """The category of one SPDX identifier."""
    stem = _stem(licence)
    if stem in _PERMISSIVE:
        return "permissive"
    if stem in _WEAK:
        return "weak copyleft"
    return "strong copyleft" if stem in _STRONG else "unknown"


def category_of(expression: str) -> Category:
    """The category of an SPDX expression: of `A OR B` the mildest, of `A AND B` the strictest."""
    try:
        parsed = spdx().parse(expression)
    except Exception:  # the parser has a dozen error classes; all of them mean "not an expression"
        return "unknown"
    return _walk(parsed) if parsed is not None else "unknown"


def _walk(node: object) -> Category:
    arguments = getattr(node, "args", ())
    if not arguments or hasattr(node, "license_symbol"):
        return category_of_licence(str(node))
    ranks = [_ORDER.index(_walk(argument)) for argument in arguments]
    return _ORDER[min(ranks) if getattr(node, "operator", "").strip() == "OR" else max(ranks)]
