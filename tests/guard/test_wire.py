"""Only JSON crosses the wire: an app that would take or send anything that runs code is not joined."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from servers import RedisServer
from tasks.processes import Worker, ended, python, until

from celeriac import Celeriac
from celeriac.config import Settings
from celeriac.errors import SettingsError
from celeriac.tasks import conf


@pytest.mark.parametrize("setting", ["accept_content", "result_accept_content", "task_serializer", "result_serializer"])
@pytest.mark.parametrize("kind", sorted(conf.UNSAFE))
def test_an_app_with_code_on_its_wire_is_refused(tmp_path: object, setting: str, kind: str) -> None:
    app = Celery("theirs", set_as_current=False, broker="memory://")
    app.conf[setting] = ["json", kind] if setting.endswith("content") else kind
    with pytest.raises(SettingsError, match=f"'theirs' .*{kind}.*JSON alone") as refusal:
        Celeriac(app, data_dir=str(tmp_path)).prepare()
    assert setting in str(refusal.value)


def test_a_plain_app_and_our_own_are_joined(tmp_path: object) -> None:
    conf.check(Celery("theirs", set_as_current=False))
    own = conf.own_app(Settings.load({"data_dir": str(tmp_path)}, environ={}))
    conf.check(own)
    assert (own.conf.accept_content, own.conf.result_accept_content) == (["json"], ["json"])


SIGNED = """
from pathlib import Path

from proj import app

here = str(Path(__file__).parent)
app.conf.update(
    security_key=f"{here}/key.pem", security_certificate=f"{here}/cert.pem", security_cert_store=f"{here}/*.pem.crt",
    task_serializer="auth", event_serializer="auth", accept_content=["auth"],
)
app.setup_security()
"""


def certify(folder: Path) -> None:
    """A key of the test's own, its certificate, and the store of certificates that are trusted."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(1), now + timedelta(1))
    pem = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    for file in ("cert.pem", "cert.pem.crt"):
        (folder / file).write_bytes(pem)
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_an_app_that_signs_its_messages_signs_ours_and_unsigned_ones_start_nothing(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    certify(tmp_path)
    (tmp_path / "signed.py").write_text(SIGNED)
    redis_server.client().flushall()
    settings = {"PROJ_BROKER": redis_server.url, "sweep_seconds": 5}
    start = (
        "import signed; from proj import c; from celeriac import Plan, step\n"
        "s = c.sessions.start(Plan('p', [step('a', 'edge.inc', {}), step('b', 'edge.inc', {}, after=['a'])]))\n"
        "import os; print(s.wait(20) if 'WAIT' in os.environ else s.id)"
    )
    sent = python(start, tmp_path, **settings)
    (message,) = redis_server.client().lrange("proj-tasks", 0, -1)
    assert json.loads(message)["content-type"] == "application/data", sent.stderr
    forged = json.loads(message) | {
        "content-type": "application/json",
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
    }
    redis_server.client().rpush("proj-tasks", json.dumps(forged))
    worker = Worker(tmp_path, "-c", "1", app="signed", **settings)
    with ended(worker):
        done = python(start, tmp_path, WAIT="1", **settings)
        assert done.stdout.strip() == "completed", done.stderr
        until(lambda: "Refusing to deserialize untrusted content of type json" in worker.log)
