"""One payload, several signers: General JSON Serialization (RFC 7515 §7.2.1)."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import jwcrypto.jwk
import jwcrypto.jws
import pytest
from joserfc import jwk, jws

from app.config import Config
from app.service import service_of
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.bodies import no_arrays_of
from tests.shared.injector import NAMES
from tests.shared.reads import reads_of, unasked

DATA = b64u("data")
KEYS: Mapping[str, dict[str, str]] = {
    "ES256": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    "PS256": {"kty": "RSA", "alg": "PS256"},
    "Ed25519": {"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519"},
}
Body = dict[str, Any]


@pytest.fixture(scope="module")
def pairs(live: Api) -> dict[str, Body]:
    return {alg: live.create(**members) for alg, members in KEYS.items()}


def signers_of(pairs: Mapping[str, Body]) -> list[Body]:
    return [{"kid": pair["kid"], "alg": alg} for alg, pair in pairs.items()]


def general(signers: Any, **members: Any) -> Body:
    return {"data": DATA, "serialization": "general", "signers": signers, **members}


def headers_of(made: Body) -> list[Body]:
    return [json.loads(unb64u(one["protected"])) for one in made["signatures"]]


def public(api: Api, kid: str) -> Body:
    found: Body = api.get(f"/keys/{kid}").body["jwk"]
    return {name: found[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in found}


# --- What is made ---


def test_each_signs_with_a_header_of_its_own(live, pairs):
    made = live.ok("/sign", general(signers_of(pairs)))
    assert list(made) == ["payload", "signatures"]
    assert made["payload"] == DATA
    assert [list(one) for one in made["signatures"]] == [["protected", "signature"]] * len(pairs)
    assert headers_of(made) == [
        {"alg": alg, "kid": pair["kid_public"]} for alg, pair in pairs.items()
    ]


def test_each_signature_is_verified_here(live, pairs):
    made = live.ok("/sign", general(signers_of(pairs)))
    told = [{"kid": pair["kid_public"], "valid": True} for pair in pairs.values()]
    answer = live.ok("/verify", made)
    assert answer == {"kid": told[0]["kid"], "valid": True, "signatures": told}
    for one in made["signatures"]:
        assert live.ok("/verify", {"payload": made["payload"], **one})["valid"] is True
        assert live.ok("/verify", {"payload": b64u("x"), **one})["valid"] is False


@pytest.mark.parametrize("alg", ["ES256", "PS256"])
def test_jwcrypto_verifies_each(live, pairs, alg):
    made = live.ok("/sign", general(signers_of(pairs)))
    message = jwcrypto.jws.JWS()
    message.deserialize(json.dumps(made))
    message.verify(jwcrypto.jwk.JWK(**public(live, pairs[alg]["kid"])))
    assert message.payload == b"data"


def test_joserfc_verifies_all_of_them(live, pairs):
    made = live.ok("/sign", general(signers_of(pairs)))
    keys = jwk.KeySet(
        [
            jwk.import_key(public(live, pair["kid"]) | {"kid": pair["kid_public"]})
            for pair in pairs.values()
        ]
    )
    verified = jws.deserialize_json(made, keys, algorithms=list(KEYS))
    assert verified.payload == b"data"
    assert [member.headers()["alg"] for member in verified.members] == list(KEYS)


def test_one_signer_makes_a_general_jws_too(live, pairs):
    made = live.ok("/sign", general(signers_of(pairs)[:1]))
    assert len(made["signatures"]) == 1
    assert live.ok("/verify", made)["valid"] is True


def test_one_key_may_sign_twice(live, pairs):
    made = live.ok("/sign", general(signers_of(pairs)[:1] * 20))
    assert [one["valid"] for one in live.ok("/verify", made)["signatures"]] == [True] * 20


def test_what_the_caller_adds_is_in_every_header(live, pairs):
    members = {"typ": "JWT", "header": {"jwk": True, "kid": None, "x": 1}}
    made = live.ok("/sign", general(signers_of(pairs), **members))
    for told, (alg, pair) in zip(headers_of(made), pairs.items(), strict=True):
        assert list(told) == ["alg", "typ", "jwk", "x"]
        assert (told["alg"], told["typ"], told["x"]) == (alg, "JWT", 1)
        assert public(live, pair["kid"]).items() <= told["jwk"].items()


def test_a_payload_that_is_not_encoded_is_beside_it(live, pairs):
    unencoded = {"header": {"b64": False, "crit": ["b64"]}}
    made = live.ok("/sign", general(signers_of(pairs), **unencoded))
    assert list(made) == ["signatures"]
    answer = live.ok("/verify", made | {"data": DATA})
    assert [one["valid"] for one in answer["signatures"]] == [True] * len(pairs)


def test_a_signer_may_be_named_by_its_alias(live):
    alias = f"signer-{uuid4()}"
    live.create(**KEYS["ES256"], alias=alias)
    made = live.ok("/sign", general([{"kid": alias, "alg": "ES256"}]))
    assert headers_of(made)[0]["kid"] == alias
    assert live.ok("/verify", made)["valid"] is True


def test_all_keys_are_read_at_once(local, application):
    kids = [local.create(**KEYS["ES256"])["kid"] for _ in range(3)]
    signers = [{"kid": kid, "alg": "ES256"} for kid in kids]
    with reads_of(service_of(application).registry) as reads:
        local.ok("/sign", general(signers))
    assert len(reads) == 1
    requests = [{"op": "sign", "body": general(signers)}] * 2
    with reads_of(service_of(application).registry) as reads:
        answers = local.ok("/batch", {"requests": requests})["responses"]
    assert [(one["status"], len(one["body"]["signatures"])) for one in answers] == [(200, 3)] * 2
    assert len(reads) == 1


# --- What is refused ---

BAD_REQUEST = (400, "bad_request")
UNSUPPORTED = (422, "unsupported_algorithm")
NOT_FOUND = (404, "not_found")
DENIED = (403, "forbidden")
MISFIT = (422, "crypto_failure")
SIGNER: Body = {"kid": "x", "alg": "ES256"}
NO_SIGNERS: Mapping[str, Any] = {"absent": None, **no_arrays_of(SIGNER)}
MALFORMED: Mapping[str, tuple[Body, tuple[int, str], str]] = {
    **{
        f"signers that are {title}": (general(value), BAD_REQUEST, "'signers'")
        for title, value in NO_SIGNERS.items()
    },
    **{
        f"signers beside {name}": (general([SIGNER], **{name: value}), BAD_REQUEST, f"'{name}'")
        for name, value in {"kid": "x", "alg": "ES256", "protected": "e30"}.items()
    },
    **{
        f"signers with serialization {form}": (
            general([SIGNER], serialization=form),
            BAD_REQUEST,
            "'serialization'",
        )
        for form in (None, "flattened", "compact", "x", 5)
    },
    "no kid": (general([{"alg": "ES256"}]), BAD_REQUEST, "'kid'"),
    "a kid that is no text": (general([{"kid": 5, "alg": "ES256"}]), BAD_REQUEST, "'kid'"),
    "no alg": (general([{"kid": "x"}]), BAD_REQUEST, "'alg'"),
    "an alg that is none": (general([SIGNER, {"kid": "x", "alg": "x"}]), UNSUPPORTED, "'alg'"),
    "an alg of MACs": (general([{"kid": "x", "alg": "HS256"}]), UNSUPPORTED, "'alg'"),
    "no data": (general([SIGNER], data=None), BAD_REQUEST, "'data'"),
    "data that is no base64url": (general([SIGNER], data="A="), BAD_REQUEST, "'data'"),
    "an alg in the header": (general([SIGNER], header={"alg": "ES256"}), BAD_REQUEST, "'alg'"),
    "a typ twice": (general([SIGNER], typ="a", header={"typ": "b"}), BAD_REQUEST, "'typ'"),
    "a digest": (general([SIGNER], prehashed=True), BAD_REQUEST, "'prehashed'"),
}


@pytest.mark.parametrize("refused", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_before_anything_is_asked(local, application, chaos, refused):
    body, answer, named = refused
    with unasked(application, chaos):
        found = local.post("/sign", body)
    assert found.refusal == answer
    assert named in found.body["description"]


def test_if_one_is_refused_none_signs(local, chaos):
    good = {"kid": local.create(**KEYS["ES256"])["kid"], "alg": "ES256"}
    pair, inactive = local.create(**KEYS["ES256"]), local.create(**KEYS["ES256"])
    change = {"json": {"state": "deactivated"}}
    assert local.request("PATCH", f"/keys/{inactive['kid']}", **change).status == 200
    secret = local.create(kty="oct", alg="HS256")
    refusals = (
        ({"kid": str(uuid4()), "alg": "ES256"}, NOT_FOUND),
        ({"kid": "nobody", "alg": "ES256"}, NOT_FOUND),
        ({"kid": pair["kid_public"], "alg": "ES256"}, MISFIT),
        ({"kid": pair["kid"], "alg": "PS256"}, MISFIT),
        ({"kid": inactive["kid"], "alg": "ES256"}, MISFIT),
        ({"kid": secret["kid"], "alg": "ES256"}, MISFIT),
    )
    calls = chaos.count_own(*NAMES)
    for bad, answer in refusals:
        for signers in ([good, bad], [bad, good], [good, bad, good]):
            assert local.post("/sign", general(signers)).refusal == answer
            assert sum(calls.values()) == 0
    local.ok("/sign", general([good, good]))
    assert sum(calls.values()) > 0


def test_a_header_that_names_one_key_is_refused_for_two(live, pairs):
    signers = signers_of(pairs)
    named = {"header": {"kid": pairs["ES256"]["kid"]}}
    assert live.post("/sign", general(signers, **named)).refusal == MISFIT
    assert (
        headers_of(live.ok("/sign", general(signers[:1], **named)))[0]["kid"] == signers[0]["kid"]
    )


def test_each_key_takes_the_right(callers):
    mine, theirs = (api.create(**KEYS["ES256"]) for api in (callers.alice, callers.bob))
    both = general([{"kid": key["kid"], "alg": "ES256"} for key in (mine, theirs)])
    assert callers.alice.post("/sign", both).refusal == DENIED
    assert callers.bob.post("/sign", both).refusal == DENIED
    grant = {"json": {"operations": ["sign"]}}
    callers.bob.request("PUT", f"/keys/{theirs['kid']}/grants/token:alice", **grant)
    assert len(callers.alice.ok("/sign", both)["signatures"]) == 2


# --- What the audit log says ---


def lines_of(application: Any, number: int) -> list[dict[str, Any]]:
    """The last lines of the audit log."""
    log = service_of(application).config.audit_path
    assert log
    return [json.loads(line) for line in log.read_text().splitlines()[-number:]]


def test_the_audit_log_names_all_that_have_signed_or_the_one_refused(local, application):
    pairs = [local.create(**KEYS["ES256"]) for _ in range(2)]
    kids = [pair["kid"] for pair in pairs]
    signers = [{"kid": kid, "alg": "ES256"} for kid in kids]
    local.ok("/sign", general(signers))
    local.post("/sign", general([*signers, {"kid": "nobody", "alg": "ES256"}]))
    local.post("/sign", general([signers[0], {"kid": kids[1], "alg": "PS256"}]))
    made, unknown, misfit = lines_of(application, 3)
    assert (made["kid"], made["kids"], made["status"]) == (kids[0], kids, 200)
    assert (unknown["kid"], unknown["status"]) == (None, 404)
    assert (misfit["kid"], misfit["alg"], misfit["status"]) == (kids[1], "PS256", 422)
    assert "kids" not in unknown
    assert "kids" not in misfit


def test_the_audit_log_names_all_that_verify_and_the_algorithm_of_the_first(local, application):
    pairs = {alg: local.create(**KEYS[alg]) for alg in ("ES256", "Ed25519")}
    names, kids = list(pairs), [pair["kid"] for pair in pairs.values()]
    made = local.ok("/sign", general(signers_of(pairs)))
    local.ok("/verify", made)
    local.ok("/verify", made | {"kid": kids[1]})
    signed, verified, by_one = lines_of(application, 3)
    for line in (signed, verified):
        assert (line["kid"], line["kids"], line["alg"]) == (kids[0], kids, names[0])
    assert (by_one["kid"], by_one["alg"]) == (kids[1], names[1])
    assert "kids" not in by_one


def test_of_several_signatures_that_nobody_may_look_at_no_key_is_named(callers, environment):
    log = Config.from_env(environment).audit_path
    assert log
    key = callers.bob.create(**KEYS["ES256"], alias="looked-at-by-nobody")
    made = callers.bob.ok("/sign", general([{"kid": key["kid"], "alg": "ES256"}]))
    before = len(log.read_text().splitlines())
    told = callers.alice.ok("/verify", made)
    assert (told["kid"], told["valid"]) == (None, False)
    [line] = map(json.loads, log.read_text().splitlines()[before:])
    assert (line["principal"], line["kid"], line["alg"]) == ("token:alice", None, None)
    assert "kids" not in line


def test_the_audit_log_has_the_algorithm_that_a_whole_header_says(local, application):
    kid = local.create(**KEYS["ES256"])["kid"]
    for alg in ("ES256", "ES384"):
        local.post("/sign", {"kid": kid, "protected": header(alg=alg), "data": ""})
    lines = lines_of(application, 2)
    assert [(one["kid"], one["alg"], one["status"]) for one in lines] == [
        (kid, "ES256", 200),
        (kid, "ES384", 422),
    ]
