"""Schemas of keyed state: versions, compatibility, migrations between them, and the keys that they are bound to."""

from __future__ import annotations

from ...errors import SchemaError
from .fields import Anything, Boolean, Field, List, Number, Object, String, Timestamp
from .registry import Schemas, schemas
from .routes import Hop, MigrationFailed, Route
from .schema import Schema
from .transforms import Transform, convert, copy, default, merge, move, own, remove, rename, split
from .versions import Version

__all__ = [
    "Anything",
    "Boolean",
    "Field",
    "Hop",
    "List",
    "MigrationFailed",
    "Number",
    "Object",
    "Route",
    "Schema",
    "SchemaError",
    "Schemas",
    "String",
    "Timestamp",
    "Transform",
    "Version",
    "convert",
    "copy",
    "default",
    "merge",
    "move",
    "own",
    "remove",
    "rename",
    "schemas",
    "split",
]
