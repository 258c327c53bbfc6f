"""Settings: where they come from, what is allowed, what is said when they are wrong, and what is never shown."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.config import Settings
from celeriac.config import settings as module
from celeriac.config.urls import masked
from celeriac.errors import SettingsError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(**environ: str) -> Settings:
    return Settings.load(environ=environ)


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as error:
        load(**environ)
    return str(error.value)


def test_defaults_name_every_setting_and_nothing_else() -> None:
    defaults = tomllib.loads(Path(module.__file__).with_name("defaults.toml").read_text())
    assert set(defaults) == set(Settings.model_fields)


def test_the_embedded_default_is_one_sqlite_file_in_the_working_folder(tmp_path: Path) -> None:
    settings = load()
    assert settings.database == f"sqlite:///{tmp_path}/.celeriac/celeriac.db"
    assert (settings.broker_url, settings.redis_url, settings.model) == ("", "", "")


def test_a_caller_wins_over_the_environment_and_that_over_the_file_and_that_over_the_defaults(tmp_path: Path) -> None:
    Path("celeriac.toml").write_text('lease_seconds = 7\nsweep_seconds = 2\nmax_attempts = 9\nqueue = "file"\n')
    settings = Settings.load(
        {"lease_seconds": 1.5}, environ={"CELERIAC_LEASE_SECONDS": "3", "CELERIAC_SWEEP_SECONDS": "0.5"}
    )
    assert (settings.lease_seconds, settings.sweep_seconds, settings.max_attempts) == (1.5, 0.5, 9)
    assert (settings.queue, settings.checkpoints_kept) == ("file", 10)


def test_a_named_file_is_read_instead_of_the_one_in_the_working_folder(tmp_path: Path) -> None:
    Path("celeriac.toml").write_text("max_attempts = 2\n")
    Path("other.toml").write_text("carry_steps = 3\n")
    by_variable = load(CELERIAC_CONFIG="other.toml")
    by_argument = Settings.load(file=Path("other.toml"), environ={"CELERIAC_CONFIG": "absent.toml"})
    assert by_variable == by_argument
    assert (by_variable.max_attempts, by_variable.carry_steps) == (5, 3)


def test_a_named_file_that_is_absent_or_no_toml_is_one_error(tmp_path: Path) -> None:
    assert refusal(CELERIAC_CONFIG="absent.toml") == "settings file absent.toml: No such file or directory"
    Path("bad.toml").write_text("queue = \n")
    assert refusal(CELERIAC_CONFIG="bad.toml").startswith("settings file bad.toml is not TOML: ")
    Path("latin.toml").write_bytes(b'queue = "\xe9"\n')
    assert refusal(CELERIAC_CONFIG="latin.toml").startswith("settings file latin.toml is not TOML: ")
    assert refusal(CELERIAC_CONFIG=str(tmp_path)).endswith(": Is a directory")


def test_an_unknown_variable_names_the_nearest_setting() -> None:
    assert refusal(CELERIAC_DATABSE_URL="x") == (
        "unknown environment variable CELERIAC_DATABSE_URL; the nearest setting is CELERIAC_DATABASE_URL"
    )


def test_an_unknown_key_in_a_file_names_the_file_and_the_nearest_setting() -> None:
    Path("celeriac.toml").write_text("leaseseconds = 3\n")
    assert refusal() == "unknown setting 'leaseseconds' in celeriac.toml; the nearest is 'lease_seconds'"


def test_variables_that_are_no_settings_are_let_through() -> None:
    assert load(CELERIAC_REQUIRE_SERVERS="1", CELERIAC_TEST_SEED="7", PATH="/bin") == load()


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("LEASE_SECONDS", "soon", "a number >= 0.1"),
        ("LEASE_SECONDS", "0.05", "a number >= 0.1"),
        ("SWEEP_SECONDS", "nan", "a number >= 0.05"),
        ("STEP_TIME_LIMIT", "inf", "a number >= 0"),
        ("MAX_ATTEMPTS", "0", "a whole number >= 1"),
        ("MAX_ATTEMPTS", "2.5", "a whole number >= 1"),
        ("CONCURRENCY", "-1", "a whole number >= 0"),
        ("REDIS_TIMEOUT", "0", "a number > 0"),
        ("PRUNE_SIMILARITY", "1.5", "a number > 0 and <= 1"),
        ("LOG_LEVEL", "LOUD", "DEBUG | INFO | WARNING | ERROR | CRITICAL"),
        ("QUEUE", "", "text of 1 to 200 characters"),
        ("DATA_DIR", "", "a folder"),
        ("DATA_DIR", "/a?b", "a path without '?'"),
        ("AGENTS", "my agents", "names of modules"),
        ("DATABASE_URL", "mysql://h/d", "sqlite://, postgresql://, postgresql+psycopg://"),
        ("DATABASE_URL", "celeriac.db", "sqlite://, postgresql://, postgresql+psycopg://"),
        ("DATABASE_URL", "sqlite://", "a file for SQLite"),
        ("DATABASE_URL", "sqlite:///:memory:", "a file for SQLite"),
        ("DATABASE_URL", "sqlite://folder/file", "a file for SQLite"),
        ("BROKER_URL", "http://h", "redis://, rediss://, redis+socket://, amqp://, amqps://, sentinel://, memory://"),
        ("REDIS_URL", "amqp://h", "redis://, rediss://, unix://"),
    ],
)
def test_a_bad_value_is_named_with_its_source_and_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    message = refusal(**{f"CELERIAC_{variable}": value})
    assert message.startswith(f"setting {variable.lower()} = ")
    assert f"(from CELERIAC_{variable}) is not allowed; allowed: " in message
    assert allowed in message


def test_a_file_does_not_pass_text_or_truth_for_a_number() -> None:
    Path("celeriac.toml").write_text('lease_seconds = "3"\nmax_attempts = true\n')
    assert refusal().splitlines() == [
        "setting lease_seconds = '3' (from celeriac.toml) is not allowed; allowed: a number >= 0.1",
        "setting max_attempts = True (from celeriac.toml) is not allowed; allowed: a whole number >= 1",
    ]


def test_agents_are_a_list_in_a_file_and_separated_by_commas_in_the_environment() -> None:
    Path("celeriac.toml").write_text('agents = ["shop.agents"]\n')
    assert load().agents == ("shop.agents",)
    assert load(CELERIAC_AGENTS=" a.b, c ,").agents == ("a.b", "c")
    assert load(CELERIAC_AGENTS="").agents == ()


def test_database_urls_are_brought_to_the_form_that_the_engine_takes(tmp_path: Path) -> None:
    assert load(CELERIAC_DATABASE_URL="postgresql://u@h/d").database == "postgresql+psycopg://u@h/d"
    assert load(CELERIAC_DATABASE_URL="postgresql+psycopg://u@h/d").database == "postgresql+psycopg://u@h/d"
    assert load(CELERIAC_DATABASE_URL="sqlite:///a.db").database == f"sqlite:///{tmp_path}/a.db"
    assert load(CELERIAC_DATABASE_URL="sqlite:////tmp/a.db").database == "sqlite:////tmp/a.db"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().queue = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@h/d",
        "postgresql://me:hun/ter2@h/d",
        "postgresql://me:x@hunter2@h/d",
        "postgresql://h/d?user=me&password=hunter2",
        "postgres://me:hunter2@h/d",
        "me:hunter2@h/d",
    ],
)
def test_no_password_is_shown_in_a_setting_or_in_an_error(url: str) -> None:
    try:
        settings = load(CELERIAC_DATABASE_URL=url)
    except SettingsError as error:
        assert error.__context__ is None
        assert "ter2" not in str(error)
    else:
        assert "ter2" in settings.database
        assert "ter2" not in f"{settings} {settings!r} {settings.shown()}"


@given(
    st.sampled_from(["redis://", "amqp://me", "sentinel://h:1;sentinel://", ""]),
    st.text(st.characters(codec="ascii", exclude_characters="@"), min_size=1),
)
def test_whatever_the_password_is_it_is_masked(before: str, password: str) -> None:
    assert masked(f"{before}:Q{password}Q@h/0").count("Q") == 0 or "Q" in password


def test_a_path_is_not_mistaken_for_a_password() -> None:
    for text in ("sqlite:////tmp/a:b@c.db", "/data/a:b@c", "redis://h:6379/0", "openai:gpt-5"):
        assert masked(text) == text


def test_every_setting_is_described_with_what_is_allowed() -> None:
    described = Settings.describe()
    assert [name for name, *_ in described] == list(load().shown())
    assert all(allowed and text.endswith(".") for _, allowed, _, text in described)
    assert ("lease_seconds", "a number >= 0.1", "30.0") in {row[:3] for row in described}


def test_the_production_example_is_allowed() -> None:
    settings = Settings.load(file=Path(module.__file__).with_name("production.toml"), environ={})
    assert settings.database.startswith("postgresql+psycopg://")
    assert settings.broker_url.startswith("redis://")
    assert settings.retention_completed_days == 90


def test_importing_the_settings_imports_neither_celery_nor_sqlalchemy() -> None:
    program = (
        "import sys, celeriac.config; print({'celery', 'kombu', 'sqlalchemy', 'alembic', 'rich'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_a_table_of_a_file_holds_the_settings_that_begin_with_its_name() -> None:
    Path("celeriac.toml").write_text(
        'queue = "q"\n[retention]\nevents_days = 30\nbackups = "on"\n[prune]\nmessages = 5\n'
    )
    settings = load()
    assert (settings.retention_events_days, settings.retention_backups, settings.prune_messages) == (30, "on", 5)
    Path("celeriac.toml").write_text("[retention]\nevent_days = 30\n")
    assert refusal() == (
        "unknown setting 'retention_event_days' in celeriac.toml; the nearest is 'retention_events_days'"
    )
    Path("celeriac.toml").write_text("[retention]\nevents_days = -1\n")
    assert "setting retention_events_days = -1" in refusal()
