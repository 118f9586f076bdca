"""Marked secrets are put everywhere, and nothing that the service writes or answers holds one."""

import base64
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa

from scripts.throwaway import make_token
from tests.shared.api import Api, b64u, header
from tests.shared.forks import server
from tests.shared.waiting import ANSWER, CHANGE, STATE

RSA_MEMBERS = ("d", "p", "q", "dp", "dq", "qi")
MALFORMED = (
    b"NONSENSE SECRET",
    b"GET /SECRET HTTP/1.1 SECRET",
    b"GET / HTTP/SECRET",
    b"aSECRET / HTTP/1.1",
    b"GET / HTTP/1.1\r\nSECRET",
    b"GET / HTTP/1.1\r\nSECRET : a",
    b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: SECRET",
)
FAULT = """
from app import create_app as create
from app.keys.use import KeyUse

def create_app():
    def fail(self, principal, *, data, **_members):
        raise RuntimeError(data)
    KeyUse.mac = fail
    return create()
"""


def marked(name: str) -> bytes:
    """Return a secret of 32 bytes that is found again by its text."""
    return f"SECRET-{name}-".encode().ljust(32, b"\xfb")


def forms(secret: bytes) -> Iterator[bytes]:
    """Give how a secret may be written: as it is, in hexadecimal, in both kinds of base64."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    yield repr(secret).encode()[2:-1]


def rsa_key() -> tuple[dict[str, str], list[bytes]]:
    """Return a private JWK and its secrets."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_numbers()
    values = {
        "n": private.public_numbers.n,
        "e": private.public_numbers.e,
        "d": private.d,
        "p": private.p,
        "q": private.q,
        "dp": private.dmp1,
        "dq": private.dmq1,
        "qi": private.iqmp,
    }
    octets = {name: value.to_bytes((value.bit_length() + 7) // 8) for name, value in values.items()}
    jwk = {name: b64u(value) for name, value in octets.items()} | {"kty": "RSA", "alg": "RS256"}
    return jwk, [octets[name] for name in RSA_MEMBERS]


JSON: Mapping[str, str] = {"Content-Type": "application/json"}


class Run:
    """What is sent, and everything that comes of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.secrets: list[bytes] = []
        self.answers = bytearray()

    def secret(self, name: str) -> bytes:
        secret = marked(name)
        self.secrets.append(secret)
        return secret

    def send(
        self, path: str, body: Any, *, may_repeat: bool = False, headers: Mapping[str, str] = JSON
    ) -> Any:
        arguments = {"data": body} if isinstance(body, bytes) else {"json": body}
        response = requests.post(
            f"{self.url}/v1/crypto{path}",
            headers={**JSON, **headers},
            timeout=ANSWER.seconds,
            **arguments,
        )
        if not may_repeat:
            self.answers += response.content + repr(response.headers).encode()
        return response.json()


def use_everything(run: Run) -> None:
    bearer = {"Authorization": f"Bearer {b64u(run.secret('bearer'))}"}
    k, d = run.secret("k"), run.secret("d")
    mac = run.send("/keys", {"kty": "oct", "alg": "HS256", "k": b64u(k)}, headers=bearer)
    aes = run.send("/keys", {"kty": "oct", "alg": "A256GCM", "k": b64u(run.secret("aes"))})
    run.send("/keys", {"kty": "EC", "crv": "P-256", "alg": "ES256", "d": b64u(d)})
    jwk, secrets = rsa_key()
    run.secrets += secrets
    run.send("/keys", jwk)
    run.send("/keys", jwk | {"q": jwk["p"]})  # inconsistent
    data, aad = b64u(run.secret("data")), b64u(run.secret("aad"))
    sealing = {"kid": aes["kid"], "alg": "dir", "enc": "A256GCM", "data": data, "aad": aad}
    jwe = run.send("/encrypt", sealing, may_repeat=True)  # an answer repeats the AAD
    assert run.send("/decrypt", jwe, may_repeat=True)["data"] == data
    run.send("/decrypt", jwe | {"tag": "A" * 22})
    run.send("/sign", {"kid": mac["kid"], "alg": "HS256", "data": data})
    run.send("/mac", {"kid": mac["kid"], "alg": "HS256", "data": data})


def put_secrets_in_wrong_places(run: Run) -> None:
    for number, place in enumerate(("kid", "alg", "enc", "protected", "data", "mac", "k", "kty")):
        value = b64u(run.secret(f"place{number}"))
        body = {"kid": "x", "alg": "HS256", "enc": "A256GCM", "data": "", place: value}
        is_echoed = place in ("kid", "alg", "enc", "kty")  # an answer may name what is not known
        for path in ("/mac", "/encrypt", "/decrypt", "/sign", "/keys", "/keys/unwrap"):
            run.send(path, body, may_repeat=is_echoed)
    kid = header(alg="HS256", kid=run.secret("kid").hex())
    run.send("/verify", {"protected": kid, "data": "", "signature": ""})
    secret = run.secret("malformed")
    run.send("/mac", b'{"data": "' + base64.urlsafe_b64encode(secret) + b'"')
    run.send("/mac", secret)
    run.send("/mac", {"kid": [b64u(secret)], "data": {b64u(secret): 1}, "alg": 3})
    odd = f"{b64u(run.secret('id'))},{b64u(run.secret('id'))}"
    run.send("/mac", {}, headers={"X-Request-Id": odd})
    path = b64u(run.secret("path"))
    for method in ("GET", "DELETE"):
        answer = requests.request(
            method, f"{run.url}/v1/crypto/keys/{path}?{path}", timeout=ANSWER.seconds
        )
        run.answers += answer.content
    put_secrets_in_malformed_heads(run)


def put_secrets_in_malformed_heads(run: Run) -> None:
    host, port = run.url.removeprefix("http://").split(":")
    for head in MALFORMED:
        secret = b64u(run.secret("head")).encode()
        with socket.create_connection((host, int(port)), timeout=ANSWER.seconds) as client:
            client.sendall(head.replace(b"SECRET", secret) + b"\r\n\r\n")
            run.answers += client.recv(65536)


def written(state: Path, output: Path) -> dict[str, bytes]:
    """Return all that the service has written, but for the token's own files and the PIN."""
    files = [path for path in state.rglob("*") if path.is_file() and "tokens" not in path.parts]
    own = ("pin", "softhsm")
    found = {
        str(path): path.read_bytes()
        for path in files
        if not set(path.relative_to(state).parts) & set(own)
    }
    return found | {str(output): output.read_bytes()}


def assert_none(secrets: list[bytes], texts: dict[str, bytes]) -> None:
    for secret in secrets:
        for form in forms(secret):
            for name, text in texts.items():
                assert form not in text, (name, secret[:16])


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_no_secret_is_in_what_is_written_or_answered(state, tmp_path):
    environment = make_token(state)
    pin = Path(environment["JOSE_HSM_PIN_FILE"]).read_bytes()
    output = tmp_path / "output"
    settings = environment | {"JOSE_HSM_LOG_LEVEL": "debug", "JOSE_HSM_SERVER_TIMING": "1"}
    with output.open("wb") as log, server(settings, log=log) as running:
        run = Run(running.url)
        Api.over_http(run.url).create(kty="oct", alg="HS256")
        use_everything(run)
        put_secrets_in_wrong_places(run)
        for path in ("/metrics", "/health/ready", "/health/live"):
            run.answers += requests.get(run.url + path, timeout=STATE.seconds).content
    texts = written(state, output) | {"answers": bytes(run.answers)}
    assert any(name.endswith("audit.log") for name in texts)
    assert texts[str(output)].count(b'"endpoint"') > 50
    assert_none([*run.secrets, pin], texts)


def test_the_grep_finds_what_is_there():
    for form in forms(marked("x")):
        with pytest.raises(AssertionError):
            assert_none([marked("x")], {"file": b"before" + form + b"after"})


def test_no_secret_is_in_what_is_said_of_a_fault(state, tmp_path):
    (tmp_path / "faulty.py").write_text(FAULT)
    found_there = {"GUNICORN_CMD_ARGS": f"--pythonpath {tmp_path}"}
    environment = make_token(state) | found_there | {"JOSE_HSM_LOG_LEVEL": "debug"}
    output = tmp_path / "output"
    with (
        output.open("wb") as log,
        server(environment, log=log, application="faulty:create_app()") as running,
    ):
        run = Run(running.url)
        body = {"kid": "x", "alg": "HS256", "data": b64u(run.secret("data"))}
        assert run.send("/mac", body)["error"] == "internal_error"
    assert b"builtins.RuntimeError" in output.read_bytes()
    assert_none(run.secrets, written(state, output) | {"answers": bytes(run.answers)})


def test_no_secret_is_in_what_is_said_while_the_service_cannot_be_loaded(state, tmp_path):
    environment = make_token(state) | {"JOSE_HSM_PROXY_SECRET_FILE": str(tmp_path / "missing")}
    output = tmp_path / "output"
    with output.open("wb") as log, server(environment, workers=1, log=log) as running:
        run = Run(running.url)
        put_secrets_in_malformed_heads(run)
    assert output.read_bytes().count(b"Invalid request") == len(MALFORMED)
    assert_none(run.secrets, written(state, output) | {"answers": bytes(run.answers)})


def test_a_wrong_pin_is_not_repeated(state, tmp_path):
    environment = make_token(state)
    secret = b"wrong-SECRET-pin"
    Path(environment["JOSE_HSM_PIN_FILE"]).write_bytes(secret)
    output = tmp_path / "output"
    settings = environment | {"JOSE_HSM_LOG_LEVEL": "debug"}
    with output.open("wb") as log, server(settings, workers=1, log=log) as running:
        run = Run(running.url)
        deadline = time.monotonic() + CHANGE.seconds
        while not re.search(rb"unavailable: pin", bytes(run.answers)):
            assert time.monotonic() < deadline
            run.answers += requests.get(run.url + "/health/ready", timeout=STATE.seconds).content
            time.sleep(0.1)
        run.send("/keys", {"kty": "oct", "alg": "HS256"})
    assert_none([secret], written(state, output) | {"answers": bytes(run.answers)})


def test_the_password_of_the_registry_is_not_repeated(state, tmp_path):
    environment = make_token(state)
    url = "postgresql+psycopg://user:SECRET-password@127.0.0.1:1/none"
    settings = environment | {"JOSE_HSM_LOG_LEVEL": "debug", "JOSE_HSM_DATABASE_URL": url}
    output = tmp_path / "output"
    with output.open("wb") as log, server(settings, workers=1, log=log) as running:
        run = Run(running.url)
        run.send("/keys", {"kty": "oct", "alg": "HS256"})
        run.answers += requests.get(run.url + "/health/ready", timeout=STATE.seconds).content
    assert output.stat().st_size
    assert_none([b"SECRET-password"], written(state, output) | {"answers": bytes(run.answers)})
