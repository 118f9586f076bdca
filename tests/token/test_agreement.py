"""ECDH-ES on the wire: its header, what is refused of ``epk``, ``apu``, ``apv``, what is shown."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import load_pem_public_key

import hsm
from app.service import service_of
from hsm.cryptoki.handles import Key
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.bodies import body_of, crvs_of

Jwk = dict[str, Any]
Change = dict[str, Any]

GONE = object()
BAD_REQUEST = (400, "bad_request")
MISFIT = (422, "crypto_failure")
FAILED = (422, "decryption_failed")
P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
P521_PRIME = 2**521 - 1
X25519_PRIME = 2**255 - 19
P256_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
# Of order 1, 2, 4 and 8 on the curve and on its twist, and those that are not reduced (RFC 7748).
SMALL_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    X25519_PRIME - 1,
    X25519_PRIME,
    X25519_PRIME + 1,
)
KEYS = {
    "P-256": ("ECDH-ES+A128KW", "P-256"),
    "P-521": ("ECDH-ES+A256KW", "P-521"),
    "X25519": ("ECDH-ES+A192KW", "X25519"),
    "direct": ("ECDH-ES", "P-256"),
}


@pytest.fixture(scope="module")
def kids(local: Api) -> Iterator[Mapping[str, str]]:
    made = {name: local.create(**body_of(*key))["kid"] for name, key in KEYS.items()}
    yield made
    for kid in made.values():
        assert local.delete(kid).status == 204


@pytest.fixture(scope="module")
def messages(local: Api, kids: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
    """A JWE by the name of its key."""
    return {
        name: local.ok(
            "/encrypt",
            {"kid": kid, "alg": KEYS[name][0], "enc": "A128GCM", "data": b64u("data")},
        )
        for name, kid in kids.items()
    }


def changed(jwe: Mapping[str, str], **members: Any) -> dict[str, str]:
    """Return ``jwe`` with other members in its header."""
    whole = json.loads(unb64u(jwe["protected"])) | members
    left = {name: value for name, value in whole.items() if value is not GONE}
    return {**jwe, "protected": header(**left)}


def epk_of(jwe: Mapping[str, str]) -> Jwk:
    return dict(json.loads(unb64u(jwe["protected"]))["epk"])


def on(curve: ec.EllipticCurve, crv: str) -> Jwk:
    """Return a sound key."""
    point = ec.generate_private_key(curve).public_key().public_numbers()
    size = (curve.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": crv,
        "x": b64u(point.x.to_bytes(size)),
        "y": b64u(point.y.to_bytes(size)),
    }


def with_x_not_reduced() -> Jwk:
    """Return the point of P-256 with x = 0, and p for its x."""
    y = pow(P256_B, (P256_PRIME + 1) // 4, P256_PRIME)
    assert y * y % P256_PRIME == P256_B
    x = b64u(P256_PRIME.to_bytes(32))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": b64u(y.to_bytes(32))}


def flipped(text: str) -> str:
    octets = bytearray(unb64u(text))
    octets[-1] ^= 1
    return b64u(bytes(octets))


EPKS: Mapping[str, Any] = {
    "missing": GONE,
    "null": None,
    "text": "P-256",
    "number": 1,
    "list": [],
    "empty": {},
}
MEMBERS: Mapping[str, Change] = {
    "kty missing": {"kty": GONE},
    "kty of X25519": {"kty": "OKP"},
    "kty RSA": {"kty": "RSA"},
    "kty a list": {"kty": ["EC"]},
    "crv missing": {"crv": GONE},
    "crv unknown": {"crv": "P-224"},
    "crv of Bitcoin": {"crv": "secp256k1"},
    "crv in lower case": {"crv": "p-256"},
    "crv a number": {"crv": 256},
    "crv another, for this point": {"crv": "P-384"},
    "x missing": {"x": GONE},
    "y missing": {"y": GONE},
    "x a number": {"x": 1},
    "y null": {"y": None},
    "x not base64url": {"x": "A==="},
    "y not ASCII": {"y": "é"},
    "x short": {"x": b64u(bytes(31))},
    "x long": {"x": b64u(bytes(33))},
    "y very long": {"y": b64u(bytes(10_000))},
    "off the curve": {"y": flipped},
    "origin": {"x": b64u(bytes(32)), "y": b64u(bytes(32))},
    "infinity": {"x": "", "y": ""},
    "x above the prime": {"x": b64u(b"\xff" * 32)},
    "x not reduced": with_x_not_reduced(),
    "private": {"d": b64u(bytes(32))},
}


OF_X25519: Mapping[str, Change] = {
    "x short": {"x": b64u(bytes(31))},
    "x long": {"x": b64u(b"\1" * 33)},
    "x missing": {"x": GONE},
    "kty EC": {"kty": "EC"},
    "crv Ed25519": {"crv": "Ed25519"},
    "crv X448": {"crv": "X448"},
}


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the token has been asked to derive."""
    asked: list[Any] = []
    original = Key.derive_key

    def derive(self: Key, *arguments: Any, **named: Any) -> Any:
        asked.append(named)
        return original(self, *arguments, **named)

    monkeypatch.setattr(Key, "derive_key", derive)
    return asked


def assert_refused(local: Api, jwe: Mapping[str, str]) -> None:
    for path in ("/decrypt", "/keys/unwrap"):
        answer = local.post(path, jwe)
        assert answer.refusal == BAD_REQUEST
        assert "'epk'" in answer.body["description"]


@pytest.mark.parametrize("epk", EPKS.values(), ids=EPKS)
def test_an_epk_that_is_no_key_is_refused(local: Api, messages: Any, epk: Any) -> None:
    assert_refused(local, changed(messages["P-256"], epk=epk))


@pytest.mark.parametrize("change", MEMBERS.values(), ids=MEMBERS)
def test_an_epk_with_anything_wrong_never_reaches_the_token(
    local: Api, messages: Any, derivations: list[Any], change: Change
) -> None:
    epk = epk_of(messages["P-256"])
    for name, value in change.items():
        epk[name] = value(epk[name]) if callable(value) else value
    epk = {name: value for name, value in epk.items() if value is not GONE}
    assert_refused(local, changed(messages["P-256"], epk=epk))
    assert not derivations


def test_a_coordinate_of_p_521_has_to_be_reduced(local: Api, messages: Any) -> None:
    epk = epk_of(messages["P-521"])
    x = int.from_bytes(unb64u(epk["x"])) + P521_PRIME
    assert_refused(local, changed(messages["P-521"], epk=epk | {"x": b64u(x.to_bytes(66))}))


@pytest.mark.parametrize("u", SMALL_ORDER)
def test_a_point_of_small_order_never_reaches_the_token(
    local: Api, messages: Any, derivations: list[Any], u: int
) -> None:
    epk = {"kty": "OKP", "crv": "X25519", "x": b64u(u.to_bytes(32, "little"))}
    assert_refused(local, changed(messages["X25519"], epk=epk))
    assert not derivations


@pytest.mark.parametrize("u", [X25519_PRIME + 2, X25519_PRIME + 18, 2**255 + 9])
def test_a_point_of_x25519_counts_modulo_p_and_without_its_highest_bit(local: Api, u: int) -> None:
    """RFC 7748 §5: what is not reduced MUST be accepted, and all sides agree on the same key."""
    d, x = os.urandom(32), u.to_bytes(32, "little")
    kid = local.create(kty="OKP", crv="X25519", alg="ECDH-ES", d=b64u(d))["kid"]
    private = x25519.X25519PrivateKey.from_private_bytes(d)
    z = private.exchange(x25519.X25519PublicKey.from_public_bytes(x))
    info = b"\0\0\0\x07A128GCM" + bytes(8) + (128).to_bytes(4)
    epk = {"kty": "OKP", "crv": "X25519", "x": b64u(x)}
    protected = header(alg="ECDH-ES", enc="A128GCM", kid=kid, epk=epk)
    jwe = _sealed(sha256(b"\0\0\0\x01" + z + info).digest()[:16], protected)
    assert local.ok("/decrypt", jwe)["data"] == b64u("data")
    assert local.delete(kid).status == 204


@pytest.mark.parametrize("change", OF_X25519.values(), ids=OF_X25519)
def test_an_epk_that_is_not_one_of_x25519_is_refused(
    local: Api, messages: Any, change: Change
) -> None:
    epk = {n: v for n, v in (epk_of(messages["X25519"]) | change).items() if v is not GONE}
    assert_refused(local, changed(messages["X25519"], epk=epk))


def test_a_sound_epk_on_another_curve_does_not_fit_the_key(
    local: Api, messages: Any, derivations: list[Any]
) -> None:
    okp = epk_of(messages["X25519"])
    for name, epk in (
        ("P-256", on(ec.SECP384R1(), "P-384")),
        ("P-256", okp),
        ("X25519", on(ec.SECP256R1(), "P-256")),
    ):
        for path in ("/decrypt", "/keys/unwrap"):
            jwe = changed(messages[name], epk=epk)
            assert local.post(path, jwe).refusal == MISFIT
    assert not derivations


def test_other_algorithms_ignore_what_is_said_of_an_agreement(local: Api) -> None:
    kid, key = _shared(local)
    cek = os.urandom(16)
    protected = header(alg="A128KW", enc="A128GCM", kid=kid, epk=5, apu=7, apv=None)
    jwe = _sealed(cek, protected) | {"encrypted_key": b64u(aes_key_wrap(key, cek))}
    assert local.ok("/decrypt", jwe)["data"] == b64u("data")


def _sealed(cek: bytes, protected: str) -> dict[str, str]:
    iv = bytes(12)
    output = AESGCM(cek).encrypt(iv, b"data", protected.encode())
    ends = {"iv": b64u(iv), "ciphertext": b64u(output[:-16]), "tag": b64u(output[-16:])}
    return {"protected": protected, **ends}


def _shared(local: Api) -> tuple[str, bytes]:
    key = os.urandom(16)
    return local.create(kty="oct", alg="A128KW", k=b64u(key))["kid"], key


# --- apu and apv ---

LONGEST = b64u(bytes(512))
PARTY_INFO: Mapping[str, Any] = {
    "a number": 5,
    "a list": [],
    "not base64url": "A===",
    "not canonical": "AB",
    "too long": b64u(bytes(513)),
}
both = pytest.mark.parametrize("name", ["apu", "apv"])


@both
@pytest.mark.parametrize("value", PARTY_INFO.values(), ids=PARTY_INFO)
def test_bad_party_info_is_refused(
    local: Api, kids: Any, messages: Any, name: str, value: Any
) -> None:
    request = {"kid": kids["direct"], "alg": "ECDH-ES", "enc": "A128GCM", "data": ""}
    answers = [
        local.post("/encrypt", request | {name: value}),
        local.post("/decrypt", changed(messages["direct"], **{name: value})),
        local.post("/keys/unwrap", changed(messages["P-256"], **{name: value})),
    ]
    assert {answer.refusal for answer in answers} == {BAD_REQUEST}
    assert all(f"'{name}'" in answer.body["description"] for answer in answers)


@both
def test_party_info_of_null_is_absent_in_a_request_and_bad_in_a_header(
    local: Api, kids: Any, messages: Any, name: str
) -> None:
    request = {"kid": kids["direct"], "alg": "ECDH-ES", "enc": "A128GCM", "data": "", name: None}
    assert name not in json.loads(unb64u(local.ok("/encrypt", request)["protected"]))
    jwe = changed(messages["direct"], **{name: None})
    assert local.post("/decrypt", jwe).refusal == BAD_REQUEST


@both
@pytest.mark.parametrize("alg", ["dir", "A128KW", "RSA-OAEP"])
def test_party_info_is_not_for_other_algorithms(local: Api, name: str, alg: str) -> None:
    request = {"kid": "unknown", "alg": alg, "enc": "A128GCM", "data": "", name: "AAAA"}
    answer = local.post("/encrypt", request)
    assert answer.refusal == BAD_REQUEST
    assert f"'{name}'" in answer.body["description"]


@pytest.mark.parametrize(
    ("apu", "apv"), [("", ""), ("", None), (LONGEST, LONGEST), (b64u("Alice"), b64u("Bob"))]
)
def test_party_info_stands_in_the_header_and_changes_the_key(
    local: Api, kids: Any, apu: str | None, apv: str | None
) -> None:
    given = {name: v for name, v in {"apu": apu, "apv": apv}.items() if v is not None}
    request = {"kid": kids["P-256"], "alg": "ECDH-ES+A128KW", "enc": "A128GCM", "data": ""}
    jwe = local.ok("/encrypt", request | given)
    members = json.loads(unb64u(jwe["protected"]))
    assert {name: members[name] for name in members if name in ("apu", "apv")} == given
    assert local.ok("/decrypt", jwe)["data"] == ""
    # The tag covers the header anyway; that the key is another shows in what it unwraps.
    local.ok("/keys/unwrap", jwe)
    other = changed(jwe, apv=b64u("Eve"))
    assert local.post("/keys/unwrap", other).refusal == FAILED


# --- Bytes ---


@pytest.mark.parametrize("crv", crvs_of("ECDH-ES"))
def test_the_header_has_its_members_in_order(local: Api, crv: str) -> None:
    made = local.create(**body_of("ECDH-ES", crv))
    request = {"kid": made["kid_public"], "alg": "ECDH-ES", "enc": "A256GCM", "data": ""}
    first, second = (
        local.ok("/encrypt", request | {"apv": "QQ", "apu": "Qg", "aad": ""}) for _ in range(2)
    )
    assert first["encrypted_key"] == ""
    y = "" if crv == "X25519" else ',"y":"[A-Za-z0-9_-]+"'
    assert re.fullmatch(
        rf'{{"alg":"ECDH-ES","enc":"A256GCM","kid":"{made["kid"]}",'
        rf'"epk":{{"kty":"{made["kty"]}","crv":"{crv}","x":"[A-Za-z0-9_-]+"{y}}},'
        r'"apu":"Qg","apv":"QQ"}',
        unb64u(first["protected"]).decode(),
    )
    assert epk_of(first) != epk_of(second)


# --- Failures ---


def test_every_failure_of_wrapped_and_agreed_keys_looks_like_a_bad_tag(
    local: Api, messages: Any
) -> None:
    kid, key = _shared(local)
    request = {"kid": kid, "alg": "A128KW", "enc": "A128GCM", "data": b64u("data")}
    wrapped = local.ok("/encrypt", request)
    agreed, direct = messages["P-256"], messages["direct"]
    bad_tag, other = {"tag": b64u(bytes(16))}, on(ec.SECP256R1(), "P-256")

    def keys(jwe: Mapping[str, str]) -> list[dict[str, str]]:
        octets = unb64u(jwe["encrypted_key"])
        ends = (octets[:-1] + bytes([octets[-1] ^ 1]), octets[:-8], octets[:-1], octets + bytes(8))
        odd = (b"\0", bytes(16), bytes(24), os.urandom(24), bytes(4096))
        return [{**jwe, "encrypted_key": b64u(value)} for value in (*ends, *odd)]

    sizes = [{**wrapped, "encrypted_key": b64u(aes_key_wrap(key, bytes(n)))} for n in (24, 32, 40)]
    failing = [
        *([jwe | bad_tag for jwe in (wrapped, agreed, direct)]),
        *(keys(wrapped) + keys(agreed) + sizes),
        *(changed(jwe, epk=other) for jwe in (agreed, direct)),
        *(changed(jwe, apu="AA") for jwe in (agreed, direct)),
    ]
    answers = [local.post("/decrypt", jwe) for jwe in failing]
    assert {(answer.status, answer.content) for answer in answers} == {
        (422, b'{"error":"decryption_failed","description":"Decryption failed"}\n')
    }
    unwrapped = [local.post("/keys/unwrap", jwe) for jwe in keys(wrapped) + keys(agreed)]
    assert {answer.refusal for answer in unwrapped} == {FAILED}
    # Whoever knows the shared key has put in a CEK of that size himself.
    assert {local.post("/keys/unwrap", jwe).refusal for jwe in sizes} == {MISFIT}


# --- Public halves ---


@pytest.mark.parametrize("crv", crvs_of("ECDH-ES"))
def test_public_halves_are_shown_to_be_encrypted_to(local: Api, application: Any, crv: str) -> None:
    made = local.create(**body_of("ECDH-ES+A256KW", crv))
    described = local.get(f"/keys/{made['kid']}").body
    assert described["size"] == {"P-384": 384, "P-521": 521}.get(crv, 256)
    jwk = described["jwk"]
    assert {name: jwk[name] for name in ("alg", "crv", "use", "kid")} == {
        "alg": "ECDH-ES+A256KW",
        "crv": crv,
        "use": "enc",
        "kid": made["kid_public"],
    }
    assert jwk not in local.get("/.well-known/jwks.json").body["keys"]  # unless it is asked for
    local.ok(f"/keys/{made['kid']}/tags", {"tags": ["jwks"]})
    assert jwk in local.get("/.well-known/jwks.json").body["keys"]
    public = load_pem_public_key(local.get(f"/keys/{made['kid']}/public.pem").content)
    assert isinstance(public, x25519.X25519PublicKey | ec.EllipticCurvePublicKey)
    x = (
        public.public_bytes_raw()
        if isinstance(public, x25519.X25519PublicKey)
        else public.public_numbers().x.to_bytes(len(unb64u(jwk["x"])))
    )
    assert b64u(x) == jwk["x"]
    assert made["key_ops"] == ["encrypt", "decrypt"]
    assert service_of(application).hsm.offers()["ECDH-ES+A256KW"].residency == "process"
    assert local.delete(made["kid"]).status == 204


def test_a_key_unwrapped_after_an_agreement_has_passed_through_the_process(
    local: Api, messages: Any
) -> None:
    kid = local.ok("/keys/unwrap", messages["P-256"])["kid"]
    described = local.get(f"/keys/{kid}").body
    assert (described["origin"], described["residency"]) == ("unwrapped", "process")
    direct = {"kid": kid, "alg": "dir", "enc": "A128GCM", "data": b64u("more")}
    assert local.ok("/decrypt", local.ok("/encrypt", direct))["data"] == b64u("more")
    assert set(hsm.KEY_AGREEMENTS) == {"ECDH-ES", *(f"ECDH-ES+{kw}" for kw in hsm.KEY_WRAPPINGS)}
