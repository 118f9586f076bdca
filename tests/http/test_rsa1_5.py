"""RSA1_5 is off; switched on, it gives away nothing of its padding (RFC 7516 §11.5, RFC 3218)."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from tests.http.test_interoperation import Peer, every_enc, every_peer
from tests.shared.api import Api, b64u, header, unb64u

MESSAGE = b"It\xe2\x80\x99s a dangerous business, Frodo, going out your door."
MODULUS_BYTES = 256
CEK_BYTES = 32
UNSUPPORTED = (422, "unsupported_algorithm")
FAILED = b'{"error":"decryption_failed","description":"Decryption failed"}\n'
VARYING_HEADERS = {"Date", "X-Request-Id"}


class Recipient(NamedTuple):
    """A generated pair, its public JWK, and a JWE under it."""

    kid: str
    key: Mapping[str, str]
    jwe: Mapping[str, str]

    def with_em(self, em: bytes) -> dict[str, str]:
        """Return the JWE with the raw RSA encryption of ``em`` for its encrypted key."""
        n, e = (int.from_bytes(unb64u(self.key[name])) for name in ("n", "e"))
        power = pow(int.from_bytes(em), e, n)
        return {**self.jwe, "encrypted_key": b64u(power.to_bytes(MODULUS_BYTES))}


@pytest.fixture(scope="module")
def to(rsa1_5: Api) -> Recipient:
    kid = rsa1_5.create(kty="RSA", alg="RSA1_5")["kid"]
    request = {"kid": kid, "alg": "RSA1_5", "enc": "A256GCM", "data": b64u(MESSAGE)}
    return Recipient(kid, rsa1_5.get(f"/keys/{kid}").body["jwk"], rsa1_5.ok("/encrypt", request))


def encoded(cek: bytes, *, begin: bytes = b"\0\2", separator: bytes = b"\0") -> bytes:
    """Return EM (RFC 8017 §7.2.1); the padding string has no zero byte."""
    padding = bytes(byte or 1 for byte in os.urandom(MODULUS_BYTES - 3 - len(cek)))
    return begin + padding + separator + cek


def paddings() -> dict[str, bytes]:
    """Every kind of bad padding."""
    cek = os.urandom(CEK_BYTES)
    no_zero = bytes(byte or 1 for byte in cek)
    return {
        "first byte not zero": encoded(cek, begin=b"\1\2"),
        "second byte not two": encoded(cek, begin=b"\0\1"),
        "no separator": encoded(no_zero, separator=b"\1"),
        "short padding string": b"\0\2" + b"\1" * 7 + b"\0" + os.urandom(MODULUS_BYTES - 10),
        "all zero": bytes(MODULUS_BYTES),
    }


def sizes() -> dict[str, bytes]:
    """CEKs of every kind of wrong size, well padded."""
    return {f"CEK of {size} bytes": encoded(os.urandom(size)) for size in (0, 16, 31, 33, 200)}


def visible(answer: Any) -> tuple[Any, ...]:
    """Return all of an answer that its recipient sees, but for what changes each time."""
    seen = {name: answer.headers[name] for name in answer.headers if name not in VARYING_HEADERS}
    return answer.status, answer.content, tuple(sorted(seen.items()))


def test_it_is_off_unless_switched_on(live: Api) -> None:
    answer = live.post("/keys", {"kty": "RSA", "alg": "RSA1_5"})
    assert answer.refusal == UNSUPPORTED
    assert "switched off" in answer.body["description"]
    request = {"kid": "unknown", "alg": "RSA1_5", "enc": "A256GCM", "data": ""}
    protected = header(alg="RSA1_5", enc="A256GCM", kid="unknown")
    jwe = {"protected": protected, "encrypted_key": b64u(bytes(256)), "ciphertext": ""}
    jwe |= {"iv": b64u(bytes(12)), "tag": b64u(bytes(16))}
    for path, body in {"/encrypt": request, "/decrypt": jwe, "/keys/unwrap": jwe}.items():
        assert live.post(path, body).refusal == UNSUPPORTED


def test_what_it_encrypts_it_decrypts_and_unwraps(rsa1_5: Api, to: Recipient) -> None:
    assert len(unb64u(to.jwe["encrypted_key"])) == MODULUS_BYTES
    assert rsa1_5.ok("/decrypt", to.jwe)["data"] == b64u(MESSAGE)
    cek = rsa1_5.ok("/keys/unwrap", to.jwe)["kid"]
    assert rsa1_5.get(f"/keys/{cek}").body["residency"] == "token"


def test_only_keys_made_for_it_do_it_and_nothing_else(rsa1_5: Api, to: Recipient) -> None:
    unbound = rsa1_5.create(kty="RSA")["kid"]
    for kid, alg in ((unbound, "RSA1_5"), (to.kid, "RSA-OAEP"), (to.kid, "RSA-OAEP-256")):
        request = {"kid": kid, "alg": alg, "enc": "A256GCM", "data": ""}
        assert rsa1_5.post("/encrypt", request).refusal == (422, "crypto_failure")
    sign = {"kid": to.kid, "alg": "RS256", "data": ""}
    assert rsa1_5.post("/sign", sign).refusal == (422, "crypto_failure")


def test_whatever_is_wrong_with_a_message_the_answer_is_the_same(
    rsa1_5: Api, to: Recipient
) -> None:
    messages = {title: to.with_em(em) for title, em in (paddings() | sizes()).items()}
    messages["bad tag"] = {**to.jwe, "tag": b64u(bytes(16))}
    messages["number above the modulus"] = {**to.jwe, "encrypted_key": b64u(b"\xff" * 256)}
    messages["short encrypted key"] = {**to.jwe, "encrypted_key": b64u(b"\1" * 255)}
    messages["long encrypted key"] = {**to.jwe, "encrypted_key": b64u(b"\1" * 257)}
    answers = {title: visible(rsa1_5.post("/decrypt", body)) for title, body in messages.items()}
    assert len(set(answers.values())) == 1
    assert next(iter(answers.values()))[:2] == (422, FAILED)


def test_unwrapping_tells_neither_a_wrong_size_nor_how_the_padding_is_bad(
    rsa1_5: Api, to: Recipient
) -> None:
    messages = {title: to.with_em(em) for title, em in (paddings() | sizes()).items()}
    answers = {
        title: visible(rsa1_5.post("/keys/unwrap", body)) for title, body in messages.items()
    }
    assert len(set(answers.values())) == 1
    assert next(iter(answers.values()))[:2] == (422, FAILED)


@pytest.mark.filterwarnings("ignore:JWE algorithm:joserfc.errors.SecurityWarning")
@every_peer
@every_enc
def test_libraries_that_still_have_it_understand_it(enc: str, peer: Peer, rsa1_5: Api) -> None:
    key = peer.generate("RSA")
    kid = rsa1_5.create(**{**key, "alg": "RSA1_5"})["kid"]
    protected = {"alg": "RSA1_5", "enc": enc, "kid": kid}
    made = peer.encrypt_compact(peer.load(key), MESSAGE, protected).split(".")
    names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    jwe = dict(zip(names, made, strict=True))
    assert rsa1_5.ok("/decrypt", jwe)["data"] == b64u(MESSAGE)
    request = {"kid": kid, "alg": "RSA1_5", "enc": enc, "data": b64u(MESSAGE)}
    ours = rsa1_5.ok("/encrypt", request)
    assert peer.decrypt(peer.load(key), ours, ("RSA1_5", enc)) == MESSAGE
