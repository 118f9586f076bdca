"""Headers that callers write: in which order they come, what is filled in, who verifies them."""

import hashlib
import json
from typing import Any

import jwcrypto.jwk
import jwcrypto.jws
import jwt
import pytest
from joserfc import jwk, jws
from joserfc.jws import JWSRegistry

from tests.shared.api import Api, b64u, unb64u
from tests.shared.chains import chain_for, der, public_key, x5c

PAIRS: dict[str, dict[str, str]] = {
    "ES256": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    "PS256": {"kty": "RSA", "alg": "PS256"},
    "EdDSA": {"kty": "OKP", "alg": "EdDSA"},
}
CLAIMS = b'{"htm":"POST","iat":1}'
UNENCODED = {"b64": False, "crit": ["b64"]}

# The alg "EdDSA" has a successor, "Ed25519" (RFC 9864); joserfc says so at each use.
pytestmark = pytest.mark.filterwarnings(
    "ignore:EdDSA is deprecated via RFC 9864:joserfc.errors.SecurityWarning"
)


@pytest.fixture(scope="module")
def pairs(live: Api) -> dict[str, Any]:
    return {alg: live.create(**members) for alg, members in PAIRS.items()}


@pytest.fixture(scope="module")
def public(live: Api, pairs: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The public members of each pair alone."""
    whole = {alg: live.get(f"/keys/{pair['kid']}").body["jwk"] for alg, pair in pairs.items()}
    names = ("kty", "crv", "x", "y", "n", "e")
    return {alg: {name: one[name] for name in names if name in one} for alg, one in whole.items()}


def sign(api: Api, key: Any, alg: str, data: bytes = CLAIMS, **members: Any) -> Any:
    return api.ok("/sign", {"kid": key["kid"], "alg": alg, "data": b64u(data), **members})


def text_of(protected: str) -> str:
    return unb64u(protected).decode()


def test_members_come_after_alg_and_kid_in_the_order_in_which_they_are_given(live, pairs) -> None:
    key = pairs["ES256"]
    given = {"zz": [1, {"b": None, "a": "ä"}], "typ": "x", "aa": 1.5}
    protected = sign(live, key, "ES256", header=given)["protected"]
    ours = f'"alg":"ES256","kid":"{key["kid_public"]}"'
    rest = r'"zz":[1,{"b":null,"a":"\u00e4"}],"typ":"x","aa":1.5'
    assert text_of(protected) == f"{{{ours},{rest}}}"


def test_typ_and_cty_of_the_request_come_before_the_members(live, pairs) -> None:
    protected = sign(live, pairs["ES256"], "ES256", header={"x": 1, "cty": "b"}, typ="a")
    assert list(json.loads(text_of(protected["protected"]))) == ["alg", "kid", "typ", "x", "cty"]


@pytest.mark.parametrize("nothing", [{}, {"header": None}, {"header": {}}, {"protected": None}])
def test_without_members_the_header_is_that_of_always(live, pairs, nothing) -> None:
    key = pairs["EdDSA"]
    protected = sign(live, key, "EdDSA", **nothing)["protected"]
    assert text_of(protected) == f'{{"alg":"EdDSA","kid":"{key["kid_public"]}"}}'


@pytest.mark.parametrize("half", ["kid", "kid_public"])
def test_the_key_may_be_called_by_either_name(live, pairs, half) -> None:
    key = pairs["ES256"]
    protected = sign(live, key, "ES256", header={"x": 1, "kid": key[half]})["protected"]
    assert text_of(protected) == f'{{"alg":"ES256","kid":"{key[half]}","x":1}}'


@pytest.mark.parametrize("alg", PAIRS)
def test_a_proof_of_possession_holds_the_public_half_and_no_kid(live, pairs, public, alg) -> None:
    header = {"typ": "dpop+jwt", "jwk": True, "kid": None}
    compact = sign(live, pairs[alg], alg, header=header, serialization="compact")["jws"]
    protected = jwt.get_unverified_header(compact)
    assert list(protected) == ["alg", "typ", "jwk"]
    assert protected["jwk"] == public[alg]
    key = jwt.PyJWK({**protected["jwk"], "alg": alg})
    assert (
        jwt.decode(compact, key, algorithms=[alg], options={"verify_iat": False})["htm"] == "POST"
    )


def test_a_jwk_and_a_certificate_of_the_key_itself_may_be_given(live, pairs, public) -> None:
    key = pairs["PS256"]
    chain = chain_for(public_key(live, key["kid"]))
    thumbprints = {
        "x5t": b64u(hashlib.sha1(der(chain[0])).digest()),
        "x5t#S256": b64u(hashlib.sha256(der(chain[0])).digest()),
    }
    given: dict[str, Any] = {
        "jwk": {**public["PS256"], "use": "sig"},
        "x5c": x5c(chain),
        **thumbprints,
    }
    jws = sign(live, key, "PS256", header={**given, "jwk": {**given["jwk"], "x5c": x5c(chain)}})
    protected = json.loads(text_of(jws["protected"]))
    assert protected["x5c"] == x5c(chain)
    assert protected["x5t#S256"] == thumbprints["x5t#S256"]
    assert live.ok("/verify", jws | {"data": b64u(CLAIMS)})["valid"]


@pytest.mark.parametrize("alg", PAIRS)
def test_a_whole_header_is_signed_as_it_is(live, pairs, public, alg) -> None:
    text = f'{{ "typ":"ä", "\\u0061lg" : "{alg}",\r\n "kid":"{pairs[alg]["kid"]}" }}'
    body = {"kid": pairs[alg]["kid"], "data": b64u(CLAIMS), "protected": b64u(text)}
    made = live.ok("/sign", body)
    assert made["protected"] == b64u(text)
    assert list(made) == ["protected", "signature"]
    assert live.ok("/sign", body | {"alg": alg, "serialization": "compact"})["jws"].startswith(
        f"{b64u(text)}.{b64u(CLAIMS)}."
    )
    token = f"{made['protected']}.{b64u(CLAIMS)}.{made['signature']}"
    key = jwk.import_key({**public[alg]})
    assert jws.deserialize_compact(token, key, algorithms=[alg]).payload == CLAIMS
    assert live.ok("/verify", made | {"data": b64u(CLAIMS)})["valid"]


def test_a_header_may_be_as_long_as_8_kib(live, pairs) -> None:
    head = '{"alg":"ES256","x":"'
    text = head + "x" * (8192 - len(head) - 2) + '"}'
    assert len(text) == 8192
    assert sign(live, pairs["ES256"], "ES256", protected=b64u(text))["protected"] == b64u(text)
    members = {"x": "x" * (8192 - len('{"x":""}'))}
    assert sign(live, pairs["ES256"], "ES256", header=members)["signature"]


# --- RFC 7797 ---


def verified_by_peer(token: str, payload: bytes, key: dict[str, str]) -> bool:
    """Tell whether jwcrypto takes a detached JWS for one over the bytes of ``payload``."""
    message = jwcrypto.jws.JWS()
    message.deserialize(token)
    message.verify(jwcrypto.jwk.JWK(**key), detached_payload=payload)
    return message.is_valid


@pytest.mark.parametrize("alg", PAIRS)
@pytest.mark.parametrize("payload", [b"$.02", b"", b"\x00\xff.", b"a.b.c"])
def test_data_is_signed_as_it_is_and_its_compact_form_is_detached(
    live, pairs, public, alg, payload
) -> None:
    made = sign(live, pairs[alg], alg, payload, header=UNENCODED)
    compact = sign(live, pairs[alg], alg, payload, header=UNENCODED, serialization="compact")["jws"]
    protected, middle, _signature = compact.split(".")
    assert (protected, middle) == (made["protected"], "")
    data = b64u(payload)
    assert live.ok("/verify", made | {"data": data})["valid"]
    assert live.ok("/verify", {"jws": compact, "data": data})["valid"]
    assert not live.ok("/verify", {"jws": compact, "data": b64u(b"other")})["valid"]
    key = dict(public[alg])
    assert live.ok("/verify", {"jws": compact, "data": data, "jwk": key}) == {"valid": True}
    signing_input = f"{protected}.".encode() + payload
    algorithm = JWSRegistry(algorithms=[alg]).get_alg(alg)
    assert algorithm.verify(signing_input, unb64u(made["signature"]), jwk.import_key(key))


@pytest.mark.parametrize("alg", PAIRS)
def test_another_library_verifies_data_that_is_not_encoded(live, pairs, public, alg) -> None:
    text = f'{{"alg":"{alg}","b64":false,"crit":["b64"]}}'
    compact = sign(live, pairs[alg], alg, b"$.02", protected=b64u(text), serialization="compact")
    assert verified_by_peer(compact["jws"], b"$.02", public[alg])


def test_a_flattened_payload_is_the_text_itself(live, pairs) -> None:
    made = sign(live, pairs["ES256"], "ES256", "$.02 €".encode(), header=UNENCODED)
    assert live.ok("/verify", made | {"payload": "$.02 €"})["valid"]
    assert not live.ok("/verify", made | {"payload": b64u("$.02 €")})["valid"]
    encoded = sign(live, pairs["ES256"], "ES256")
    assert live.post("/verify", encoded | {"payload": "$.02"}).body == {
        "error": "bad_request",
        "description": "Field 'payload' is not valid base64url",
    }


def test_what_another_library_has_signed_unencoded_is_verified(live) -> None:
    key = jwcrypto.jwk.JWK.generate(kty="EC", crv="P-256")
    message = jwcrypto.jws.JWS(b"$.02")
    header = {"alg": "ES256", "b64": False, "crit": ["b64"]}
    message.add_signature(key, protected=json.dumps(header))
    message.detach_payload()
    public = key.export_public(as_dict=True)
    asked = {"jws": message.serialize(compact=True), "jwk": public}
    assert live.ok("/verify", asked | {"data": b64u("$.02")}) == {"valid": True}
    assert live.ok("/verify", asked | {"data": b64u("$.03")}) == {"valid": False}


def test_b64_true_with_crit_is_as_without(live, pairs) -> None:
    header = {"b64": True, "crit": ["b64"]}
    compact = sign(live, pairs["ES256"], "ES256", header=header, serialization="compact")["jws"]
    assert compact.split(".")[1] == b64u(CLAIMS)
    assert live.ok("/verify", {"jws": compact})["valid"]


def test_an_encoded_jws_may_come_without_its_payload_too(live, pairs) -> None:
    jws = sign(live, pairs["ES256"], "ES256", serialization="compact")["jws"]
    protected, _, signature = jws.split(".")
    body = {"jws": f"{protected}..{signature}", "data": b64u(CLAIMS)}
    assert live.ok("/verify", body)["valid"]
    assert not live.ok("/verify", body | {"data": b64u("other")})["valid"]


def test_a_batch_takes_both_kinds_of_header(live, pairs) -> None:
    key = {"kid": pairs["ES256"]["kid"], "data": b64u(CLAIMS)}
    bodies = [
        {**key, "alg": "ES256", "header": {"jwk": True, "kid": None}},
        {**key, "protected": b64u('{"alg":"ES256"}')},
        {**key, "alg": "ES256", "header": UNENCODED},
        {**key, "alg": "ES256", "header": {"alg": "ES256"}},
        {**key, "protected": "e30"},
        {**key, "alg": "ES256"},
    ]
    requests = [{"op": "sign", "body": body} for body in bodies]
    answers = live.ok("/batch", {"requests": requests})["responses"]
    assert [one["status"] for one in answers] == [200, 200, 200, 400, 400, 200]
    for one in answers[:3]:
        message = one["body"] | {"data": key["data"], "kid": key["kid"]}
        assert live.ok("/verify", message)["valid"]


@pytest.mark.parametrize("levels", [190, 960, 965, 970, 975])
def test_a_deep_header_is_taken_wherever_it_is_written_or_nowhere(live, pairs, levels) -> None:
    """The token makes an IV, and only then the header is written: deep within other calls."""
    aes = {"kid": live.shared(kty="oct", alg="A128KW")["kid"], "alg": "A128KW"}
    added = {"data": b64u(CLAIMS), "header": {"x": "deep"}}
    bodies = [
        ("sign", {"kid": pairs["ES256"]["kid"], "alg": "ES256", **added}),
        ("encrypt", {**aes, "enc": "A128GCM", **added}),
        ("encrypt", {"recipients": [aes], "serialization": "general", "enc": "A128GCM", **added}),
    ]
    requests = [{"op": op, "body": body} for op, body in bodies]

    def answer(path: str, body: Any) -> Any:
        text = json.dumps(body).replace('"deep"', "[" * levels + "]" * levels)
        return live.request("POST", path, data=text, headers={"Content-Type": "application/json"})

    alone = {answer(f"/{op}", body).status for op, body in bodies}
    batch = answer("/batch", {"requests": requests})
    parts = {one["status"] for one in batch.body["responses"]} if batch.status == 200 else set()
    assert (alone, batch.status, parts) == (
        ({200}, 200, {200}) if levels == 190 else ({400}, 400, set())
    )
