"""Versions with known faults, of what Celeriac runs on. Each check gives (status, what was found, advice)."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version

#: Faults of Python's tarfile: name -> {release series: first version of it without the fault}.
#: A series that is not listed and is newer than all that are has been free of it from the start.
TAR_FAULTS: dict[str, dict[tuple[int, int], int]] = {
    "CVE-2025-4517 and CVE-2025-4330": {(3, 11): 13, (3, 12): 11, (3, 13): 4},
    "CVE-2025-8194": {(3, 11): 14, (3, 12): 12, (3, 13): 6},
    "CVE-2026-82049": {(3, 11): 17},
}
#: First versions of Redis without CVE-2025-49844 and the three others of that day, by release series.
REDIS_FIXED: dict[tuple[int, ...], int] = {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2}
#: Oldest releases that are fit for use: package -> (version, why).
PACKAGES = {
    "celery": ((5, 7), "Celeriac needs 5.7"),
    "flower": ((2, 2), "CVE-2022-51020: any web page that you open could give orders to it"),
}

Check = tuple[str, str, str]


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: `7.2.11-rc1` -> (7, 2, 11)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


def python(found: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Whether this Python's tarfile is free of the faults that are known."""
    series = (found[0], found[1])
    faults = [name for name, fixed in TAR_FAULTS.items() if series in fixed and found[2] < fixed[series]]
    shown = ".".join(map(str, found))
    if not faults:
        return "ok", shown, ""
    needed = max(fixed[series] for fixed in TAR_FAULTS.values() if series in fixed)
    advice = f"tarfile has {', '.join(faults)}: unpack no archive that you do not trust"
    return "warn", shown, f"{advice}; fixed in {series[0]}.{series[1]}.{needed}"


def package(name: str) -> Check | None:
    """Whether an installed package is new enough; None if it is not installed."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return None
    least, why = PACKAGES[name]
    if numbers(found) >= least:
        return "ok", found, ""
    return "broken" if name == "celery" else "warn", found, f"{why}; install {'.'.join(map(str, least))} or newer"


def redis(found: str) -> Check:
    """Whether that version of the Redis server is free of the Lua faults of October 2025."""
    one = (*numbers(found), 0, 0)[:3]
    fixed = REDIS_FIXED.get(one[:2])
    sound = one >= (8, 4) if fixed is None else one[2] >= fixed
    if sound:
        return "ok", found, ""
    advice = "CVE-2025-49844: whoever may run Lua in it can take the server over"
    if fixed is not None:
        return "warn", found, f"{advice}; fixed in {one[0]}.{one[1]}.{fixed}"
    return "warn", found, f"{advice}, unless a distribution has mended it; fixed in 7.4.6 and 8.2.2"
