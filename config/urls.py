"""URLs of servers and databases: which are allowed, and how they are shown without their passwords."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SECRET_PARAMETER = re.compile(r"(?i)([?&;][^=&;]*(?:pass|pwd|secret|token|key)[^=&;]*=)[^&;]*")


@dataclass(frozen=True, slots=True)
class Schemes:
    """Checks that a URL is empty or has one of these schemes; called with the URL, gives it back."""

    names: tuple[str, ...]
    empty_means: str

    def __str__(self) -> str:
        return f"{self.not_empty}, or empty: {self.empty_means}"

    @property
    def not_empty(self) -> str:
        """What a URL is, in words."""
        return f"a URL that starts with {', '.join(f'{name}://' for name in self.names)}"

    def __call__(self, url: str) -> str:
        scheme, separator, _ = url.partition("://")
        if url and (not separator or scheme not in self.names):
            raise ValueError(str(self))
        return url


#: Where the database can be.
DATABASES: Final = Schemes(("sqlite", "postgresql", "postgresql+psycopg"), "the file celeriac.db in data_dir")


def masked(text: str) -> str:
    """`text` with the password of a URL, and query parameters that name a secret, replaced by `***`.

    Errs on the safe side: whatever stands between the first `:` of the user part and the last `@` is hidden.
    """
    scheme, separator, rest = text.partition("://") if "://" in text else ("", "", text)
    head, at, tail = rest.rpartition("@")
    user, colon, _ = head.partition(":")
    if at and colon and not rest.startswith("/"):
        rest = f"{user}:***@{tail}"
    return _SECRET_PARAMETER.sub(r"\1***", f"{scheme}{separator}{rest}")


def for_engine(url: str) -> str:
    """The database URL as the engine takes it: psycopg 3 for PostgreSQL, an absolute file for SQLite.

    Raises ValueError for SQLite without a file: each connection to a database in memory would see one of its own.
    """
    if url.startswith("postgresql://"):
        return "postgresql+psycopg://" + url.removeprefix("postgresql://")
    if not url.startswith("sqlite://"):
        return url
    name, question, query = url.removeprefix("sqlite://").partition("?")
    file = name.removeprefix("/")
    if not name.startswith("/") or not file or file.startswith((":memory:", "file:")):
        raise ValueError("a file for SQLite, as in sqlite:///folder/celeriac.db or sqlite:////absolute/celeriac.db")
    return f"sqlite:///{Path(file).absolute()}{question}{query}"
