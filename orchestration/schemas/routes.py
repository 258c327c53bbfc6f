"""Ways from one version of a schema to another: found over any number of versions, shown, and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import SchemaError
from ...storage import serial
from .paths import Misfit
from .schema import Schema
from .transforms import Transform
from .versions import Version

#: A value in a message is cut to so many characters.
_SHOWN = 60


class MigrationFailed(SchemaError):
    """A value could not be brought to another version. `path` is the field; its text holds no value, `told` may."""

    def __init__(self, what: str, where: str, path: str, why: str, value: Any = None) -> None:
        super().__init__(f"{what}: {where}: {path or 'the value'} {why}")
        self.what, self.where, self.path, self.why, self.value = what, where, path, why, value

    def told(self, shown: Callable[[Any], str]) -> str:
        """The message with the value as `shown` lets it be seen."""
        return f"{self.where}: {self.path or 'the value'} {self.why}; its value: {shown(self.value)}"


def shortened(value: Any) -> str:
    """A value as JSON, cut short."""
    text = ascii(value) if not _is_json(value) else serial.encode(value).decode("utf-8")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _is_json(value: Any) -> bool:
    try:
        serial.encode(value)
    except Exception:  # whatever own functions made of it
        return False
    return True


@dataclass(frozen=True)
class Hop:
    """From one version to another, by these transforms; none: values stay as they are."""

    source: Schema
    target: Schema
    transforms: tuple[Transform, ...]

    def __str__(self) -> str:
        done = "; ".join(map(str, self.transforms)) or "values stay as they are"
        return f"{self.source.version} -> {self.target.version}: {done}"


@dataclass(frozen=True)
class Route:
    """A way over any number of versions. `str()` shows it."""

    source: Schema
    target: Schema
    hops: tuple[Hop, ...]

    def apply(self, value: Any, level: str = "basic", what: str = "value") -> Any:
        """The value brought to the target; the one given stays as it was. Checked before and after at `level`.

        Raises SchemaError, and MigrationFailed naming the field, in messages that begin with `what`.
        """
        self.source.check(value, level, what)
        changed = serial.decode(serial.encode(value, what))  # a copy of its own, cheaper than copying in Python
        for hop in self.hops:
            for transform in hop.transforms:
                try:
                    changed = transform.apply(changed)
                except (Misfit, RecursionError) as fault:
                    misfit = fault if isinstance(fault, Misfit) else Misfit("", "is nested too deep", None)
                    where = f"{hop.source.version} -> {hop.target.version}, {transform}"
                    raise MigrationFailed(what, where, misfit.path, misfit.why, misfit.value) from fault
        self.target.check(changed, level, what)
        return changed

    def to_list(self) -> list[dict[str, Any]]:
        """Its hops as JSON: from, to, transforms (text)."""
        return [
            {
                "from": str(hop.source.version),
                "to": str(hop.target.version),
                "transforms": [str(one) for one in hop.transforms],
            }
            for hop in self.hops
        ]

    def __str__(self) -> str:
        head = f"{self.source.name} {self.source.version} -> {self.target.version}"
        return "\n".join([head, *(f"  {hop}" for hop in self.hops)])


def edges_of(versions: Mapping[Version, Schema]) -> dict[Version, dict[Version, tuple[Transform, ...]]]:
    """All hops between known versions: {from: {to: transforms}}.

    A version that declares no migration and is backward compatible is reached from the one before it as it is; one
    that is forward compatible leads back to it as it is.
    """
    edges: dict[Version, dict[Version, tuple[Transform, ...]]] = {version: {} for version in versions}
    ordered = sorted(versions)
    for place, version in enumerate(ordered):
        schema = versions[version]
        before = ordered[place - 1] if place else None
        for start, steps in schema.migrate.items():
            start = before if start is None else start
            if start in edges and start is not None:
                edges[start][version] = steps
        if before is not None and not schema.migrate and schema.compatibility in ("backward", "full"):
            edges[before].setdefault(version, ())
        if before is not None and schema.compatibility in ("forward", "full"):
            edges[version].setdefault(before, ())
    return edges


def find(versions: Mapping[Version, Schema], start: Version, end: Version, through: Sequence[Version] = ()) -> Route:
    """The shortest way from one version to another, past all of `through` in order.

    Raises SchemaError if there is none, or if several are equally short: then `through` decides.
    """
    name = versions[start].name
    edges = edges_of(versions)
    stops = [start, *through, end]
    way = [start]
    for one, other in zip(stops, stops[1:], strict=False):
        found = _shortest(edges, one, other)
        if not found:
            reached = ", ".join(map(str, sorted(_reachable(edges, one)))) or "none"
            raise SchemaError(
                f"schema {name}: no migration leads from {one} to {other}; from {one} it goes to: {reached}"
            )
        if len(found) > 1:
            shown = " or ".join(" -> ".join(map(str, steps)) for steps in found[:3])
            raise SchemaError(f"schema {name}: {len(found)} ways are equally short: {shown}; say through which version")
        way += found[0][1:]
    hops = tuple(Hop(versions[a], versions[b], edges[a][b]) for a, b in zip(way, way[1:], strict=False))
    return Route(versions[start], versions[end], hops)


def _shortest(
    edges: Mapping[Version, Mapping[Version, tuple[Transform, ...]]], start: Version, end: Version
) -> list[list[Version]]:
    """All shortest ways, 100 at most."""
    front, seen = [[start]], {start}
    while front:
        found = [way for way in front if way[-1] == end]
        if found:
            return found
        front = [[*way, after] for way in front for after in sorted(edges[way[-1]]) if after not in seen][:100]
        seen.update(way[-1] for way in front)
    return []


def _reachable(edges: Mapping[Version, Mapping[Version, tuple[Transform, ...]]], start: Version) -> set[Version]:
    seen: set[Version] = set()
    front = [start]
    while front:
        front = [after for one in front for after in edges[one] if after not in seen and after != start]
        seen.update(front)
    return seen
