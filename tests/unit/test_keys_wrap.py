"""``jose-hsm keys wrap``: what whoever has a key makes of it for a token; there is none here."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from app.operator.cli import main
from tests.shared.api import b64u, unb64u

KID = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
PASSWORD = b"a password"
KEY = ec.generate_private_key(ec.SECP256R1())
OCTETS = bytes(range(32))
HASHES: dict[str, Any] = {"RSA-OAEP": hashes.SHA1(), "RSA-OAEP-256": hashes.SHA256()}


@cache
def holder() -> rsa.RSAPrivateKey:
    """The private half of a wrapping key, which a token would have."""
    return rsa.generate_private_key(65537, 2048)


def wrapping(**members: Any) -> dict[str, Any]:
    """What POST /wrapping-keys answers."""
    numbers = holder().public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64u(numbers.n.to_bytes(256)), "e": "AQAB", "kid": KID}
    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    return {"kid": KID, "alg": "RSA-OAEP", "jwk": jwk, "expires": expires} | members


def unwrapped(wrapped: dict[str, str]) -> bytes:
    """What a token makes of it."""
    octets, hash_ = unb64u(wrapped["ciphertext"]), HASHES[wrapped["alg"]]
    oaep = padding.OAEP(padding.MGF1(hash_), hash_, None)
    return aes_key_unwrap_with_padding(holder().decrypt(octets[:256], oaep), octets[256:])


Wrap = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def wrap(tmp_path: Path, capsys: Any) -> Wrap:
    """Run the command on a file with those octets; return status, JSON and what is said."""

    def wrap(octets: bytes, *arguments: str, target: Any = None) -> tuple[int, Any, str]:
        (tmp_path / "key").write_bytes(octets)
        (tmp_path / "password").write_bytes(PASSWORD + b"\n")
        text = target if isinstance(target, str) else json.dumps(target or wrapping())
        (tmp_path / "wrapping.json").write_text(text)
        command = ["keys", "wrap", str(tmp_path / "key"), "--for", str(tmp_path / "wrapping.json")]
        with_password = [one.replace("PASSWORD", str(tmp_path / "password")) for one in arguments]
        status = main([*command, *with_password])
        said = capsys.readouterr()
        return status, json.loads(said.out) if said.out else None, said.err

    return wrap


def pem(form: PrivateFormat, encryption: Any = NoEncryption()) -> bytes:  # noqa: B008  # it holds nothing
    return KEY.private_bytes(Encoding.PEM, form, encryption)


ENCRYPTED = BestAvailableEncryption(PASSWORD)
DER = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
BRAINPOOL = ec.generate_private_key(ec.BrainpoolP256R1()).private_bytes(
    Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
)
OPEN = {
    "PEM": pem(PrivateFormat.PKCS8),
    "PEM behind text": b"Bag Attributes: <No Attributes>\n" + pem(PrivateFormat.PKCS8),
    "PEM as OpenSSL had it": pem(PrivateFormat.TraditionalOpenSSL),
    "PKCS#8": DER,
    "PKCS#12": pkcs12.serialize_key_and_certificates(None, KEY, None, None, NoEncryption()),
}
CLOSED = {
    "PEM": pem(PrivateFormat.PKCS8, ENCRYPTED),
    "PEM as OpenSSL had it": pem(PrivateFormat.TraditionalOpenSSL, ENCRYPTED),
    "PKCS#8": KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, ENCRYPTED),
    "PKCS#12": pkcs12.serialize_key_and_certificates(None, KEY, None, None, ENCRYPTED),
}


@pytest.mark.parametrize("name", OPEN)
def test_a_file_without_a_password_is_wrapped(name, wrap):
    status, body, said = wrap(OPEN[name], "--alg", "ES256")
    numbers = KEY.public_key().public_numbers()
    wrapped = body.pop("wrapped")
    assert (status, body) == (
        0,
        {
            "kty": "EC",
            "crv": "P-256",
            "x": b64u(numbers.x.to_bytes(32)),
            "y": b64u(numbers.y.to_bytes(32)),
            "alg": "ES256",
        },
    )
    assert unwrapped(wrapped) == DER
    assert wrapped | {"ciphertext": ""} == {
        "kid": KID,
        "alg": "RSA-OAEP",
        "enc": "CKM_RSA_AES_KEY_WRAP",
        "ciphertext": "",
    }
    assert "still holds the key itself" in said


@pytest.mark.parametrize("name", CLOSED)
def test_a_file_with_a_password_is_wrapped_with_it(name, wrap):
    _, body, _ = wrap(CLOSED[name], "--password-file", "PASSWORD")
    assert unwrapped(body["wrapped"]) == DER


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("password", [b"", b"another"])
def test_and_is_not_with_another_one(name, password, wrap, tmp_path):
    (tmp_path / "other").write_bytes(password)
    status, body, said = wrap(CLOSED[name], "--password-file", str(tmp_path / "other"))
    assert (status, body) == (2, None)
    assert said.endswith("is no private key in PEM, PKCS#8 or PKCS#12, or has another password\n")


@pytest.mark.parametrize("name", CLOSED)
def test_and_is_not_without_it(name, wrap):
    status, body, said = wrap(CLOSED[name])
    assert (status, body) == (2, None)
    assert "--password-file" in said


@pytest.mark.parametrize("name", CLOSED)
def test_whoever_is_there_is_asked_for_it_once(name, wrap, monkeypatch):
    asked = []

    def answer(text: str, **_how: object) -> str:
        asked.append(text)
        return "another"

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("click.prompt", answer)
    assert wrap(CLOSED[name])[0] == 2
    assert asked == ["Password"]


def test_the_bytes_of_a_secret_key_are_wrapped(wrap):
    _, body, _ = wrap(OCTETS, "--alg", "A256GCM", target=wrapping(alg="RSA-OAEP-256"))
    assert unwrapped(body.pop("wrapped")) == OCTETS
    assert body == {"kty": "oct", "alg": "A256GCM"}


def test_an_rsa_key_is_described_by_its_modulus(wrap):
    octets = holder().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    _, body, _ = wrap(octets)
    assert unwrapped(body.pop("wrapped")) == octets
    assert body == {name: wrapping()["jwk"][name] for name in ("kty", "n", "e")}


PAST = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
NO_ANSWER = "is no answer of POST /wrapping-keys"
REFUSALS: dict[str, tuple[bytes, tuple[str, ...], Any, str]] = {
    "another curve": (BRAINPOOL, (), None, "is on no curve"),
    "nothing": (b"", ("--alg", "HS256"), None, "is empty"),
    "no key": (b"no key", (), None, "is no private key"),
    "no PEM": (b"-----BEGIN NOTHING-----", (), None, "is no private key"),
    "an alg of another key": (DER, ("--alg", "ES384"), None, "is not for ES384"),
    "no alg": (DER, ("--alg", "none"), None, "is not for none"),
    "no JSON": (DER, (), "no JSON", NO_ANSWER),
    "no object": (DER, (), "[]", NO_ANSWER),
    "too deep": (DER, (), "[" * 100_000, NO_ANSWER),
    "no jwk": (DER, (), {"kid": KID, "alg": "RSA-OAEP"}, NO_ANSWER),
    "another alg": (DER, (), wrapping(alg="RSA1_5"), NO_ANSWER),
    "a short modulus": (
        DER,
        (),
        wrapping(jwk={"kty": "RSA", "n": b64u(b"\xff" * 64), "e": "AQAB"}),
        NO_ANSWER,
    ),
    "an old one": (DER, (), wrapping(expires=PAST), "has expired"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_wrapped_is_refused_in_a_line(name, wrap):
    octets, arguments, target, text = REFUSALS[name]
    status, body, said = wrap(octets, *arguments, target=target)
    assert (status, body) == (2, None)
    assert text in said
    assert said.count("\n") == 1
