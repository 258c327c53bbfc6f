"""Licence names as people write them ("New BSD", "Apache 2", a Trove classifier) and the SPDX identifiers they mean.

A name is often not exact: "BSD" may be any of several licences, "GPL v3" may or may not include later versions. So a
name is answered with its *options*, a tuple of SPDX identifiers: one when it is exact, several when it is not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

Options = tuple[str, ...]

BSD: Options = ("BSD-3-Clause", "BSD-2-Clause", "BSD-4-Clause", "BSD-1-Clause", "0BSD")
APACHE: Options = ("Apache-2.0", "Apache-1.1", "Apache-1.0")
PYTHON: Options = ("PSF-2.0", "Python-2.0", "Python-2.0.1")
MPL: Options = ("MPL-2.0", "MPL-1.1", "MPL-1.0")
PUBLIC_DOMAIN: Options = ("LicenseRef-public-domain",)


def gnu(family: str, *versions: str, suffixes: tuple[str, ...] = ("only", "or-later")) -> Options:
    """Options of a GNU licence: every version with every suffix."""
    return tuple(f"{family}-{version}-{suffix}" for version in versions for suffix in suffixes)


_GNU_VERSIONS = {"AGPL": ("3.0", "1.0"), "LGPL": ("3.0", "2.1", "2.0"), "GPL": ("3.0", "2.0", "1.0")}
_GNU_WORDS = {
    "AGPL": r"(?:gnu )?(?:agpl|affero (?:gnu )?(?:gpl|general public licen[sc]e))",
    "LGPL": r"(?:gnu )?(?:lgpl|(?:lesser|library)(?: or lesser)?(?: gnu)? (?:gpl|general public licen[sc]e))",
    "GPL": r"(?:gnu )?(?:gpl|general public licen[sc]e)",
}
_LATER = r"(?P<later> ?\+| (?:and|or)(?: at your option)?(?: any)? (?:later|newer|above|greater)(?: version)?s?)?"

#: From the exact to the vague: the first pattern that fits a place wins. Matched on lower case words.
_PATTERNS: list[tuple[str, Options]] = [
    (r"0bsd|zero clause bsd|bsd (?:zero|0) clause", ("0BSD",)),
    (r"(?:bsd (?:licen[sc]e )?4 clause|(?:4|four) clause bsd|original bsd)", ("BSD-4-Clause",)),
    (
        r"(?:new|modified|revised) bsd|bsd (?:style )?(?:licen[sc]e )?(?:3|three) ?clause|(?:3|three) clause bsd|bsd3",
        ("BSD-3-Clause",),
    ),
    (
        r"simplified bsd|freebsd licen[sc]e|bsd (?:licen[sc]e )?(?:2|two) ?clause|(?:2|two) clause bsd",
        ("BSD-2-Clause",),
    ),
    (r"bsd(?: style| like)?", BSD),
    (r"mit 0|mit no attribution", ("MIT-0",)),
    (r"(?:the )?(?:mit(?: x11)?|expat)(?: style| like)?", ("MIT",)),
    (r"apache(?: software)?(?: licen[sc]e)?(?: version| v)? ?2(?: 0)?|apache2|asl ?2(?: 0)?", ("Apache-2.0",)),
    (r"apache(?: software)? licen[sc]e(?: version| v)? 1 1", ("Apache-1.1",)),
    (r"apache(?: software)?", APACHE),
    (r"(?:mozilla public licen[sc]e|mpl)(?: version| v)? ?2(?: 0)?(?: mpl 2 0)?", ("MPL-2.0",)),
    (r"(?:mozilla public licen[sc]e|mpl)(?: version| v)? ?1 1(?: mpl 1 1)?", ("MPL-1.1",)),
    (r"mozilla public licen[sc]e|mpl", MPL),
    (r"psf 2 0|psfl?|python software foundation", PYTHON),
    (r"python 2 0", ("Python-2.0",)),
    (r"isc(?: licen[sc]e)?(?: iscl)?", ("ISC",)),
    (r"(?:the )?unlicense", ("Unlicense",)),
    (r"cc0(?: 1 0)?(?: universal)?(?: cc0 1 0)?", ("CC0-1.0",)),
    (r"creative commons attribution share ?alike 4 0|cc by sa 4 0", ("CC-BY-SA-4.0",)),
    (r"creative commons attribution 4 0|cc by 4 0", ("CC-BY-4.0",)),
    (r"zope public licen[sc]e(?: version)? ?2 1|zpl(?: version)? ?2 1", ("ZPL-2.1",)),
    (r"zope public licen[sc]e|zpl", ("ZPL-2.1", "ZPL-2.0", "ZPL-1.1")),
    (r"historical permission notice and disclaimer(?: hpnd)?|hpnd", ("HPND",)),
    (r"mit cmu", ("MIT-CMU",)),
    (r"boost software licen[sc]e(?: 1 0)?(?: bsl 1 0)?|bsl 1 0", ("BSL-1.0",)),
    (r"zlib(?: libpng)?", ("Zlib",)),
    (r"(?:sil )?open font licen[sc]e(?: 1 1)?(?: ofl 1 1)?|ofl 1 1", ("OFL-1.1",)),
    (r"wtfpl|do what the fuck you want to public licen[sc]e", ("WTFPL",)),
    (r"eclipse public licen[sc]e(?: v| version)? ?2(?: 0)?(?: epl 2 0)?|epl 2 0", ("EPL-2.0",)),
    (r"eclipse public licen[sc]e(?: v| version)? ?1(?: 0)?(?: epl 1 0)?|epl 1 0", ("EPL-1.0",)),
    (r"artistic licen[sc]e(?: version)? 2 0", ("Artistic-2.0",)),
    (r"public domain", PUBLIC_DOMAIN),
]
_NAMES = [(re.compile(rf"(?<![a-z0-9])(?:{pattern})(?: licen[sc]e)?(?![a-z0-9])"), o) for pattern, o in _PATTERNS]
_GNU = re.compile(
    r"(?<![a-z0-9])(?:(?P<AGPL>{AGPL})|(?P<LGPL>{LGPL})|(?P<GPL>{GPL}))".format(**_GNU_WORDS)
    + rf"(?: licen[sc]e)?(?: version| v)? ?v?(?P<number>[123](?: [01](?![0-9]))?)?{_LATER}(?![a-z0-9])"
)


def words_of(text: str) -> str:
    """`text` as lower case words with single blanks between them; only letters, digits and plus signs stay."""
    return " ".join(re.findall(r"[a-z0-9]+|\+", text.lower()))


@lru_cache(maxsize=1)
def spdx() -> Any:
    """The SPDX licence list as a `license_expression.Licensing`, loaded on first use (about 30 ms)."""
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@lru_cache(maxsize=4096)
def expression_of(text: str) -> str:
    """`text` as a normalised SPDX expression, "" where it is not one."""
    if not text or len(text) > 1000 or not re.fullmatch(r"[\w.+\-() ]+", text):
        return ""
    info = spdx().validate(text.strip())
    return "" if info.errors else str(info.normalized_expression)


def symbols_of(expression: str) -> list[str]:
    """The licence identifiers of an SPDX expression in the order in which they stand, `WITH` exceptions with them."""
    return [str(symbol) for symbol in spdx().license_symbols(expression, unique=True, decompose=False)]


def names_in(text: str) -> list[Options]:
    """The licences that a short text names, in the order in which they stand, each once."""
    words = words_of(text)
    found: list[tuple[int, Options]] = []
    for match in _GNU.finditer(words):
        found.append((match.start(), _gnu_options(match)))
        words = words[: match.start()] + "." * (match.end() - match.start()) + words[match.end() :]
    for pattern, options in _NAMES:
        for match in list(pattern.finditer(words)):
            found.append((match.start(), options))
            words = words[: match.start()] + "." * (match.end() - match.start()) + words[match.end() :]
    ordered = [options for _, options in sorted(found)]
    exact = [o for o in ordered if not any(set(other) < set(o) for other in ordered)]
    return list(dict.fromkeys(exact))


def _gnu_options(match: re.Match[str]) -> Options:
    family = next(name for name in ("AGPL", "LGPL", "GPL") if match[name])
    suffixes = ("or-later",) if match["later"] else ("only", "or-later")
    if not match["number"]:
        return gnu(family, *_GNU_VERSIONS[family], suffixes=suffixes)
    number = match["number"].replace(" ", ".")
    return gnu(family, number if "." in number else f"{number}.0", suffixes=suffixes)


def classifier_options(classifier: str) -> Options | None:
    """What a `License ::` Trove classifier names; None for one that names no licence (`License :: OSI Approved`)."""
    name = classifier.split("::")[-1].strip()
    if name in ("OSI Approved", "DFSG approved", "Freeware", "Other/Proprietary License"):
        return ("LicenseRef-proprietary",) if name.startswith("Other") else None
    plain = name.replace("(LGPLv2+)", "").replace("(LGPLv2 or LGPLv3)", "")
    found = names_in(plain)
    return found[0] if found else None


def label(options: Options) -> str:
    """How a report writes the options: the identifier where they are exact, else the family and what is not said."""
    if len(options) == 1:
        return options[0]
    if set(options) <= set(BSD):
        return "BSD (clauses not said)"
    if set(options) <= set(APACHE):
        return "Apache (version not said)"
    if set(options) <= set(PYTHON):
        return "PSF-2.0 or Python-2.0 (not said which)"
    stems = sorted({re.sub(r"-(only|or-later)$", "", option) for option in options})
    if len(stems) == 1:
        return f"{stems[0]} (only or later not said)"
    return f"{re.split(r'-[0-9]', options[0])[0]} (version not said)"


def agree(first: Options, second: Options) -> bool:
    """True where both may mean the same licence."""
    return bool(set(first) & set(second))
