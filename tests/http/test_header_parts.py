"""Headers whose members are in several parts: flattened messages as others make them."""

import json
from collections.abc import Mapping
from typing import Any

import jwcrypto.jwe
import jwcrypto.jwk
import jwcrypto.jws
import pytest
from joserfc import jwe, jwk, jws

from tests.shared.api import Api, b64u, header

BAD_REQUEST = (400, "bad_request")
DATA = b64u("data")
Body = dict[str, Any]


# --- What goes where ---


@pytest.fixture(scope="module")
def signer(live: Api) -> Body:
    return live.create(kty="EC", crv="P-256", alg="ES256")


@pytest.fixture(scope="module")
def reader(live: Api) -> Body:
    key = live.create(kty="EC", crv="P-256", alg="ECDH-ES+A128KW")
    return key | {"jwk": live.get(f"/keys/{key['kid']}").body["jwk"]}


def sealed_for(reader: Body, protected: Body | None, shared: Body | None, own: Body | None) -> Body:
    """A flattened JWE of jwcrypto, whose ``epk`` is in the header of the recipient."""
    message = jwcrypto.jwe.JWE(
        b"data",
        json.dumps(protected) if protected else None,
        unprotected=json.dumps(shared) if shared else None,
    )
    key = jwcrypto.jwk.JWK(**reader["jwk"])
    message.add_recipient(key, json.dumps(own) if own else None)
    return dict(json.loads(message.serialize()))


ALG, ENC = {"alg": "ECDH-ES+A128KW"}, {"enc": "A128GCM"}
PLACES: Mapping[str, tuple[Body | None, Body | None, Body | None]] = {
    "all protected": ({**ALG, **ENC}, None, None),
    "alg unprotected": (ENC, ALG, None),
    "alg of the recipient": (ENC, None, ALG),
    "nothing protected": (None, {**ALG, **ENC}, None),
    "in all parts": (ENC, {"cty": "text"}, ALG),
    "apu and apv unprotected": (ENC, {"apu": b64u("A"), "apv": b64u("B")}, ALG),
}


@pytest.mark.parametrize("named", ["unprotected", "header", "beside"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_members_may_be_in_any_part_of_a_jwe(live, reader, place, named):
    protected, shared, own = place
    kid = {"kid": reader["kid"]}
    if named == "unprotected":
        shared = {**(shared or {}), **kid}
    elif named == "header":
        own = {**(own or {}), **kid}
    message = sealed_for(reader, protected, shared, own)
    assert "epk" in message["header"]
    message |= kid if named == "beside" else {}
    assert live.ok("/decrypt", message) == {"kid": reader["kid"], "data": DATA}
    assert live.ok("/keys/unwrap", message)["alg"] == "A128GCM"


def test_a_compact_jwe_is_unwrapped(live, reader):
    message = jwcrypto.jwe.JWE(b"data", json.dumps({**ALG, **ENC}))
    message.add_recipient(jwcrypto.jwk.JWK(**reader["jwk"]))
    compact = message.serialize(compact=True)
    body = {"jwe": compact, "kid": reader["kid"]}
    kid = live.ok("/keys/unwrap", body)["kid"]
    protected, _, iv, ciphertext, tag = compact.split(".")
    ours = {"protected": header(alg="dir", enc="A128GCM", kid=kid)}
    same = {"iv": iv, "ciphertext": ciphertext, "tag": tag}  # under another header
    assert live.post("/decrypt", ours | same).refusal == (422, "decryption_failed")
    assert live.post("/keys/unwrap", {"jwe": protected}).refusal == BAD_REQUEST
    assert live.post("/keys/unwrap", body | {"header": {}}).refusal == BAD_REQUEST


@pytest.mark.parametrize("part", ["protected", "header"])
def test_members_may_be_in_either_part_of_a_jws(live, part):
    key = jwcrypto.jwk.JWK.generate(kty="EC", crv="P-256")
    kid = live.create(**key.export(as_dict=True), alg="ES256")["kid"]
    names = json.dumps({"alg": "ES256", "kid": kid})
    message = jwcrypto.jws.JWS(b"data")
    message.add_signature(key, None, **{part: names})
    flattened = json.loads(message.serialize())
    assert live.ok("/verify", flattened) == {"kid": kid, "valid": True}
    made = jws.serialize_json(
        {"protected": {"alg": "ES256"}, "header": {"kid": kid, "cty": "text"}},
        b"data",
        jwk.import_key(key.export(as_dict=True)),
    )
    assert live.ok("/verify", made) == {"kid": kid, "valid": True}


def test_joserfc_and_its_unprotected_members_are_read(live, reader):
    message = jwe.FlattenedJSONEncryption(ENC, b"data", {"cty": "text"}, b"more")
    message.add_recipient({**ALG, "kid": reader["kid"]})
    key = jwk.import_key({name: reader["jwk"][name] for name in ("kty", "crv", "x", "y")})
    made = jwe.encrypt_json(message, key, algorithms=["ECDH-ES+A128KW", "A128GCM"])
    assert live.ok("/decrypt", dict(made)) == {"kid": reader["kid"], "data": DATA}


# --- A MAC is a JWS, too ---


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_jws_with_a_mac_is_verified(live, alg):
    key = jwk.generate_key("oct", 512)
    kid = live.create(**key.as_dict(private=True), alg=alg)["kid"]
    compact = jws.serialize_compact({"alg": alg, "kid": kid}, b"data", key, algorithms=[alg])
    assert live.ok("/verify", {"jws": compact}) == {"kid": kid, "valid": True}
    protected, _, signature = compact.split(".")
    for changed in (f"{protected}.{b64u('date')}.{signature}", f"{protected}.{DATA}.AAAA"):
        assert live.ok("/verify", {"jws": changed}) == {"kid": kid, "valid": False}
    for other in {"HS256", "HS384", "HS512"} - {alg}:
        body = {"jws": f"{header(alg=other, kid=kid)}.{DATA}.{signature}"}
        assert live.post("/verify", body).refusal == (422, "crypto_failure")


def test_that_takes_the_right_to_mac(callers):
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    protected = header(alg="HS256", kid=kid)
    data = {"kid": kid, "alg": "HS256", "data": b64u(f"{protected}.{DATA}")}
    mac = callers.alice.ok("/mac", data)["mac"]
    body = {"protected": protected, "data": DATA, "signature": mac}
    for right, status in (("verify", 403), ("mac", 200)):
        path = f"/keys/{kid}/grants/token:bob"
        callers.alice.request("PUT", path, json={"operations": [right]})
        assert callers.bob.post("/verify", body).status == status


# --- What is refused ---

JWS: Body = {"payload": DATA, "signature": "AAAA"}
JWE: Body = {"iv": b64u(bytes(12)), "ciphertext": "AAAA", "tag": b64u(bytes(16))}
ES: Body = {"alg": "ES256"}
DIR: Body = {"alg": "dir", "enc": "A128GCM"}


def _part(name: str, member: str) -> Any:
    return header(**{member: "x"}) if name == "protected" else {member: "x"}


EXTENSIONS_OF_JWE: Mapping[str, Body] = {
    "'crit'": {"crit": ["b64"]},
    "'zip'": {"zip": "DEF"},
    "'b64'": {"b64": True},
}
EXTENSIONS_OF_JWS: Mapping[str, Body] = {
    "'crit'": {"crit": ["b64"], "b64": False},
    "'zip'": {"zip": "DEF"},
    "'b64'": {"b64": False},
}
REFUSALS: Mapping[str, tuple[str, Body, str]] = {
    "a header that is no object": ("/verify", {"header": "x"} | JWS, "'header'"),
    "a header that is an array": ("/verify", {"header": [ES]} | JWS, "'header'"),
    "unprotected that is no object": ("/decrypt", {"unprotected": 5} | JWE, "'unprotected'"),
    "a protected part that is empty text": (
        "/verify",
        {"protected": "", "header": ES | {"kid": "x"}} | JWS,
        "'protected'",
    ),
    "a protected part that is no text": (
        "/verify",
        {"protected": 5, "header": ES | {"kid": "x"}} | JWS,
        "'protected'",
    ),
    "a protected part that is no object": (
        "/verify",
        {"protected": b64u("[]"), "header": ES | {"kid": "x"}} | JWS,
        "'protected'",
    ),
    "no alg in any part": ("/verify", {"header": {"kid": "x"}} | JWS, "'alg'"),
    "no kid in any part": ("/verify", {"header": ES} | JWS, "'kid'"),
    "a kid that is no text": ("/verify", {"header": ES | {"kid": 5}} | JWS, "'kid'"),
    "an alg that is no text": ("/verify", {"header": {"alg": 5, "kid": "x"}} | JWS, "'alg'"),
    "no enc in any part": ("/decrypt", {"header": {"alg": "dir", "kid": "x"}} | JWE, "'enc'"),
    **{
        f"{name} in two parts of a JWS": (
            "/verify",
            {"protected": header(**ES, kid="x", typ="JWT"), "header": {name: value}} | JWS,
            f"'{name}'",
        )
        for name, value in {"alg": "ES256", "kid": "x", "typ": "JWT"}.items()
    },
    **{
        f"{name} in {first} and {second}": (
            "/decrypt",
            {first: _part(first, name), second: _part(second, name)} | JWE,
            f"'{name}'",
        )
        for name in ("alg", "kid", "enc", "cty", "epk")
        for first, second in (
            ("protected", "unprotected"),
            ("protected", "header"),
            ("unprotected", "header"),
        )
    },
    **{
        f"{name} in {part} of a JWE": ("/decrypt", {part: DIR | {"kid": "x"} | member} | JWE, name)
        for part in ("header", "unprotected")
        for name, member in EXTENSIONS_OF_JWE.items()
    },
    **{
        f"{name} unprotected in a JWS": (
            "/verify",
            {"header": ES | {"kid": "x"} | member} | JWS,
            name,
        )
        for name, member in EXTENSIONS_OF_JWS.items()
    },
    "crit protected, and what it names not": (
        "/verify",
        {"protected": header(**ES, crit=["b64"]), "header": {"b64": False, "kid": "x"}} | JWS,
        "'b64'",
    ),
    "a jws and a header": (
        "/verify",
        {"jws": f"{header(**ES)}.AAAA.AAAA", "header": {}},
        "'header'",
    ),
    **{
        f"a jwe and {name}": ("/decrypt", {"jwe": "a.b.c.d.e", name: {}}, f"'{name}'")
        for name in ("header", "unprotected")
    },
}


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
def test_parts_that_do_not_go_together_are_refused(live, refused):
    path, body, named = refused
    answer = live.post(path, body)
    assert answer.refusal == BAD_REQUEST
    assert named in answer.body["description"]
