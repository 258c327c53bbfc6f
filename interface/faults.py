"""Which errors are the user's or the surroundings' and not ours: each as one line, without a traceback."""

from __future__ import annotations

from ..errors import CeleriacError, StorageError

#: Packages that an extra brings.
_EXTRAS = {
    "psycopg": "postgres",
    "redis": "redis",
    "pypdf": "pdf",
    "typst": "pdf",
    "pydantic_ai": "llm",
    "cryptography": "crypto",
}
_DRIVERS = ("sqlalchemy", "psycopg", "sqlite3", "pysqlite3")
_BROKERS = ("kombu", "amqp", "redis")
_CONNECTION_NAMES = {
    "OperationalError",
    "InterfaceError",
    "DatabaseError",
    "ConnectionError",
    "TimeoutError",
    "ConnectionTimeout",
    "AuthenticationError",
    "ResponseError",
    "AccessRefused",
    "NotAllowed",
}


class Unreachable(StorageError):
    """A server that is needed does not answer."""


def explained(fault: BaseException) -> str | None:
    """What went wrong as one line for the user, or None for a fault that is a bug."""
    if isinstance(fault, CeleriacError):
        return str(fault)
    if isinstance(fault, ModuleNotFoundError) and fault.name and fault.name.partition(".")[0] in _EXTRAS:
        package = fault.name.partition(".")[0]
        return f"the package {package} is not installed; pip install 'celeriac[{_EXTRAS[package]}]'"
    home = type(fault).__module__.partition(".")[0]
    if home in (*_DRIVERS, *_BROKERS) and type(fault).__name__ in _CONNECTION_NAMES:
        which = "the database" if home in _DRIVERS else "the broker"
        return f"{which} cannot be used: {first_line(getattr(fault, 'orig', None) or fault)}"
    if isinstance(fault, OSError):
        return f"{fault.filename}: {fault.strerror}" if fault.filename else first_line(fault)
    return None


def first_line(fault: BaseException) -> str:
    """The first line of an error's text, or its class where it says nothing."""
    return next((line.strip() for line in str(fault).splitlines() if line.strip()), type(fault).__name__)
