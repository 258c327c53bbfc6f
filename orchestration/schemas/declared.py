"""Schemas, transforms and bindings as YAML and JSON files declare them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import SchemaError
from . import transforms
from .fields import kind_of
from .transforms import Transform

#: A file of schemas may have so many bytes.
LARGEST_FILE = 4 * 1024 * 1024

#: Transform -> what it is declared with, the needed ones first, and how many are needed.
_FORMS: dict[str, tuple[Callable[..., Transform], tuple[str, ...], int]] = {
    "copy": (transforms.copy, ("source", "target", "replace"), 2),
    "move": (transforms.move, ("source", "target", "replace"), 2),
    "rename": (transforms.move, ("source", "target", "replace"), 2),
    "default": (transforms.default, ("path", "value"), 2),
    "remove": (transforms.remove, ("path",), 1),
    "convert": (transforms.convert, ("path", "to"), 2),
    "split": (transforms.split, ("source", "into", "separator", "replace"), 2),
    "merge": (transforms.merge, ("sources", "into", "separator", "replace"), 2),
    "own": (transforms.own, ("function", "path"), 1),
}
_SAID = {"from": "source", "to": "target"}


def transform_of(declared: Any) -> Transform:
    """A transform from what declares it: `{move: {from: a, to: b}}`, `{remove: a}`, `{own: "module:function"}`.

    Raises SchemaError.
    """
    if isinstance(declared, Transform):
        return declared
    if not isinstance(declared, Mapping) or len(declared) != 1 or next(iter(declared)) not in _FORMS:
        raise SchemaError(
            f"a transform is an object with one of {', '.join(_FORMS)}, as {{remove: a.b}}; found {_shown(declared)}"
        )
    ((name, options),) = declared.items()
    make, allowed, needed = _FORMS[name]
    if not isinstance(options, Mapping):
        options = {allowed[0]: options}
    if allowed[0] == "source" and name != "split":
        options = {_SAID.get(key, key): value for key, value in options.items()}
    elif name == "split":
        options = {("source" if key == "from" else key): value for key, value in options.items()}
    elif name == "merge":
        options = {("sources" if key == "from" else key): value for key, value in options.items()}
    missing = [key for key in allowed[:needed] if key not in options]
    unknown = [str(key) for key in options if key not in allowed]
    if missing or unknown:
        raise SchemaError(
            f"transform {name}: " + (f"{missing[0]} is missing" if missing else f"{unknown[0]} is not known")
            + f"; it takes {', '.join(allowed)}"
        )  # fmt: skip
    if name == "own":
        options = {**options, "function": function_of(options["function"])}
    return make(**options)


def _shown(declared: Any) -> str:
    return kind_of(declared) if not isinstance(declared, Mapping) else ", ".join(map(str, declared))[:80]


def function_of(named: Any) -> Callable[[Any], Any]:
    """The function that `module:function` names, imported. Raises SchemaError."""
    if callable(named):
        function: Callable[[Any], Any] = named
        return function
    module, colon, name = named.partition(":") if isinstance(named, str) else ("", "", "")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise SchemaError(f"own needs a function as package.module:name, found {named!r}")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as fault:
        raise SchemaError(f"own: {named} cannot be imported: {fault}") from fault
    if not callable(found):
        raise SchemaError(f"own: {named} is no function")
    return found  # type: ignore[no-any-return]


def transforms_of(declared: Any, what: str) -> tuple[Transform, ...]:
    """A list of transforms. Raises SchemaError naming which one of `what` is wrong."""
    if not isinstance(declared, Sequence) or isinstance(declared, str):
        raise SchemaError(f"{what}: migrate must be a list of transforms, found {kind_of(declared)}")
    made = []
    for number, one in enumerate(declared, 1):
        try:
            made.append(transform_of(one))
        except SchemaError as fault:
            raise SchemaError(f"{what}: transform {number}: {fault}") from None
    return tuple(made)


def read(file: Path) -> dict[str, Any]:
    """What a YAML or JSON file of schemas says: `schemas` and `bindings`, or one schema. Raises SchemaError."""
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise SchemaError(f"schemas file {file} has over {LARGEST_FILE} bytes")
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as fault:
        raise SchemaError(f"schemas file {file} cannot be read: {getattr(fault, 'strerror', fault)}") from None
    import yaml  # not before there is a file: it takes as long to import as a step to run

    try:
        said = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as fault:
        why = " ".join(str(fault).split())[:200]
        raise SchemaError(f"schemas file {file} is not {'JSON' if file.suffix == '.json' else 'YAML'}: {why}") from None
    if isinstance(said, dict) and "name" in said:
        said = {"schemas": [said]}
    if not isinstance(said, dict) or not said.keys() <= {"schemas", "bindings"}:
        raise SchemaError(f"schemas file {file} must have `schemas` and `bindings`, or be one schema with a `name`")
    return said
