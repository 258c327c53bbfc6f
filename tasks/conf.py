"""Celery's settings: all of them for our own app, a check for a user's."""

from __future__ import annotations

from typing import Any

from celery import Celery

from ..config import Settings
from ..errors import SettingsError
from . import transport

#: Beat looks for this often, in seconds, when it has nothing to do.
BEAT_SECONDS = 5.0
#: Celery's serializer of signed messages.
SIGNED = "auth"
UNSAFE = frozenset({"pickle", "yaml", "application/x-python-serialize", "application/x-yaml"})


def own(settings: Settings) -> dict[str, Any]:
    """The configuration of our own Celery app (reliability: 1.3 gives the reasons)."""
    conf: dict[str, Any] = {
        "broker_url": settings.broker_url or transport.URL,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "event_serializer": "json",
        "task_ignore_result": True,
        "task_default_queue": settings.queue,
        "task_acks_late": False,  # the lease brings a killed worker's step back; a late ack would only double it
        "worker_prefetch_multiplier": 1,
        "worker_disable_rate_limits": True,
        "worker_send_task_events": bool(settings.broker_url),
        "task_send_sent_event": False,
        "worker_redirect_stdouts": False,
        "worker_soft_shutdown_timeout": 0,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_acquire_timeout": 5,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "beat_max_loop_interval": BEAT_SECONDS,
        "beat_schedule_filename": str(settings.data_dir / "beat-schedule"),
        "enable_utc": True,
        "timezone": "UTC",
    }
    if settings.broker_url:
        conf["broker_transport_options"] = transport_options(settings.broker_url)
        conf["visibility_timeout"] = 900
    return conf


def own_app(settings: Settings) -> Celery:
    """An app of our own."""
    app = Celery("celeriac", set_as_current=False)
    app.conf.update(own(settings))
    return app


def transport_options(broker_url: str) -> dict[str, Any]:
    """What keeps a worker from hanging on a half-open connection, for the broker in use."""
    if broker_url.startswith(("redis", "rediss", "sentinel")):
        return {
            "visibility_timeout": 900,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": not broker_url.startswith("redis+socket"),
            "health_check_interval": 15,
        }
    if broker_url.startswith("amqp"):
        return {"confirm_publish": True}
    return {}


def check(app: Celery) -> None:
    """Refuse an app whose workers would take, or whose programs would send, pickle or YAML.

    Whoever can write to its broker, or to its result backend, could run code. Raises SettingsError naming the setting.
    """
    for setting in ("accept_content", "result_accept_content", "task_serializer", "result_serializer"):
        value = getattr(app.conf, setting, None) or ()
        unsafe = sorted({value} & UNSAFE if isinstance(value, str) else {str(kind) for kind in value} & UNSAFE)
        if unsafe:
            says = "accepts" if setting == "accept_content" else f"has {setting} ="
            raise SettingsError(
                f"the Celery app {app.main or 'default'!r} {says} {', '.join(unsafe)}; "
                "Celeriac joins only apps that accept JSON alone: set accept_content = ['json']"
                + ("" if setting == "accept_content" else f", and {setting} to JSON too")
            )
