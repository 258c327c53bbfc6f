"""What a name in a request stands for: the output of another step, of a fan-out or sub-plan; the item, the query,
the user.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ..errors import PlanError
from ..storage import graph, results, serial
from ..storage.blobs import BlobStore
from ..storage.database import Transaction
from ..storage.sessions import Identity

#: Kinds of steps that stand for their members.
GROUPS = ("each", "plan")
#: Outputs up to so many bytes of JSON are kept at hand for the steps that follow, so many of them.
_SMALL = 1 << 18
_MOST = 256


class Recent:
    """Outputs that this process recorded lately, as JSON: what the next step asks for is mostly what the last one gave.

    The key holds the claim's epoch, so that an output which was not recorded after all is never found.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()

    def keep(self, session_id: str, number: int, epoch: int, data: bytes) -> None:
        """Keep an output, unless it is large; the oldest goes."""
        if len(data) <= _SMALL:
            self._kept[session_id, number, epoch] = data
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)

    def get(self, session_id: str, number: int, epoch: int) -> bytes | None:
        """The output of that claim as JSON, if it is at hand."""
        return self._kept.get((session_id, number, epoch))


class Outputs:
    """Looks up what references in one step's request stand for. `of` is the step's name, `item` its `${item}`.

    `just` is the name and the output (JSON) of a step that ends in this transaction. Without `blobs`, an output that
    is kept as a blob raises TooLarge.
    """

    def __init__(
        self,
        tx: Transaction,
        blobs: BlobStore | None,
        session: Identity,
        of: str = "",
        item: Any = None,
        recent: Recent | None = None,
        just: tuple[str, bytes] | None = None,
    ) -> None:
        self._tx = tx
        self._blobs = blobs
        self._id, query, user, *_ = session
        self._prefixes = prefixes(of)
        self._values: dict[str, Any] = {"query": query, "user": user, "item": item}
        self._recent = recent
        self._just = just

    def __call__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._find(name)
        return self._values[name]

    def _find(self, name: str) -> Any:
        for prefix in self._prefixes:
            if self._just is not None and self._just[0] == prefix + name:
                return serial.decode(self._just[1])
            found = graph.find(self._tx, self._id, prefix + name)
            if found is not None:
                return self.of(found)
        raise PlanError(f"there is no step {name!r} in session {self._id}")

    def of(self, step: graph.Found) -> Any:
        """What a step gave: its recorded data; for a fan-out the list, for a sub-plan the object of its members'
        outputs.

        None for a step that gave nothing: it was skipped, has failed, or has not ended yet.
        """
        if step.kind not in GROUPS:
            return self._recorded(step.number, step.result_epoch)
        if step.status in ("blocked", "skipped"):
            return None
        members = graph.members(self._tx, self._id, step.number)
        known = results.load_members(self._tx, self._blobs, self._id, step.number)
        values = [self.of(one) if one.kind in GROUPS else known.get(one.number) for one in members]
        if step.kind == "each":
            return values
        return {one.name.rsplit("/", 1)[-1]: value for one, value in zip(members, values, strict=True)}

    def _recorded(self, number: int, epoch: int | None) -> Any:
        if epoch is None:
            return None
        data = self._recent.get(self._id, number, epoch) if self._recent is not None else None
        if data is not None:
            return serial.decode(data)
        return results.load(self._tx, self._blobs, self._id, number, epoch)


def prefixes(name: str) -> list[str]:
    """Where a step looks for the names it uses: beside itself first, then further out. `a/b/c` -> `a/b/`, `a/`, ``."""
    parts = name.split("/")[:-1]
    return ["".join(f"{p}/" for p in parts[:n]) for n in range(len(parts), -1, -1)]


def prefix_of(name: str) -> str:
    """The innermost of `prefixes`."""
    return prefixes(name)[0]
