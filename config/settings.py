"""The settings: declared once here, read from defaults.toml < a file < the environment < the caller."""

from __future__ import annotations

import difflib
import os
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from ..errors import SettingsError
from . import schedules
from .keeping import Keeping, Switch, flat
from .urls import DATABASES, Schemes, for_engine, masked

PREFIX = "CELERIAC_"
#: Variables with our prefix that are not settings.
_OTHER_VARIABLES = {"CELERIAC_CONFIG", "CELERIAC_REQUIRE_SERVERS", "CELERIAC_KEYS", "CELERIAC_PASSPHRASE"}
_TEST_PREFIX = "CELERIAC_TEST_"

_BROKER = Schemes(("redis", "rediss", "redis+socket", "amqp", "amqps", "sentinel", "memory"), "within this process")
_REDIS = Schemes(("redis", "rediss", "unix"), "no Redis")


def _folder(value: Any) -> Any:
    """A folder as an absolute path, so that a later change of the working folder does not move it."""
    if not isinstance(value, str | Path) or not str(value):
        return value
    if "?" in str(value):
        raise ValueError("a path without '?', which would end the name of the database file in its URL")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:  # a user who is not there
        raise ValueError("a path whose ~ names a user of this machine") from None


def _modules(value: Any) -> Any:
    names = tuple(value) if isinstance(value, list | tuple) else value
    for name in names if isinstance(names, tuple) else ():
        if isinstance(name, str) and not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"names of modules, as in package.module; {name!r} is none")
    return names


def _files_or_modules(value: Any) -> Any:
    names = tuple(value) if isinstance(value, list | tuple) else value
    for name in names if isinstance(names, tuple) else ():
        is_file = isinstance(name, str) and name.endswith((".yaml", ".yml", ".json"))
        if isinstance(name, str) and not is_file and not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"files that end in .yaml, .yml or .json, and names of modules; {name!r} is neither")
    return names


def _pairs(value: Any) -> Any:
    lines = tuple(value) if isinstance(value, list | tuple) else value
    for line in lines if isinstance(lines, tuple) else ():
        if isinstance(line, str) and not (line.rpartition("=")[0] and line.rpartition("=")[2] in STATE_CLASSES):
            raise ValueError(f"rules pattern=class with a class of {', '.join(STATE_CLASSES)}; {line!r} is none")
    return lines


def _name(value: str) -> str:
    if "\0" in value or len(value.encode(errors="replace")) > 512 or value != value.encode(errors="replace").decode():
        raise ValueError("text of at most 200 characters and 512 bytes, without a null byte")
    return value


def _jobs(value: Any) -> dict[str, str]:
    return schedules.checked(value, _defaults()["maintenance"])


#: How values of keyed state are treated: see `orchestration.state.classes`.
StateClass = Literal["ephemeral", "trusted", "standard", "sensitive", "external"]
STATE_CLASSES: tuple[str, ...] = get_args(StateClass)

Bytes = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(max_length=200), AfterValidator(_name)]


class Settings(Keeping):
    """All that can be set, immutable. Build it with `Settings.load`; its text shows no password."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    data_dir: Annotated[Path, BeforeValidator(_folder)] = Field(
        description="Folder for the SQLite file, blobs and reports; a relative one lies in the working folder."
    )
    database_url: Annotated[str, AfterValidator(DATABASES), AfterValidator(for_engine)] = Field(
        description="The database that remembers everything. Empty: the SQLite file celeriac.db in data_dir."
    )
    broker_url: Annotated[str, AfterValidator(_BROKER)] = Field(
        description="The Celery broker that carries hints to workers. Empty: workers are threads of this process."
    )
    redis_url: Annotated[str, AfterValidator(_REDIS)] = Field(
        description="Redis for live progress and copies of cached results. Empty: both are read from the database."
    )
    agents: Annotated[tuple[str, ...], BeforeValidator(_modules)] = Field(
        description="Modules to import because they register agents; separated by commas in the environment."
    )
    schemas: Annotated[tuple[str, ...], BeforeValidator(_files_or_modules)] = Field(
        description="Files (.yaml, .json) and modules that register schemas of state; separated by commas likewise."
    )
    model: str = Field(
        description="Language model as pydantic-ai names it, such as openai:gpt-5. Empty: agents extract, and ask none."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        description="The least severe log messages that are shown."
    )
    queue: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="Celery queue of the steps whose agent names none."
    )
    concurrency: Annotated[int, Field(ge=0)] = Field(
        description="Threads of the worker within this process. 0: as many as there are cores."
    )
    lease_seconds: Annotated[float, Field(ge=0.1)] = Field(
        description="Seconds after which the step of a silent worker is given to another one."
    )
    sweep_seconds: Annotated[float, Field(ge=0.05)] = Field(
        description="Seconds between two looks for expired leases, due retries and hints that were not sent."
    )
    max_attempts: Annotated[int, Field(ge=1)] = Field(
        description="How often a step is started, when its worker dies each time, before it is given up as dead."
    )
    unserved_seconds: Annotated[float, Field(ge=0)] = Field(
        description="Seconds for which a step waits for a worker that knows its agent before it fails."
    )
    carry_seconds: Annotated[float, Field(ge=0)] = Field(
        description="Seconds for which a worker carries on with a session's next steps before others have their turn."
    )
    carry_steps: Annotated[int, Field(ge=1)] = Field(
        description="Steps with which a worker carries on before others have their turn."
    )
    step_time_limit: Annotated[float, Field(ge=0)] = Field(
        description="Seconds after which a step whose agent sets no timeout is ended. 0: never."
    )
    max_request_bytes: Bytes = Field(description="Largest request of one step, in bytes of JSON.")
    max_result_bytes: Bytes = Field(description="Largest result of one step, in bytes of JSON.")
    max_document_bytes: Bytes = Field(
        description="Largest plan, report, preferences or metadata of a session, in bytes of JSON."
    )
    inline_result_bytes: Bytes = Field(
        description="Results of more bytes than this are kept as blobs in data_dir, not in the database."
    )
    checkpoints_kept: Annotated[int, Field(ge=1)] = Field(description="Newest checkpoints that a session keeps.")
    tree_depth: Annotated[int, Field(ge=1)] = Field(
        description="Branches that may lie between a session and the root of its tree, itself counted."
    )
    stream_events_kept: Annotated[int, Field(ge=1)] = Field(
        description="Newest events that a session's Redis stream keeps."
    )
    redis_timeout: Annotated[float, Field(gt=0)] = Field(
        description="Seconds to wait for Redis; a step never waits longer for it at once, nor fails by it."
    )
    session_cache_entries: Annotated[int, Field(ge=0)] = Field(
        description="Sessions that each process keeps at hand for reading; each read checks that they still stand. 0:"
        " none."
    )
    session_cache_seconds: Annotated[float, Field(gt=0)] = Field(
        description="Seconds after which a process reads a session that it keeps at hand anew."
    )

    cache_entries: Annotated[int, Field(ge=1)] = Field(
        description="Cached results that the database keeps; of more, those whose use is longest ago are deleted."
    )
    cache_bytes: Bytes = Field(description="Bytes of cached results, compressed, that the database keeps.")
    cache_entry_bytes: Bytes = Field(
        description="Largest result that is cached, in bytes, compressed; over `inline_result_bytes` it is a blob."
    )
    cache_memory_bytes: Bytes = Field(description="Bytes of cached results that each process keeps at hand.")
    cache_default_ttl: Annotated[float, Field(gt=0)] = Field(
        description="Seconds for which cache.put keeps a result where it is not told for how long."
    )
    state_url: str = Field(
        description="Where keyed state lives: memory:, file:///folder, redis://, rocksdb:///folder, a database, or a"
        " place of one's own. Empty: the database of the sessions, in the transactions of their steps."
    )
    state_classes: Annotated[tuple[str, ...], BeforeValidator(_pairs)] = Field(
        description="Classes of keyed state by patterns over scope and key; the first match counts."
    )
    max_state_bytes: Bytes = Field(description="Largest value of keyed state, in bytes of JSON.")
    state_ephemeral_seconds: Annotated[float, Field(gt=0)] = Field(
        description="Seconds after which a value of class ephemeral is gone, if it is not told otherwise."
    )
    history_url: str = Field(
        description="Where what is said in sessions lives: memory:, file:///folder, redis://, or a place of one's own."
        " Empty: the database of the sessions."
    )
    window_entries: Annotated[int, Field(ge=0)] = Field(
        description="Entries of the history that a model is shown with a message. 0: all."
    )
    window_tokens: Annotated[int, Field(ge=0)] = Field(
        description="Tokens of the history that a model is shown with a message. 0: any number."
    )
    keys_file: str = Field(
        description="File of encryption keys that only its owner can read. Empty: the ones in CELERIAC_KEYS, or none."
    )

    encrypt: Literal["sensitive", "all"] = Field(
        description="What is sealed where there are keys: sensitive state, cached results and fields of rules; or all"
        " that users' data can be in."
    )
    backups_dir: str = Field(description="Folder of backups. Empty: backups in data_dir; better one on another disk.")
    backup_keys_file: str = Field(
        description="File of keys for backups. Empty: they are sealed with those of keys_file or CELERIAC_KEYS."
    )
    backups_kept: Annotated[int, Field(ge=1)] = Field(description="Newest backups that pruning keeps.")
    backups_kept_days: Annotated[float, Field(gt=0)] = Field(
        description="Days after which pruning deletes a backup, though it is among the newest."
    )
    backups_kept_least: Annotated[int, Field(ge=1)] = Field(
        description="Newest backups that pruning keeps whatever their age."
    )
    backups_kept_daily: Annotated[int, Field(ge=0)] = Field(
        description="Days, of those that have backups, whose last one pruning keeps."
    )
    backups_kept_weekly: Annotated[int, Field(ge=0)] = Field(description="Weeks whose last backup pruning keeps.")
    backups_kept_monthly: Annotated[int, Field(ge=0)] = Field(description="Months whose last backup pruning keeps.")

    maintenance: Annotated[dict[str, str], BeforeValidator(_jobs)] = Field(
        description="When each job of maintenance runs, by UTC; jobs that are not named run as by default."
    )
    maintenance_queue: Annotated[str, Field(max_length=200)] = Field(
        description="Celery queue of the maintenance that beat sends. Empty: the queue that the app's tasks go to."
    )
    maintenance_kept: Annotated[int, Field(ge=1)] = Field(
        description="Newest runs of each job of maintenance, and newest rows of statistics, that are kept."
    )
    inactive_days: Annotated[float, Field(ge=0)] = Field(
        description="Days after which the job expiry cancels sessions that do not change; pinned ones stay. 0: never."
    )
    archive_days: Annotated[float, Field(ge=0)] = Field(
        description="Days after their end when the job archive puts sessions into archives; pinned ones stay. 0: never."
    )

    guard_rules: str | dict[str, Any] = Field(
        description="What is taken out of values and texts: a table or a TOML file. Empty: secrets in errors and logs."
    )
    quota_user_sessions: Annotated[int, Field(ge=0)] = Field(
        description="Active and paused sessions that one user may have at once. 0: any number."
    )
    quota_user_bytes: Annotated[int, Field(ge=0)] = Field(
        description="Bytes of outputs, partial results and histories, as JSON, in sessions of one user. 0: any number."
    )
    quota_session_bytes: Annotated[int, Field(ge=0)] = Field(
        description="Bytes of outputs, partial results and histories, as JSON, in one session. 0: any number."
    )
    quota_session_blobs: Annotated[int, Field(ge=0)] = Field(
        description="Outputs of one session that are kept as blobs. 0: any number."
    )
    access: Switch = Field(
        description="Whether sessions, state and the cache are open only to whom grants name. On: without one, nobody."
    )
    principal: Name = Field(description="Who this program acts as. Empty: nobody, who holds no grant.")
    tenant: Name = Field(description="Whose sessions, state and cached results this program sees. Empty: no tenant's.")

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, Any] | None = None,
        file: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """The settings in force: defaults.toml < file < environment < `overrides`.

        The file is `file`, else the one that CELERIAC_CONFIG names, else celeriac.toml in the working folder if it is
        there. A variable is CELERIAC_ and the setting's name in capitals. Raises one SettingsError that names every
        unknown key and every value that is not allowed, where each came from, and what is allowed.
        """
        environ = os.environ if environ is None else environ
        layers = [("defaults.toml", _defaults()), *_file_layer(file, environ)]
        layers += [(name, value) for name, value in _environment(environ)]
        layers += [("the caller", dict(overrides or {}))]
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for origin, layer in layers:
            values |= schedules.merged(values, layer)
            origins |= dict.fromkeys(layer, origin)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = dict.fromkeys(_problem(str(e["loc"][0]), e, values, origins) for e in error.errors())
        raise SettingsError("\n".join(problems))

    @property
    def database(self) -> str:
        """The database URL in force, with its password; `sqlite:////abs/path/celeriac.db` where none is set."""
        return self.database_url or f"sqlite:///{self.data_dir / 'celeriac.db'}"

    def shown(self) -> dict[str, str]:
        """Every setting as text, passwords replaced by `***`."""
        return {name: _text(getattr(self, name)) for name in self._names()}

    @classmethod
    def describe(cls) -> list[tuple[str, str, str, str]]:
        """(name, what is allowed, default, description with its unit) of every setting, in order."""
        defaults = _defaults()
        return [
            (name, _allowed(field), _text(defaults[name]), field.description or "")
            for name, field in ((name, cls.model_fields[name]) for name in cls._names())
        ]

    @classmethod
    def _names(cls) -> list[str]:
        """The names of all settings, in the order in which they are shown."""
        return sorted(cls.model_fields, key=lambda name: name in Keeping.model_fields)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [(name, value) for name, value in self.shown().items()]


def _defaults() -> dict[str, Any]:
    return _read(Path(__file__).with_name("defaults.toml"))


def _file_layer(file: Path | None, environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    named = file or environ.get("CELERIAC_CONFIG")
    path = Path(named or "celeriac.toml").expanduser()
    if not named and not path.exists():
        return []
    return [(str(path), flat(_read(path)))]


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise SettingsError(f"settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} is not TOML: {error}") from None


def _environment(environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """One layer per variable, so that an error can name the variable."""
    return [
        (variable, {(key := variable.removeprefix(PREFIX).lower()): _parsed(key, text)})
        for variable, text in environ.items()
        if variable.startswith(PREFIX) and variable not in _OTHER_VARIABLES and not variable.startswith(_TEST_PREFIX)
    ]


def _parsed(key: str, text: str) -> Any:
    """The text of a variable as the type of its setting; the text itself where it is not of that type."""
    field = Settings.model_fields.get(key)
    if field is None or field.annotation in (str, Path):
        return text
    if field.annotation in (int, float):
        try:
            return field.annotation(text)
        except ValueError:
            return text
    if key == "maintenance":
        return schedules.from_text(text)
    if key in ("agents", "schemas", "state_classes"):
        return [name.strip() for name in text.split(",") if name.strip()]
    return text


def _problem(key: str, error: Any, values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    origin = origins.get(key, "defaults.toml")
    if error["type"] == "extra_forbidden":
        (nearest,) = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0)
        if origin.startswith(PREFIX):
            return f"unknown environment variable {origin}; the nearest setting is {PREFIX}{nearest.upper()}"
        return f"unknown setting {key!r} in {origin}; the nearest is {nearest!r}"
    if key not in values:
        return f"setting {key} is missing from defaults.toml"
    if key == "maintenance":
        return f"setting maintenance (from {origin}): {error['ctx']['error']}"
    value = values[key]
    found = repr(masked(value)) if isinstance(value, str) else masked(repr(value))
    allowed = _allowed(Settings.model_fields[key])
    if error["type"] == "value_error":
        allowed = str(error["ctx"]["error"])
    return f"setting {key} = {found} (from {origin}) is not allowed; allowed: {allowed}"


def _allowed(field: FieldInfo) -> str:
    """What a setting may be, in words."""
    for mark in field.metadata:
        if isinstance(mark, AfterValidator) and isinstance(mark.func, Schemes):
            return str(mark.func)
    bounds = [
        f"{word} {getattr(mark, sign)}"
        for mark in field.metadata
        for sign, word in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
        if getattr(mark, sign, None) is not None
    ]
    if any(getattr(mark, "func", None) is _jobs for mark in field.metadata):
        return f"a table of jobs, each with {schedules.ALLOWED}"
    if isinstance(field.annotation, types.UnionType):
        return "a table of rules, or a file of them"
    if choices := get_args(field.annotation):
        return _list(field) if isinstance(field.annotation, types.GenericAlias) else " | ".join(choices)
    kinds: dict[Any, str] = {int: "a whole number", float: "a number", Path: "a folder"}
    kind = kinds.get(field.annotation, "text")
    least = max((mark.min_length for mark in field.metadata if hasattr(mark, "min_length")), default=0)
    longest = [f" of {least} to {one.max_length} characters" for one in field.metadata if hasattr(one, "max_length")]
    return f"{kind} {' and '.join(bounds)}".rstrip() + "".join(longest)


def _list(field: FieldInfo) -> str:
    ours = any(getattr(mark, "func", None) is _pairs for mark in field.metadata)
    return "a list of pattern=class" if ours else "a list of module names"


def _text(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
        return "; ".join(f"{name}={one}" for name, one in value.items())
    if isinstance(value, dict):
        return ", ".join(f"{name} ({len(one)})" if isinstance(one, list) else name for name, one in value.items())
    return ", ".join(value) if isinstance(value, list | tuple) else masked(str(value))
