"""Source code as blocks: docstrings and comments are prose under the name they belong to, the rest is code."""

from __future__ import annotations

import ast
import re
import warnings
from bisect import bisect_right

from .blocks import Block, data_blocks, prose_blocks

_COMMENT = re.compile(r"^\s*(?:#(?!!)|//+|--|;+|\*(?!/)|/\*+)\s?(.*?)(?:\*/)?$")
_HASH_COMMENT = re.compile(r"^\s*#(?!!):?\s?(.*)$")
_VALUE_LENGTH = 80
_SETTING_LINES = 6
_PLAIN = re.compile(r"[-+]?[\w.'\"()\[\]{}, /:*%-]{1,80}$")


def python_blocks(text: str) -> list[Block]:
    """Blocks of a Python file, each under the class or function that it stands in.

    Docstrings; settings (a name with a plain value, and the comment above it); what the options of a command line
    say of themselves; signatures; the rest as comments and code. A file that does not parse is read by its comments.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code are not ours to report
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return comment_blocks(list(enumerate(text.split("\n"), 1)), _HASH_COMMENT)
    return _PythonReader(text.split("\n")).read(tree)


class _PythonReader:
    """One walk over a module. `taken` are the lines that are in a block, `homes` from which line on one is in what."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.blocks: list[Block] = []
        self.taken: set[int] = set()
        self.homes: list[tuple[int, str]] = [(0, "")]

    def read(self, tree: ast.Module) -> list[Block]:
        self._docstring(tree, "")
        self._body(tree.body, "", False)
        for home, lines in self._rest():
            self.blocks += _split(lines, _HASH_COMMENT, home)
        return self.blocks

    def _rest(self) -> list[tuple[str, list[tuple[int, str]]]]:
        """The lines that are in no block yet, by what they stand in."""
        starts = [start for start, _ in self.homes]
        rest: list[tuple[str, list[tuple[int, str]]]] = []
        for number, line in enumerate(self.lines, 1):
            if number in self.taken:
                continue
            home = self.homes[bisect_right(starts, number) - 1][1]
            if not rest or rest[-1][0] != home:
                rest.append((home, []))
            rest[-1][1].append((number, line))
        return rest

    def _body(self, body: list[ast.stmt], name: str, in_function: bool) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = f"{name}.{node.name}".strip(".")
                for decorator in node.decorator_list:
                    self._option(decorator)
                self.homes.append((node.lineno, inner))
                if not isinstance(node, ast.ClassDef):
                    self._signature(node, inner)
                self._docstring(node, inner)
                self._body(node.body, inner, not isinstance(node, ast.ClassDef))
                self.homes.append(((node.end_lineno or node.lineno) + 1, name))
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and not in_function and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if len(targets) == 1 and isinstance(targets[0], ast.Name) and not targets[0].id.startswith("_"):
                    self._setting(f"{name}.{targets[0].id}".strip("."), node, node.value)
            elif isinstance(node, ast.Expr):
                self._option(node.value)

    def _docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> None:
        first = node.body[0] if node.body else None
        if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
            return
        if isinstance(first.value.value, str):
            last = first.end_lineno or first.lineno
            numbered = [(number, _unquoted(self.lines[number - 1])) for number in range(first.lineno, last + 1)]
            self.blocks += prose_blocks(numbered, heading=name)
            self.taken.update(range(first.lineno, last + 1))

    def _signature(self, node: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> None:
        defaults = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        if any(isinstance(default, ast.Constant) and default.value is not None for default in defaults):
            last = max(node.lineno, node.body[0].lineno - 1)
            lines = [(number, self.lines[number - 1]) for number in range(node.lineno, min(last, node.lineno + 30) + 1)]
            self.blocks.append(Block("signature", name, lines))

    def _setting(self, symbol: str, node: ast.stmt | ast.expr, value: ast.expr) -> None:
        """A name with a plain value; a call or table that holds further names gives one for each of them."""
        inner: list[tuple[str | None, ast.expr]] = []
        if isinstance(value, ast.Call):
            inner = [(keyword.arg, keyword.value) for keyword in value.keywords]
            if not any(isinstance(part, ast.Call) for _, part in inner):
                inner = []
        elif isinstance(value, ast.Dict):
            inner = [(k.value, v) for k, v in zip(value.keys, value.values, strict=True) if _is_name(k)]  # type: ignore[union-attr]
        for name, part in inner:
            if name:
                self._setting(f"{symbol}.{name}", part, part)
        shown = "" if inner else _value_text(value)
        last = node.end_lineno or node.lineno
        if not shown or last - node.lineno >= _SETTING_LINES:
            return
        above = self._comment_above(node.lineno)
        if above:
            numbered = [(n, _HASH_COMMENT.sub(r"\1", self.lines[n - 1])) for n in above]
            self.blocks += prose_blocks(numbered, heading=symbol)
        lines = [(number, self.lines[number - 1]) for number in range(node.lineno, last + 1)]
        self.blocks.append(Block("setting", symbol, lines, label=shown))
        self.taken.update(above, range(node.lineno, last + 1))

    def _comment_above(self, line: int) -> list[int]:
        first = line
        while first > 1 and first - 1 not in self.taken and _HASH_COMMENT.match(self.lines[first - 2]):
            first -= 1
        return list(range(first, line))

    def _option(self, node: ast.expr) -> None:
        """`option("--name", help="what it says")` of click and argparse: the help is prose under the option's name."""
        if not isinstance(node, ast.Call):
            return
        names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        name = max(filter(lambda text: text.startswith("-"), names), key=len, default="")
        help_text = next((k.value for k in node.keywords if k.arg == "help"), None)
        if name and isinstance(help_text, ast.Constant) and isinstance(help_text.value, str):
            text = " ".join(help_text.value.split())
            self.blocks += prose_blocks([(help_text.lineno, text)], heading=name)


def _is_name(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isidentifier()


def _value_text(value: ast.expr) -> str:
    """A plain value as it stands in the code, of a call such as `Option(30, type="int")` too; "" for anything else."""
    if isinstance(value, ast.Call):
        plain = all(isinstance(part, ast.Constant) for part in value.args)
        if not plain or not isinstance(value.func, (ast.Name, ast.Attribute)):
            return ""
    elif not isinstance(value, (ast.Constant, ast.UnaryOp, ast.Tuple, ast.List, ast.BinOp)):
        return ""
    text = ast.unparse(value)
    return text if len(text) <= _VALUE_LENGTH and _PLAIN.match(text.replace("=", "")) else ""


def _unquoted(line: str) -> str:
    return re.sub(r'^(\s*)[rRuUbB]{0,2}("""|\'\'\'|")|("""|\'\'\'|"(?=\s*$))', r"\1", line)


def comment_blocks(lines: list[tuple[int, str]], pattern: re.Pattern[str] = _COMMENT) -> list[Block]:
    """Blocks of a file in another language, given as numbered lines: comments are prose, the rest is code."""
    return _split(lines, pattern, "")


def _split(lines: list[tuple[int, str]], pattern: re.Pattern[str], heading: str) -> list[Block]:
    blocks: list[Block] = []
    comment: list[tuple[int, str]] = []
    code: list[tuple[int, str]] = []
    for number, line in lines:
        if match := pattern.match(line):
            if code:
                blocks += data_blocks(code, heading, "code")
                code = []
            comment.append((number, match[1]))
            continue
        if comment:
            blocks += _comments(comment, heading)
            comment = []
        code.append((number, line))
    return [*blocks, *_comments(comment, heading), *data_blocks(code, heading, "code")]


def _comments(lines: list[tuple[int, str]], heading: str) -> list[Block]:
    blocks = prose_blocks(lines, heading=heading)
    for block in blocks:
        block.kind = "comment" if block.kind in ("prose", "item") else block.kind
    return blocks
