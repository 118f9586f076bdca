"""RSA keys are checked one after another, while others do what they want."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from app.jwk import primality
from app.service import service_of
from tests.shared.api import Answer, Api, b64u
from tests.shared.waiting import PATIENCE_SECONDS, until
from tests.unit.test_key_material import members_from, number

IMPORTERS = 20
PLACES = 1 + 7  # one is checked, and so many wait
JWK = RSAKey.generate_key(2048, private=True).as_dict(private=True)

WAITING = """
import pathlib, sys, time
here = pathlib.Path(sys.argv[0])
here.with_name("begun").touch()
while not here.with_name("go on").exists():
    time.sleep(0.01)
print("sound")
"""


@pytest.fixture(autouse=True)
def patient(application: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits in the lane does so however busy the machine is."""
    lane = service_of(application).hsm._generations
    monkeypatch.setattr(lane, "_wait_seconds", PATIENCE_SECONDS)


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Checks that take until the file ``go on`` is in this directory."""
    (tmp_path / "process.py").write_text(WAITING)
    monkeypatch.setattr(primality, "_PROCESS", tmp_path / "process.py")
    yield tmp_path
    (tmp_path / "go on").touch()


def client(application: Any) -> Api:
    """A client of its own, for one thread."""
    test_client = application.test_client()
    return Api(lambda method, path, **members: test_client.open(path, method=method, **members))


def importing(application: Any, answers: list[Answer]) -> Callable[[], None]:
    return lambda: answers.append(client(application).post("/keys", JWK))


def test_while_one_key_is_checked_others_wait_are_refused_or_sign(application, local, held):
    answers: list[Answer] = []
    importers = [threading.Thread(target=importing(application, answers)) for _ in range(IMPORTERS)]
    for importer in importers:
        importer.start()
    until(lambda: (held / "begun").exists() and len(answers) == IMPORTERS - PLACES)
    assert {answer.refusal for answer in answers} == {(503, "unavailable")}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)

    key = local.create(kty="EC", crv="P-256", alg="ES256")
    signed = {"kid": key["kid"], "alg": "ES256", "data": b64u(b"message")}
    assert local.post("/sign", signed).status == 200
    assert local.create(kty="oct", k=b64u(bytes(32)), alg="HS256")
    assert len(answers) == IMPORTERS - PLACES  # and nobody has gone on meanwhile

    (held / "go on").touch()
    for importer in importers:
        importer.join()
    made = [answer for answer in answers if answer.status == 200]
    assert len(made) == PLACES
    for answer in made:
        assert local.delete(answer.body["kid"]).status == 204


def test_a_key_that_is_refused_has_never_had_a_row(application, local, monkeypatch):
    registry = service_of(application).keyring.recovery.registry
    monkeypatch.setattr(registry, "insert_all", lambda *_args, **_names: pytest.fail("a row"))
    members = members_from(number("r") * number("s"), number("q"))
    jwk = {name: b64u(octets) for name, octets in members.items()}
    answer = local.post("/keys", {"kty": "RSA", **jwk})
    assert answer.refusal == (400, "bad_request")
    assert answer.body["description"] == "Fields 'p' and 'q' must be prime numbers"


def test_keys_are_checked_one_at_a_time(application, tmp_path, monkeypatch):
    """Each process would find another one's mark if they ran side by side."""
    (tmp_path / "process.py").write_text(
        "import os, pathlib, sys\n"
        "mark = pathlib.Path(sys.argv[0]).with_name('mark')\n"
        "mark.touch(exist_ok=False)\n"
        "sys.stdin.read()\n"
        "mark.unlink()\n"
        "print('sound')\n"
    )
    monkeypatch.setattr(primality, "_PROCESS", tmp_path / "process.py")
    answers: list[Answer] = []
    with ThreadPoolExecutor(PLACES) as importers:
        for _ in range(PLACES):
            importers.submit(importing(application, answers))
    assert [answer.status for answer in answers] == [200] * PLACES
    for answer in answers:
        assert client(application).delete(answer.body["kid"]).status == 204
