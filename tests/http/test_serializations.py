"""JWS and JWE as people exchange them: in every form, with ``typ`` and ``cty``, without kid."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwcrypto.jwe
import jwcrypto.jwk
import jwcrypto.jws
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwe, jwk, jws

from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.vector_counts import RecordProperty, count
from tests.token.test_agreement import with_x_not_reduced
from tests.token.test_known_answers import RFC_FILE, with_primes

BAD_REQUEST = (400, "bad_request")
MISFIT = (422, "crypto_failure")
DATA = b64u("data")
Body = dict[str, Any]
SIGNERS: Mapping[str, Mapping[str, str]] = {
    "ES256": {"kty": "EC", "crv": "P-256"},
    "PS256": {"kty": "RSA"},
    "EdDSA": {"kty": "OKP"},
}


def head(text: str) -> bytes:
    """Return the header of a compact message."""
    return unb64u(text.partition(".")[0])


@pytest.fixture(scope="module")
def signers(live: Api) -> dict[str, Body]:
    """A key for each signature algorithm that is tried, with its public JWK."""
    made = {alg: live.create(**key, alg=alg) for alg, key in SIGNERS.items()}
    return {alg: key | live.get(f"/keys/{key['kid']}").body for alg, key in made.items()}


@pytest.fixture(scope="module")
def aes(live: Api) -> str:
    return live.create(kty="oct", alg="A256GCM")["kid"]


@pytest.fixture(scope="module")
def oaep(live: Api) -> str:
    return live.shared(kty="RSA", alg="RSA-OAEP")["kid"]


def sign(api: Api, key: Body, alg: str = "ES256", **more: Any) -> Any:
    return api.ok("/sign", {"kid": key["kid"], "alg": alg, "data": DATA, **more})


def seal(kid: str, alg: str = "dir", **more: Any) -> Body:
    return {"kid": kid, "alg": alg, "enc": "A256GCM", "data": DATA, **more}


# --- What is made ---


@pytest.mark.parametrize("alg", SIGNERS)
def test_a_compact_jws_is_its_parts_with_the_payload(live, signers, alg):
    answer = sign(live, signers[alg], alg, serialization="compact")
    assert set(answer) == {"jws"}
    protected, payload, signature = answer["jws"].split(".")
    assert payload == DATA
    detached = {"protected": protected, "data": DATA, "signature": signature}
    assert live.ok("/verify", detached)["valid"] is True
    assert protected == sign(live, signers[alg], alg)["protected"]


def test_a_compact_jwe_is_its_parts(live, aes, oaep):
    for kid, alg in ((aes, "dir"), (oaep, "RSA-OAEP")):
        answer = live.ok("/encrypt", seal(kid, alg, serialization="compact"))
        assert set(answer) == {"jwe"}
        names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
        parts = dict(zip(names, answer["jwe"].split("."), strict=True))
        assert (parts["encrypted_key"] == "") is (alg == "dir")
        assert live.ok("/decrypt", parts) == {"kid": kid, "data": DATA}
        assert live.ok("/decrypt", answer) == {"kid": kid, "data": DATA}


def test_flattened_is_what_was_always_answered(live, signers, aes):
    for choice in (
        {},
        {"serialization": "flattened"},
        {"typ": None, "cty": None, "serialization": None},
    ):
        assert list(sign(live, signers["ES256"], **choice)) == ["protected", "signature"]
        names = ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
        assert list(live.ok("/encrypt", seal(aes, **choice))) == names


@pytest.mark.parametrize("serialization", ["compact", "flattened"])
def test_typ_and_cty_come_after_kid_in_this_order(live, signers, aes, serialization):
    given = {"cty": "a/b", "typ": "JWT", "serialization": serialization}
    made = sign(live, signers["ES256"], **given)
    kid = signers["ES256"]["kid_public"]
    protected = made["jws"] if "jws" in made else made["protected"]
    assert head(protected) == f'{{"alg":"ES256","kid":"{kid}","typ":"JWT","cty":"a/b"}}'.encode()
    made = live.ok("/encrypt", seal(aes, **given))
    protected = made["jwe"] if "jwe" in made else made["protected"]
    members = f'"alg":"dir","enc":"A256GCM","kid":"{aes}","typ":"JWT","cty":"a/b"'
    assert head(protected) == f"{{{members}}}".encode()
    assert live.ok("/decrypt", made)["data"] == DATA


def test_one_of_typ_and_cty_may_be_alone_and_may_be_any_text(live, signers):
    for name in ("typ", "cty"):
        for text in ("", "JWT", 'ä"\\', "x" * 3000):
            jws = sign(live, signers["ES256"], **{name: text})
            assert json.loads(unb64u(jws["protected"]))[name] == text
            assert live.ok("/verify", jws | {"data": DATA})["valid"] is True


# --- What is taken ---


@pytest.mark.parametrize("alg", SIGNERS)
def test_all_three_forms_of_a_jws_are_verified(live, signers, alg):
    jws = sign(live, signers[alg], alg)
    compact = f"{jws['protected']}.{DATA}.{jws['signature']}"
    expected = {"kid": signers[alg]["kid_public"], "valid": True}
    for form in (jws | {"data": DATA}, jws | {"payload": DATA}, {"jws": compact}):
        assert live.ok("/verify", form) == expected
    wrong = b64u("date")
    compact = f"{jws['protected']}.{wrong}.{jws['signature']}"
    for form in (jws | {"data": wrong}, jws | {"payload": wrong}, {"jws": compact}):
        assert live.ok("/verify", form)["valid"] is False


JWS = f"{header(alg='ES256', kid='x')}.{DATA}.AAAA"
JWE = f"{header(alg='dir', enc='A256GCM', kid='x')}..{b64u(bytes(12))}.AAAA.{b64u(bytes(16))}"
PUBLIC: Body = {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}


def _with(message: str, part: int, text: str) -> str:
    parts = message.split(".")
    parts[part] = text
    return ".".join(parts)


FORMS: Mapping[str, tuple[str, Body, str]] = {
    **{
        f"jws and {name}": ("/verify", {"jws": JWS, name: "AAAA"}, f"'{name}'")
        for name in ("protected", "data", "payload", "signature")
    },
    **{
        f"jwe and {name}": ("/decrypt", {"jwe": JWE, name: "AAAA"}, f"'{name}'")
        for name in ("protected", "encrypted_key", "iv", "ciphertext", "tag", "aad")
    },
    "data and payload": (
        "/verify",
        {"protected": JWS.partition(".")[0], "data": "", "payload": "", "signature": ""},
        "'payload'",
    ),
    "kid and jwk": ("/verify", {"jws": JWS, "kid": "x", "jwk": PUBLIC}, "'jwk'"),
    "a kid that is no text": ("/verify", {"jws": JWS, "kid": 5}, "'kid'"),
    "a jwk that is no object": ("/verify", {"jws": JWS, "jwk": "EC"}, "'jwk'"),
    "a jws that is no text": ("/verify", {"jws": [JWS]}, "'jws'"),
    "a jwe that is no text": ("/decrypt", {"jwe": {}}, "'jwe'"),
    **{
        f"a jws of {text[:12]!r}": ("/verify", {"jws": text}, "'jws'")
        for text in ("", ".", "..", "...", "a.b", f"{JWS}.", f"{JWS}.AAAA", f".{JWS}", f"{JWS}=")
    },
    "a jws with a member twice": (
        "/verify",
        {"jws": _with(JWS, 0, b64u('{"alg":"ES256","alg":"ES256","kid":"x"}'))},
        "Field 'jws', part 'protected' is not a JSON object",
    ),
    "a jwe with a short iv": ("/decrypt", {"jwe": _with(JWE, 2, "AAAA")}, "'jwe', part 'iv' must"),
    "a jwe with a short tag": ("/decrypt", {"jwe": _with(JWE, 4, "AAAA")}, "'jwe', part 'tag'"),
    "a jwe with a key that none has": (
        "/decrypt",
        {"jwe": _with(JWE, 1, "AAAA")},
        "'jwe', part 'encrypted_key' must be empty",
    ),
    **{
        f"a jws with {text!r} in part {part}": ("/verify", {"jws": _with(JWS, part, text)}, "'jws'")
        for part in range(3)
        for text in ("A", "A=", "AB", "A+A/", "AA AA", "AAAA\n", "é", "\0")
    },
    **{
        f"a jwe with a bad part {part}": ("/decrypt", {"jwe": _with(JWE, part, "A")}, "'jwe'")
        for part in range(5)
    },
    "a jwe of 4 parts": ("/decrypt", {"jwe": "a.b.c.d"}, "'jwe'"),
    "a jwe of 6 parts": ("/decrypt", {"jwe": f"{JWE}.AAAA"}, "'jwe'"),
    "payload that is no base64url": (
        "/verify",
        {"protected": JWS.partition(".")[0], "payload": "A=", "signature": ""},
        "'payload'",
    ),
    "payload that is no text": (
        "/verify",
        {"protected": JWS.partition(".")[0], "payload": 5, "signature": ""},
        "'payload'",
    ),
    "another serialization": ("/sign", {"serialization": "json"}, "'serialization'"),
    "a serialization that is no text": ("/sign", {"serialization": 5}, "'serialization'"),
    "a serialization in capitals": ("/encrypt", {"serialization": "Compact"}, "'serialization'"),
    "typ that is no text": ("/sign", {"typ": 5}, "'typ'"),
    "cty that is no text": ("/encrypt", {"cty": ["x"]}, "'cty'"),
    "a compact JWE with aad": ("/encrypt", {"serialization": "compact", "aad": ""}, "'aad'"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_wrong_form_is_refused_with_the_member_named(live, signers, aes, form):
    path, body, named = form
    valid = {"/sign": {"kid": signers["ES256"]["kid"], "alg": "ES256", "data": DATA}}
    valid["/encrypt"] = seal(aes)
    answer = live.post(path, valid.get(path, {}) | body)
    assert answer.refusal == BAD_REQUEST
    assert named in answer.body["description"]


def test_null_beside_a_form_is_nothing(live, signers):
    jws = sign(live, signers["ES256"], serialization="compact")
    absent = dict.fromkeys(("protected", "data", "payload", "signature", "kid", "jwk"))
    assert live.ok("/verify", jws | absent)["valid"] is True


# --- The key that is named beside the header, or is there itself ---


@pytest.fixture
def rfc(vectors: Path, record_property: RecordProperty) -> Callable[[str], Body]:
    examples = json.loads((vectors / RFC_FILE).read_text("utf-8"))["jws"]

    def take(name: str) -> Body:
        count(record_property, RFC_FILE, 1)
        (example,) = (each for each in examples if each["name"] == name)
        return example

    return take


@pytest.mark.parametrize("name", ["rfc7515_a2_rs256", "rfc7515_a3_es256", "rfc7515_a4_es512"])
def test_the_examples_of_rfc7515_verify_as_they_stand(live, rfc, name):
    example = rfc(name)
    jws = f"{example['protected']}.{example['payload_b64url']}.{example['signature_b64url']}"
    parts = dict(zip(("protected", "payload", "signature"), jws.split("."), strict=True))
    key = with_primes(example["jwk"]) if example["alg"] == "RS256" else example["jwk"]
    kid = live.create(**key, alg=example["alg"])["kid"]
    public = {name: key[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in key}
    for form in ({"jws": jws}, parts):
        assert live.ok("/verify", form | {"kid": kid}) == {"kid": kid, "valid": True}
        assert live.ok("/verify", form | {"jwk": public}) == {"valid": True}
        assert live.post("/verify", form).refusal == BAD_REQUEST
    other = parts | {"payload": b64u(unb64u(parts["payload"]) + b" ")}
    assert live.ok("/verify", other | {"kid": kid})["valid"] is False
    assert live.ok("/verify", other | {"jwk": public})["valid"] is False
    signature = b64u(unb64u(parts["signature"])[:-1])
    assert live.ok("/verify", parts | {"signature": signature, "jwk": public})["valid"] is False


def test_a_jwe_without_kid_is_decrypted_with_the_key_beside_it(live):
    key = jwcrypto.jwk.JWK.generate(kty="oct", size=256)
    kid = live.create(**key.export(as_dict=True), alg="A256GCM")["kid"]
    message = jwcrypto.jwe.JWE(b"data", {"alg": "dir", "enc": "A256GCM"}, recipient=key)
    compact = {"jwe": message.serialize(compact=True)}
    assert live.post("/decrypt", compact).refusal == BAD_REQUEST
    assert live.ok("/decrypt", compact | {"kid": kid}) == {"kid": kid, "data": DATA}


@pytest.mark.parametrize("alg", SIGNERS)
def test_with_a_jwk_only_that_key_is_used_whatever_the_header_names(live, signers, alg):
    jws = sign(live, signers[alg], alg, serialization="compact")
    jwk = signers[alg]["jwk"]
    assert live.ok("/verify", jws | {"jwk": jwk}) == {"valid": True}
    other = jwcrypto.jwk.JWK.generate(**_like(jwk)).export_public(as_dict=True)
    assert live.ok("/verify", jws | {"jwk": other}) == {"valid": False}


def _like(jwk: Body) -> Body:
    return (
        {"kty": "RSA", "size": 2048}
        if jwk["kty"] == "RSA"
        else {name: jwk[name] for name in ("kty", "crv")}
    )


def test_a_jwk_needs_no_right_and_no_key_of_ours(callers):
    key = callers.alice.create(kty="EC", crv="P-256", alg="ES256")
    jwk = callers.alice.get(f"/keys/{key['kid']}").body["jwk"]
    jws = sign(callers.alice, key, serialization="compact")
    assert callers.bob.post("/verify", jws).status == 403
    assert callers.bob.ok("/verify", jws | {"jwk": jwk}) == {"valid": True}
    assert callers.alice.delete(key["kid"]).status == 204
    assert callers.bob.ok("/verify", jws | {"jwk": jwk}) == {"valid": True}


@pytest.fixture(scope="module")
def weak_moduli() -> Mapping[str, str]:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    n = private.public_key().public_numbers().n
    p = private.private_numbers().p
    close = next(p * q for q in range(p + 2, p + 2000, 2) if (p * q).bit_length() in (2047, 2048))
    octets = {"small factor": 3 * (n // 3 | 1), "close factors": close, "1024 bits": n >> 1024}
    return {
        name: b64u(value.to_bytes(-(-value.bit_length() // 8))) for name, value in octets.items()
    }


def _changed(name: str, value: Any) -> Callable[[Body], Body]:
    return lambda jwk: jwk | {name: value}


BAD_JWKS: Mapping[str, tuple[str, Callable[[Body], Body], str]] = {
    **{
        f"private {name}": ("ES256", _changed(name, "AAAA"), name)
        for name in ("d", "k", "p", "q", "dp", "dq", "qi", "oth", "priv")
    },
    "no kty": ("ES256", _changed("kty", None), "kty"),
    "kty of a secret": ("ES256", _changed("kty", "oct"), "kty"),
    "kty that is no text": ("ES256", _changed("kty", 5), "kty"),
    "no crv": ("ES256", _changed("crv", None), "crv"),
    "unknown crv": ("ES256", _changed("crv", "secp224k1"), "P-521"),
    "x of another point": ("ES256", _changed("x", b64u(b"\1" * 32)), "point"),
    "x too long": ("ES256", _changed("x", b64u(bytes(33))), "x"),
    "x missing": ("ES256", _changed("x", None), "x"),
    "x not base64url": ("ES256", _changed("x", "A="), "x"),
    "point at infinity": ("ES256", lambda jwk: jwk | {"x": "A" * 43, "y": "A" * 43}, "point"),
    "x not reduced": ("ES256", lambda jwk: jwk | with_x_not_reduced(), "point"),
    "key_ops that are no array": ("ES256", _changed("key_ops", "verify"), "key_ops"),
    "key_ops that are no texts": ("ES256", _changed("key_ops", ["verify", {}]), "key_ops"),
    "use that is no text": ("ES256", _changed("use", 5), "use"),
    "OKP X25519": ("EdDSA", _changed("crv", "X25519"), "Ed25519"),
    "OKP x too short": ("EdDSA", _changed("x", "AAAA"), "x"),
    "OKP x off the curve": ("EdDSA", _changed("x", b64u(b"\2" + bytes(31))), "x"),
    "OKP x of order 1": ("EdDSA", _changed("x", b64u(b"\1" + bytes(31))), "x"),
    "OKP x of order 4": ("EdDSA", _changed("x", b64u(bytes(32))), "x"),
    "OKP x not below p": ("EdDSA", _changed("x", b64u(b"\xff" * 31 + b"\x7f")), "x"),
    "e of 3": ("PS256", _changed("e", "Aw"), "e"),
    "e even": ("PS256", _changed("e", b64u(b"\1\0\2")), "e"),
    "n missing": ("PS256", _changed("n", None), "n"),
    "n of 16384 bits": ("PS256", _changed("n", b64u(b"\xff" * 2048)), "n"),
}


@pytest.mark.parametrize(("alg", "change", "named"), BAD_JWKS.values(), ids=BAD_JWKS)
def test_a_bad_jwk_is_refused(live, signers, alg, change, named):
    jws = sign(live, signers[alg], alg, serialization="compact")
    answer = live.post("/verify", jws | {"jwk": change(signers[alg]["jwk"])})
    assert answer.refusal == BAD_REQUEST
    assert "'jwk'" in answer.body["description"]
    assert named in answer.body["description"]


def test_a_weak_modulus_is_refused(live, signers, weak_moduli):
    jws = sign(live, signers["PS256"], "PS256", serialization="compact")
    for n in weak_moduli.values():
        answer = live.post("/verify", jws | {"jwk": signers["PS256"]["jwk"] | {"n": n}})
        assert answer.refusal == BAD_REQUEST
        assert "Field 'n'" in answer.body["description"]


MISFITS: Mapping[str, tuple[str, Body]] = {
    "of another alg": ("PS256", {"alg": "RS256"}),
    "for encryption": ("ES256", {"use": "enc"}),
    "for other operations": ("ES256", {"key_ops": ["sign", "deriveKey"]}),
}


@pytest.mark.parametrize(("alg", "members"), MISFITS.values(), ids=MISFITS)
def test_a_jwk_that_is_not_for_it_is_refused(live, signers, alg, members):
    jws = sign(live, signers[alg], alg, serialization="compact")
    assert live.post("/verify", jws | {"jwk": signers[alg]["jwk"] | members}).refusal == MISFIT


@pytest.mark.parametrize("alg", SIGNERS)
def test_a_jwk_of_another_kind_is_refused(live, signers, alg):
    jws = sign(live, signers[alg], alg, serialization="compact")
    for other in SIGNERS.keys() - {alg}:
        answer = live.post("/verify", jws | {"jwk": signers[other]["jwk"]})
        assert answer.refusal == MISFIT


def test_a_mac_is_not_verified_with_a_jwk(live):
    jwk = {"kty": "oct", "k": b64u(bytes(32))}
    jws = f"{header(alg='HS256')}.{DATA}.AAAA"
    answer = live.post("/verify", {"jws": jws, "jwk": jwk})
    assert answer.refusal == (422, "unsupported_algorithm")


# --- With other libraries ---


@pytest.mark.parametrize("alg", ["ES256", "PS256"])
def test_jwcrypto_and_joserfc_take_a_compact_jws_of_ours_and_we_theirs(live, signers, alg):
    key = signers[alg]
    compact = sign(live, key, alg, serialization="compact", typ="JWT")["jws"]
    theirs = jwcrypto.jws.JWS()
    theirs.allowed_algs = [alg]
    theirs.deserialize(compact, jwcrypto.jwk.JWK(**key["jwk"]))
    assert theirs.payload == b"data"
    imported = jwk.import_key(dict(key["jwk"]))
    assert jws.deserialize_compact(compact, imported, algorithms=[alg]).payload == b"data"

    private = jwk.generate_key(key["jwk"]["kty"], key["jwk"].get("crv", 2048))
    made = jws.serialize_compact({"alg": alg}, b"data", private, algorithms=[alg])
    public = private.as_dict(private=False)
    assert live.ok("/verify", {"jws": made, "jwk": public}) == {"valid": True}
    signed = jwcrypto.jws.JWS(b"data")
    signed.add_signature(
        jwcrypto.jwk.JWK(**private.as_dict(private=True)), protected=f'{{"alg":"{alg}"}}'
    )
    assert live.ok("/verify", json.loads(signed.serialize()) | {"jwk": public}) == {"valid": True}


@pytest.mark.parametrize("alg", ["dir", "RSA-OAEP"])
def test_jwcrypto_and_joserfc_take_a_compact_jwe_of_ours_and_we_theirs(live, alg):
    parameters = {"kty": "oct", "size": 256} if alg == "dir" else {"kty": "RSA", "size": 2048}
    key = jwcrypto.jwk.JWK.generate(**parameters)
    members = key.export(as_dict=True)
    kid = live.create(**members, alg="A256GCM" if alg == "dir" else alg)["kid"]
    compact = live.ok("/encrypt", seal(kid, alg, serialization="compact", cty="text"))["jwe"]
    theirs = jwcrypto.jwe.JWE()
    theirs.deserialize(compact, key)
    assert theirs.payload == b"data"
    imported, algs = jwk.import_key(members), [alg, "A256GCM"]
    assert jwe.decrypt_compact(compact, imported, algorithms=algs).plaintext == b"data"

    protected = {"alg": alg, "enc": "A256GCM", "kid": kid}
    made = [
        jwe.encrypt_compact(protected, b"data", imported, algorithms=algs),
        jwcrypto.jwe.JWE(b"data", protected, recipient=key).serialize(compact=True),
    ]
    for text in made:
        assert live.ok("/decrypt", {"jwe": text}) == {"kid": kid, "data": DATA}
