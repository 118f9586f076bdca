"""AES-GCM over the CEK (RFC 7518 §4.7): IV and tag stand in the header."""

import json
import os
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.sealing import seal

BAD_REQUEST, CRYPTO_FAILURE = (400, "bad_request"), (422, "crypto_failure")
DECRYPTION_FAILED = (422, "decryption_failed")
KEY_BYTES = {"A128GCMKW": 16, "A192GCMKW": 24, "A256GCMKW": 32}
every_alg = pytest.mark.parametrize("alg", KEY_BYTES)

RFC_7520_5_7 = {
    "k": "qC57l_uxcm7Nm3K-ct4GFjx8tM1U8CZ0NLBvdQstiS8",
    "iv": "KkYT0GX_2jHlfqN_",
    "tag": "kfPduVQ3T3H6vnewt--ksw",
    "encrypted_key": "lJf3HbOApxMEBkCMOoTnnABxs_CvTWUmZQ2ElLvYNok",
    "cek": "UWxARpat23nL9ReIj4WG3D1ee9I4r-Mv5QLuFXdy_rE",
}


def message(kid: str, cek: bytes, encrypted_key: str, **members: Any) -> dict[str, Any]:
    """Return a message whose header has these members, sealed with ``cek``."""
    protected = header(enc="A256GCM", kid=kid, **members)
    iv, ciphertext, tag = seal("A256GCM", cek, os.urandom(12), b"data", protected.encode())
    parts = {"iv": b64u(iv), "ciphertext": b64u(ciphertext), "tag": b64u(tag)}
    return {"protected": protected, "encrypted_key": encrypted_key, **parts}


def wrapped(key: bytes, cek: bytes) -> dict[str, str]:
    """Return IV, tag and ciphertext of a CEK."""
    iv = os.urandom(12)
    output = AESGCM(key).encrypt(iv, cek, b"")
    return {"iv": b64u(iv), "tag": b64u(output[-16:]), "encrypted_key": b64u(output[:-16])}


@every_alg
def test_the_header_has_iv_and_tag_and_the_peer_finds_the_cek_with_them(
    live: Api, alg: str
) -> None:
    key = bytes(range(KEY_BYTES[alg]))
    kid = live.create(kty="oct", alg=alg, k=b64u(key))["kid"]
    body = {"kid": kid, "alg": alg, "enc": "A128CBC-HS256", "data": "AAAA"}
    first, second = live.ok("/encrypt", body), live.ok("/encrypt", body)
    members = json.loads(unb64u(first["protected"]))
    assert list(members) == ["alg", "enc", "kid", "iv", "tag"]
    iv, tag = unb64u(members["iv"]), unb64u(members["tag"])
    assert (len(iv), len(tag)) == (12, 16)
    assert json.loads(unb64u(second["protected"]))["iv"] != members["iv"]
    cek = AESGCM(key).decrypt(iv, unb64u(first["encrypted_key"]) + tag, b"")
    assert len(cek) == 32
    assert live.ok("/decrypt", first)["data"] == "AAAA"


def test_the_encrypted_key_of_rfc_7520_5_7_opens(live: Api) -> None:
    kid = live.create(kty="oct", alg="A256GCMKW", k=RFC_7520_5_7["k"])["kid"]
    named = {"alg": "A256GCMKW", "iv": RFC_7520_5_7["iv"], "tag": RFC_7520_5_7["tag"]}
    sent = message(kid, unb64u(RFC_7520_5_7["cek"]), RFC_7520_5_7["encrypted_key"], **named)
    assert live.ok("/decrypt", sent)["data"] == b64u("data")
    cek = live.ok("/keys/unwrap", {name: sent[name] for name in ("protected", "encrypted_key")})
    assert (cek["kty"], cek["alg"]) == ("oct", "A256GCM")


GONE = object()
BAD_HEADERS: Mapping[str, tuple[dict[str, Any], str]] = {
    "no iv": ({"iv": GONE}, "Header member 'iv' is required"),
    "no tag": ({"tag": GONE}, "Header member 'tag' is required"),
    "iv of another type": ({"iv": 5}, "Header member 'iv' must be a string"),
    "iv not in base64url": ({"iv": "="}, "Header member 'iv' is not valid base64url"),
    "iv too short": ({"iv": b64u(bytes(11))}, "Header member 'iv' must be 12 bytes long"),
    "iv too long": ({"iv": b64u(bytes(16))}, "Header member 'iv' must be 12 bytes long"),
    "tag too short": ({"tag": b64u(bytes(12))}, "Header member 'tag' must be 16 bytes long"),
    "tag empty": ({"tag": ""}, "Header member 'tag' must be 16 bytes long"),
}


@pytest.mark.parametrize(("change", "text"), BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_header_without_a_whole_iv_and_tag_is_refused(
    local: Api, change: dict[str, Any], text: str
) -> None:
    kid = local.create(kty="oct", alg="A256GCMKW")["kid"]
    good = {"alg": "A256GCMKW", "iv": b64u(bytes(12)), "tag": b64u(bytes(16))}
    named = {name: value for name, value in (good | change).items() if value is not GONE}
    body = message(kid, bytes(32), b64u(bytes(32)), **named)
    for path in ("/decrypt", "/keys/unwrap"):
        answer = local.post(path, body)
        assert (answer.refusal, answer.body["description"]) == (BAD_REQUEST, text)


def test_whatever_is_wrong_with_the_encrypted_key_looks_the_same(local: Api) -> None:
    key, cek = bytes(range(32)), os.urandom(32)
    kid = local.create(kty="oct", alg="A256GCMKW", k=b64u(key))["kid"]
    good, short = wrapped(key, cek), wrapped(key, cek[:16])
    bad = {
        "iv": good | {"iv": b64u(bytes(12))},
        "tag": good | {"tag": b64u(bytes(16))},
        "encrypted_key": good | {"encrypted_key": b64u(bytes(32))},
        "longer": good | {"encrypted_key": b64u(bytes(1000))},
        "of another key": wrapped(bytes(32), cek),
    }
    sent = {name: message(kid, cek, alg="A256GCMKW", **parts) for name, parts in bad.items()}
    answers = [local.post("/decrypt", one) for one in sent.values()]
    answers += [local.post("/decrypt", message(kid, cek, alg="A256GCMKW", **short))]
    whole = message(kid, cek, alg="A256GCMKW", **good)
    answers += [local.post("/decrypt", whole | {"tag": b64u(bytes(16))})]
    assert {answer.refusal for answer in answers} == {DECRYPTION_FAILED}
    assert len({answer.content for answer in answers}) == 1
    for one in sent.values():
        assert local.post("/keys/unwrap", one).refusal == DECRYPTION_FAILED
    other = message(kid, cek, alg="A256GCMKW", **short)
    assert local.post("/keys/unwrap", other).refusal == CRYPTO_FAILURE
    assert local.ok("/decrypt", whole)["data"] == b64u("data")


@pytest.mark.parametrize("name", ["iv", "tag"])
def test_no_caller_writes_iv_or_tag(local: Api, name: str) -> None:
    kid = local.create(kty="oct", alg="A128GCMKW")["kid"]
    body = {"kid": kid, "alg": "A128GCMKW", "enc": "A128GCM", "data": "", "header": {name: "AA"}}
    assert local.post("/encrypt", body).refusal == BAD_REQUEST
