"""How the figures of the cache are shown."""

from __future__ import annotations

from typing import Any


def shown(
    totals: tuple[int, int, int, int],
    by_agent: list[tuple[str, int, int, int]],
    sums: dict[str, float],
    here: tuple[int, int],
) -> dict[str, Any]:
    """The figures of `ResultCache.stats`: totals and agents of the entries, sums of all processes, copies here."""
    count, stored, size, accesses = totals
    process, shared, misses = (int(sums.get(name, 0)) for name in ("process", "shared", "misses"))
    lookups = process + shared + misses
    evicted = {level: int(sums.get(f"evicted_{level}", 0)) for level in ("process", "shared")}
    whole = {
        name: int(sums.get(name, 0))
        for name in ("stored", "refused", "expired", "pruned", "invalidated", "waited", "refreshed")
    }
    return {
        "entries": count,
        "bytes": stored,
        "json_bytes": size,
        "average_accesses": round(accesses / count, 3) if count else 0.0,
        "agents": {agent: {"entries": n, "bytes": b, "accesses": a} for agent, n, b, a in by_agent},
        "hits": process + shared,
        "misses": misses,
        "hit_rate": _rate(process + shared, lookups),
        "levels": {
            "process": {"hits": process, "hit_rate": _rate(process, lookups), "evicted": evicted["process"]},
            "shared": {"hits": shared, "hit_rate": _rate(shared, shared + misses), "evicted": evicted["shared"]},
        },
        "evicted": sum(evicted.values()),
        **whole,
        "saved": {
            "runs": int(sums.get("saved_runs", 0)),
            "seconds": round(sums.get("saved_seconds", 0.0), 3),
            "cost": round(sums.get("saved_cost", 0.0), 6),
        },
        "this_process": {"entries": here[0], "bytes": here[1]},
    }


def _rate(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
