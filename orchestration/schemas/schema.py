"""One version of a schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...errors import SchemaError
from .compatibility import breaks
from .declared import transforms_of
from .fields import LEVELS, Fault, Field, Object, field_of
from .transforms import Transform
from .versions import Version

Compatibility = Literal["backward", "forward", "full", "none"]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,199}")
_KEYS = ("name", "version", "fields", "value", "extra", "compatibility", "migrate", "description")
#: So many faults of a value are told at once.
_TOLD = 5


@dataclass(frozen=True, init=False)
class Schema:
    """What values of a name look like in one version, and how those of earlier versions are brought to it.

    `fields` are the fields of an object (`extra`: others are allowed too); or `value` is the one Field of a value that
    is no object. `compatibility` says what is promised towards the version before: `backward`, values that fitted it
    fit this one as they are; `forward`, values of this one fit it; `full`, both; `none`. `migrate` is a list of
    transforms from the version before, or {version: transforms} from versions by name.
    """

    name: str
    version: Version
    root: Field
    compatibility: Compatibility
    #: Transforms by the version that they start from; None is the version before, whichever that is.
    migrate: Mapping[Version | None, tuple[Transform, ...]]
    description: str
    #: `name@version`, as it is kept with a value.
    text: str

    def __init__(
        self,
        name: str,
        version: str | Version,
        fields: Mapping[str, Any] | None = None,
        *,
        value: Any = None,
        extra: bool = False,
        compatibility: Compatibility = "backward",
        migrate: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        description: str = "",
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SchemaError(f"a schema's name must be 1 to 200 letters, digits and _.:/- , found {name!r}")
        try:
            number = Version.parse(version)
        except SchemaError as fault:
            raise SchemaError(f"schema {name!r}: {fault}") from None
        what = f"schema {name} {number}"
        if (fields is None) == (value is None):
            raise SchemaError(f"{what} needs either fields (of an object) or value (one field)")
        if compatibility not in get_args(Compatibility):
            allowed = ", ".join(get_args(Compatibility))
            raise SchemaError(f"{what}: compatibility {compatibility!r} is not allowed; allowed: {allowed}")
        try:
            root = Object(fields=fields, extra=extra) if fields is not None else field_of(value, "value")
        except SchemaError as fault:
            raise SchemaError(f"{what}: {fault}") from None
        by_version = migrate if isinstance(migrate, Mapping) else {None: migrate} if migrate is not None else {}
        steps = {None if v is None else Version.parse(v): transforms_of(t, what) for v, t in by_version.items()}
        for key, given in (
            ("name", name), ("version", number), ("root", root), ("compatibility", compatibility),
            ("migrate", steps), ("description", str(description)), ("text", f"{name}@{number}"),
        ):  # fmt: skip
            object.__setattr__(self, key, given)

    @classmethod
    def from_dict(cls, declared: Any) -> Schema:
        """A schema as a file declares it. Raises SchemaError."""
        if not isinstance(declared, Mapping) or not {"name", "version"} <= declared.keys():
            raise SchemaError("a schema is an object with a name, a version, and fields or value")
        unknown = [str(key) for key in declared if key not in _KEYS]
        if unknown:
            raise SchemaError(f"schema {declared['name']}: {unknown[0]!r} is not known; allowed: {', '.join(_KEYS)}")
        return cls(**declared)

    def to_dict(self) -> dict[str, Any]:
        """What it says, as JSON; transforms as text."""
        return {
            "name": self.name,
            "version": str(self.version),
            "value": self.root.to_dict(),
            "compatibility": self.compatibility,
            "migrate": {str(v or "before"): [str(one) for one in steps] for v, steps in self.migrate.items()},
            "description": self.description,
        }

    def fits(self, value: Any, level: str = "strict") -> bool:
        """Whether a value passes at that level."""
        return next(self.root.faults(value, level == "strict"), None) is None

    def check(self, value: Any, level: str = "strict", what: str = "value") -> None:
        """Raise SchemaError naming the paths (five at most) where a value does not fit; no value is in its text."""
        if level not in LEVELS:
            raise SchemaError(f"level {level!r} is not allowed; allowed: {', '.join(LEVELS)}")
        found: list[Fault] = []
        for fault in self.root.faults(value, level == "strict"):
            found.append(fault)
            if len(found) == _TOLD:
                break
        if found:
            told = "; ".join(f"{path or 'the value'} {why}" for path, why in found)
            raise SchemaError(f"{what} does not fit schema {self.text}: {told}")

    def check_after(self, before: Schema) -> None:
        """Check what this version promises towards the one before it. Raises SchemaError naming the field."""
        broken = next(breaks(before.root, self.root), None)
        if broken is not None and self.compatibility in ("backward", "full"):
            raise _not_compatible(self, before, f"values of {before.version} may not fit it", broken)
        if broken is not None and not self.version.allows_breaking(before.version):
            raise SchemaError(
                f"schema {self.name} {self.version} breaks {before.version} ({_told(broken)}), "
                f"which demands a new major version: {before.version.major + 1}.0.0"
            )
        unread = next(breaks(self.root, before.root), None) if self.compatibility in ("forward", "full") else None
        if unread is not None:
            raise _not_compatible(self, before, f"its values may not fit {before.version}", unread)


def _told(fault: Fault) -> str:
    return f"{fault[0] or 'the value'} {fault[1]}"


def _not_compatible(schema: Schema, before: Schema, why: str, fault: Fault) -> SchemaError:
    return SchemaError(
        f"schema {schema.name} {schema.version} is declared {schema.compatibility} compatible with {before.version}, "
        f"but {why}: {_told(fault)}; declare compatibility='none', and raise the major version if old values break"
    )
