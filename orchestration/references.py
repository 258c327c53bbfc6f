"""References in requests: `${step.path}`, `${query}`, `${user}`, `${item}`, and conditions over them.

A string that is one reference becomes the value itself, with its type; inside a longer string it becomes text.
`$${` stands for a literal `${`.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ..errors import PlanError

#: Names that are not steps.
RESERVED = frozenset({"query", "user", "item"})

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_PATH = re.compile(r"^[A-Za-z_][\w\-/]*(?:\.[\w\-]+|\[\d+\])*$")
_PART = re.compile(r"\.([\w\-]+)|\[(\d+)\]")

#: Gives the value of a name (`query`, `item`, a step's name).
Lookup = Callable[[str], Any]


def split(path: str) -> tuple[str, list[str]]:
    """`locate.files[0]` -> (`locate`, [`files`, `0`]). Raises PlanError for anything else."""
    if not _PATH.match(path):
        raise PlanError(f"bad reference ${{{path}}}: expected a name and a path, such as ${{locate.files}}")
    name = re.split(r"[.\[]", path, maxsplit=1)[0]
    return name, [a or b for a, b in _PART.findall(path[len(name) :])]


def names_in(value: Any) -> Iterator[str]:
    """The first names of all references anywhere in a JSON value, with repeats."""
    if isinstance(value, str):
        for match in _REFERENCE.finditer(value):
            if match[1] is not None:
                yield split(match[1])[0]
    elif isinstance(value, dict):
        for item in value.values():
            yield from names_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from names_in(item)


def follow(value: Any, parts: list[str], path: str) -> Any:
    """Walk `parts` down a JSON value. A None on the way (a skipped step) gives None; a missing part is a PlanError."""
    for part in parts:
        if value is None:
            return None
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            has = ", ".join(map(str, value)) if isinstance(value, dict) else f"{type(value).__name__}"
            if isinstance(value, list):
                has = f"a list of {len(value)}"
            raise PlanError(f"${{{path}}} cannot be resolved: no {part!r} in {has[:200]}") from None
    return value


def resolve(path: str, lookup: Lookup) -> Any:
    """The value of one reference (without its `${}`)."""
    name, parts = split(path)
    return follow(lookup(name), parts, path)


def render(value: Any, lookup: Lookup) -> Any:
    """A copy of a JSON value with all references replaced."""
    if isinstance(value, str):
        return _render_text(value, lookup) if "${" in value else value
    if isinstance(value, dict):
        return {key: render(item, lookup) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [render(item, lookup) for item in value]
    return value


def _render_text(text: str, lookup: Lookup) -> Any:
    whole = _REFERENCE.fullmatch(text)
    if whole and whole[1] is not None:
        return resolve(whole[1], lookup)

    def as_text(match: re.Match[str]) -> str:
        if match[1] is None:
            return "${"
        value = resolve(match[1], lookup)
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    return _REFERENCE.sub(as_text, text)


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}


def check_condition(text: str) -> None:
    """Raise PlanError unless `text` is a condition: references, constants, comparisons, `and`, `or`, `not`, `in`."""
    _evaluate(_parse(text)[0], lambda _name: None, dry=True)


def holds(text: str, lookup: Lookup) -> bool:
    """Whether a condition such as `${locate.count} > 0 and ${user} == 'ana'` is true."""
    tree, paths = _parse(text)
    return bool(_evaluate(tree, lambda name: resolve(paths[name], lookup)))


def _parse(text: str) -> tuple[ast.expr, dict[str, str]]:
    paths: dict[str, str] = {}
    if "_reference_" in text:
        raise PlanError(f"bad condition {text!r}: _reference_ may not occur in it")

    def stand_in(match: re.Match[str]) -> str:
        name = f"_reference_{len(paths)}"
        paths[name] = match[1] or ""
        return name

    try:
        return ast.parse(_REFERENCE.sub(stand_in, text).strip(), mode="eval").body, paths
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise PlanError(f"bad condition {text!r}: expected something like ${{locate.count}} > 0") from None


def _evaluate(node: ast.expr, lookup: Lookup, dry: bool = False) -> Any:
    """Evaluate the few kinds of expression that a condition may hold; `dry` only checks that it holds no others."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name(id=name) if name.lower() in _CONSTANTS:
            return _CONSTANTS[name.lower()]
        case ast.Name(id=name) if name.startswith("_reference_"):
            return lookup(name)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item, lookup, dry) for item in items]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _evaluate(operand, lookup, dry)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.BoolOp(op=op, values=values):
            return _evaluate_each(isinstance(op, ast.And), values, lookup, dry)
        case ast.Compare():
            return _compare(node, lookup, dry)
    raise PlanError(
        f"a condition may not hold {ast.unparse(node)!r}: use references, constants, comparisons, and, or, not, in"
    )


def _evaluate_each(is_and: bool, values: list[ast.expr], lookup: Lookup, dry: bool) -> Any:
    result: Any = None
    for value in values:
        result = _evaluate(value, lookup, dry)
        if not dry and bool(result) != is_and:
            return result
    return result


def _compare(node: ast.Compare, lookup: Lookup, dry: bool) -> bool:
    left = _evaluate(node.left, lookup, dry)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        right = _evaluate(comparator, lookup, dry)
        if dry:
            continue
        try:
            if not _COMPARE[type(op)](left, right):
                return False
        except TypeError:
            raise PlanError(f"a condition cannot compare {type(left).__name__} with {type(right).__name__}") from None
        left = right
    return True
