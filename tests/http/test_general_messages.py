"""Messages for several keys: General JSON Serialization (RFC 7515 §7.2.1, RFC 7516 §7.2.1)."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import jwcrypto.jwe
import jwcrypto.jwk
import jwcrypto.jws
import pytest
from joserfc import jwe, jwk, jws

from app.service import service_of
from tests.http.test_rfc_messages import of
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.bodies import no_arrays_of
from tests.shared.reads import reads_of, unasked

BAD_REQUEST = (400, "bad_request")
DENIED = (403, "forbidden")
NOT_FOUND = (404, "not_found")
MISFIT = (422, "crypto_failure")
DATA = b64u("data")
EC = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
AGREEING = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A128KW"}
Body = dict[str, Any]


def test_the_examples_open_by_the_names_that_they_have(rsa1_5):
    """Those that can be aliases: RFC 7516 A.4 has the kids 2011-04-29 and 7."""
    [example] = [one.values[0] for one in of("encrypted") if one.id == "RFC 7516 A.4"]
    message, (rsa, aes) = example["message"], example["keys"]
    assert rsa1_5.post("/decrypt", message).refusal == NOT_FOUND
    for key, name in ((aes, "7"), (rsa, "2011-04-29")):  # the first of ours counts
        kid = rsa1_5.create(**key["jwk"], alg=key["alg"], alias=True)["kid"]
        assert rsa1_5.ok("/decrypt", message) == {"kid": name, "data": example["plaintext"]}
        assert rsa1_5.ok("/decrypt", message | {"kid": kid})["kid"] == kid
    for name in ("7", "2011-04-29"):
        assert rsa1_5.delete(name).status == 204


# --- Whose they are ---


def signed_by(*signers: tuple[jwcrypto.jwk.JWK, Body, Body]) -> Body:
    """A JWS of jwcrypto, with these protected and other members for each signer."""
    message = jwcrypto.jws.JWS(b"data")
    for key, protected, other in signers:
        message.add_signature(key, None, json.dumps(protected), json.dumps(other))
    made = json.loads(message.serialize())
    if "signatures" not in made:
        one = {name: made.pop(name) for name in ("protected", "header", "signature")}
        made["signatures"] = [one]
    return dict(made)


def new_signer(api: Api) -> tuple[jwcrypto.jwk.JWK, str]:
    key = jwcrypto.jwk.JWK.generate(kty="EC", crv="P-256")
    return key, api.create(**key.export(as_dict=True), alg="ES256")["kid"]


ES = {"alg": "ES256"}


def test_of_several_signatures_those_of_our_keys_are_verified(live):
    (one, first), (two, second) = new_signer(live), new_signer(live)
    stranger = jwcrypto.jwk.JWK.generate(kty="EC", crv="P-256")
    message = signed_by(
        (stranger, ES, {"kid": "stranger"}), (one, ES, {"kid": first}), (two, ES, {"kid": second})
    )
    told: list[Body] = [
        {"kid": "stranger", "valid": None},
        {"kid": first, "valid": True},
        {"kid": second, "valid": True},
    ]
    assert live.ok("/verify", message) == {"kid": first, "valid": True, "signatures": told}
    message["signatures"][2]["signature"] = message["signatures"][1]["signature"]
    told[2]["valid"] = False
    assert live.ok("/verify", message) == {"kid": first, "valid": False, "signatures": told}
    told[2]["valid"] = None  # another key than the one that is meant
    answer = live.ok("/verify", message | {"kid": first})
    assert answer == {"kid": first, "valid": True, "signatures": told}


def test_nobody_is_ours(live):
    stranger = jwcrypto.jwk.JWK.generate(kty="EC", crv="P-256")
    message = signed_by((stranger, ES, {"kid": "x"}), (stranger, ES, {}))
    told = [{"kid": "x", "valid": None}, {"kid": None, "valid": None}]
    assert live.ok("/verify", message) == {"kid": None, "valid": False, "signatures": told}


def test_a_signature_that_our_key_cannot_make_is_not_valid(live):
    one, kid = new_signer(live)
    message = signed_by((one, ES, {"kid": kid}))
    good = message["signatures"][0]
    for alg in ("ES384", "RS256", "HS256", "none", "x"):
        protected = header(alg=alg, kid=kid)
        bad = {"protected": protected, "signature": good["signature"]}
        answer = live.ok("/verify", message | {"signatures": [good, bad]})
        assert [each["valid"] for each in answer["signatures"]] == [True, False]
        assert answer["valid"] is False
    assert live.ok("/verify", message)["valid"] is True


def test_a_signature_that_names_nobody_is_that_of_the_key_beside_if_it_is(live):
    (one, first), (_, second) = new_signer(live), new_signer(live)
    stranger = jwcrypto.jwk.JWK.generate(kty="EC", crv="P-256")
    message = signed_by((stranger, ES, {"kid": "x"}), (one, ES, {"kid": "y"}), (stranger, ES, {}))
    answer = live.ok("/verify", message | {"kid": first})
    assert [each["valid"] for each in answer["signatures"]] == [None, True, None]
    assert answer["valid"] is True
    answer = live.ok("/verify", message | {"kid": second})
    assert [each["valid"] for each in answer["signatures"]] == [False] * 3
    assert answer["valid"] is False


def test_rights_count_in_a_general_jws(callers):
    one, kid = new_signer(callers.alice)
    message = signed_by((one, ES, {"kid": kid}))
    assert callers.bob.ok("/verify", message)["signatures"] == [{"kid": kid, "valid": None}]
    assert callers.bob.post("/verify", message | {"kid": kid}).refusal == DENIED
    grant = {"json": {"operations": ["verify"]}}
    callers.alice.request("PUT", f"/keys/{kid}/grants/token:bob", **grant)
    assert callers.bob.ok("/verify", message)["valid"] is True


def test_a_payload_may_be_beside_a_general_jws(live):
    one, kid = new_signer(live)
    message = signed_by((one, ES, {"kid": kid}))
    data = message.pop("payload")
    assert live.ok("/verify", message | {"data": data})["valid"] is True
    assert live.ok("/verify", message | {"data": b64u("x")})["valid"] is False


def sealed_for(*recipients: tuple[Mapping[str, Any], Body]) -> Body:
    message = jwcrypto.jwe.JWE(b"data", json.dumps({"enc": "A128GCM"}))
    for key, own in recipients:
        message.add_recipient(jwcrypto.jwk.JWK(**key), json.dumps(own))
    made = json.loads(message.serialize())
    if "recipients" not in made:
        made["recipients"] = [{name: made.pop(name) for name in ("header", "encrypted_key")}]
    return dict(made)


def public_of(api: Api, kid: str) -> Body:
    jwk_of: Body = api.get(f"/keys/{kid}").body["jwk"]
    return jwk_of


ALG = {"alg": "ECDH-ES+A128KW"}
STRANGER = jwcrypto.jwk.JWK.generate(kty="EC", crv="P-256").export_public(as_dict=True)


def test_each_of_several_recipients_opens_the_message(callers):
    mine, theirs = callers.alice.create(**AGREEING), callers.bob.create(**AGREEING)
    message = sealed_for(
        (STRANGER, ALG | {"kid": "x"}),
        *(
            (public_of(api, key["kid"]), ALG | {"kid": key["kid"]})
            for api, key in ((callers.alice, mine), (callers.bob, theirs))
        ),
    )
    for api, key in ((callers.alice, mine), (callers.bob, theirs)):
        assert api.ok("/decrypt", message) == {"kid": key["kid"], "data": DATA}
        assert api.ok("/keys/unwrap", message)["alg"] == "A128GCM"
    assert callers.admin.post("/decrypt", message).refusal == NOT_FOUND
    assert callers.admin.post("/decrypt", message | {"kid": mine["kid"]}).refusal == DENIED
    both = message | {"kid": mine["kid_public"]}
    assert callers.alice.ok("/decrypt", both) == {"kid": mine["kid_public"], "data": DATA}


def test_a_recipient_that_cannot_be_read_harms_no_other(live):
    key = live.create(**AGREEING)
    message = sealed_for((public_of(live, key["kid"]), ALG | {"kid": key["kid"]}))
    [good] = message["recipients"]
    for bad in (
        {"header": {"alg": "x", "kid": "y"}},
        {"header": {"alg": "PBES2-HS256+A128KW", "kid": key["kid"]}, "encrypted_key": "AAAA"},
        {"header": {"alg": "ECDH-ES+A128KW", "kid": "z"}, "encrypted_key": "AAAA"},
        {"header": {"alg": "ECDH-ES+A128KW", "epk": {"kty": "EC"}}, "encrypted_key": "AAAA"},
        {"header": {"alg": "A128KW", "kid": "w"}},
        {"header": {"alg": "dir", "kid": "v"}, "encrypted_key": "AAAA"},
    ):
        for several in ([bad, good], [good, bad]):
            answer = live.ok("/decrypt", message | {"recipients": several})
            assert answer == {"kid": key["kid"], "data": DATA}
            beside = message | {"recipients": several, "kid": key["kid"]}
            assert live.ok("/decrypt", beside)["data"] == DATA


def test_of_recipients_that_others_have_named_the_right_one_is_found(live):
    key, other = live.create(**AGREEING), live.create(**AGREEING)
    public = public_of(live, key["kid"])
    message = sealed_for((STRANGER, ALG | {"kid": "x"}), (public, ALG), (STRANGER, ALG))
    assert live.post("/decrypt", message).refusal == NOT_FOUND
    assert live.ok("/decrypt", message | {"kid": key["kid"]})["data"] == DATA
    refused = live.post("/decrypt", message | {"kid": other["kid"]})
    assert refused.refusal == (422, "decryption_failed")


def test_in_a_batch_they_are_opened_too(local, application):
    key = local.create(**AGREEING)
    sealed = sealed_for((public_of(local, key["kid"]), ALG | {"kid": key["kid"]}))
    one, kid = new_signer(local)
    signed = signed_by((one, ES, {"kid": kid}))
    requests = [{"op": "decrypt", "body": sealed}, {"op": "verify", "body": signed}]
    with reads_of(service_of(application).registry) as reads:
        answers = local.ok("/batch", {"requests": requests})["responses"]
    assert [answer["status"] for answer in answers] == [200, 200]
    assert answers[1]["body"]["valid"] is True
    assert len(reads) == 1


def test_all_names_are_read_at_once(local, application):
    key = local.create(**AGREEING)
    message = sealed_for(
        (STRANGER, ALG | {"kid": str(uuid4())}),
        (STRANGER, ALG | {"kid": "an:alias"}),
        (public_of(local, key["kid"]), ALG | {"kid": key["kid"]}),
    )
    for body in (message, message | {"kid": key["kid"]}):
        with reads_of(service_of(application).registry) as reads:
            local.ok("/decrypt", body)
        assert len(reads) == 1


# --- What is refused ---

SIGNATURE: Body = {"protected": header(alg="ES256", kid="x"), "signature": "AAAA"}
SIGNED: Body = {"payload": DATA, "signatures": [SIGNATURE]}
RECIPIENT: Body = {"header": {"alg": "A128KW", "kid": "x"}, "encrypted_key": "AAAA"}
SEALED: Body = {
    "protected": header(enc="A128GCM"),
    "recipients": [RECIPIENT],
    "iv": b64u(bytes(12)),
    "ciphertext": "AAAA",
    "tag": b64u(bytes(16)),
}


def _signed(**members: Any) -> tuple[str, Body]:
    return "/verify", SIGNED | {"signatures": [SIGNATURE | members]}


def _sealed(**members: Any) -> tuple[str, Body]:
    return "/decrypt", SEALED | {"recipients": [RECIPIENT | members]}


REFUSALS: Mapping[str, tuple[tuple[str, Body], str]] = {
    **{
        f"signatures that are {title}": (
            ("/verify", SIGNED | {"signatures": value}),
            "'signatures'",
        )
        for title, value in no_arrays_of(SIGNATURE).items()
    },
    **{
        f"recipients that are {title}": (
            ("/decrypt", SEALED | {"recipients": value}),
            "'recipients'",
        )
        for title, value in {**no_arrays_of(RECIPIENT), "no objects": [None]}.items()
    },
    **{
        f"signatures beside {name}": (("/verify", SIGNED | {name: value}), f"'{name}'")
        for name, value in {
            "signature": "AAAA",
            "protected": header(alg="ES256"),
            "header": {"kid": "x"},
            "jwk": STRANGER,
            "jws": f"{header(alg='ES256')}.AAAA.AAAA",
            "data": DATA,
        }.items()
    },
    **{
        f"recipients beside {name}": (("/decrypt", SEALED | {name: value}), f"'{name}'")
        for name, value in {
            "encrypted_key": "AAAA",
            "header": {"kid": "x"},
            "jwe": "a.b.c.d.e",
        }.items()
    },
    "no payload": (("/verify", {"signatures": [SIGNATURE]}), "'data'"),
    "no signature in one": (("/verify", SIGNED | {"signatures": [{"protected": "e30"}]}), "'sig"),
    "a signature that is no text": (_signed(signature=5), "'signature'"),
    "a signature that is no base64url": (_signed(signature="A="), "'signature'"),
    "an encrypted key that is no text": (_sealed(encrypted_key=5), "'encrypted_key'"),
    "a header of one that is no object": (_sealed(header=[]), "'header'"),
    "a protected part of one that is no text": (_signed(protected=5), "'protected'"),
    "a member in two parts": (_signed(header={"kid": "x"}), "'kid'"),
    "a member in another two": (_sealed(header={"alg": "A128KW", "enc": "A128GCM"}), "'enc'"),
    "a shared member twice": (
        ("/decrypt", SEALED | {"unprotected": {"alg": "A128KW"}}),
        "'alg'",
    ),
    "a kid that is no text": (_sealed(header={"alg": "A128KW", "kid": 5}), "'kid'"),
    **{
        f"{name} unprotected": (_signed(header={name: value}), f"'{name}'")
        for name, value in {"crit": ["b64"], "b64": False, "zip": "DEF"}.items()
    },
    "an iv of another enc": (("/decrypt", SEALED | {"iv": b64u(bytes(16))}), "'iv'"),
    "two kinds of content encryption": (
        (
            "/decrypt",
            {name: SEALED[name] for name in ("iv", "ciphertext", "tag")}
            | {
                "recipients": [
                    {"header": {"alg": "A128KW", "enc": enc}, "encrypted_key": "AAAA"}
                    for enc in ("A128GCM", "A256GCM")
                ]
            },
        ),
        "'recipients'",
    ),
    "a payload that is not encoded": (
        _signed(protected=header(alg="ES256", kid="x", b64=False, crit=["b64"])),
        "'payload'",
    ),
}


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
def test_a_malformed_message_is_refused_before_anything_is_asked(
    local, application, chaos, refused
):
    (path, body), named = refused
    with unasked(application, chaos):
        answer = local.post(path, body)
    assert answer.refusal == BAD_REQUEST
    assert named in answer.body["description"]


def test_a_kid_that_is_none_of_the_message_is_refused(live):
    key, other = live.create(**AGREEING), live.create(**AGREEING)
    message = sealed_for((public_of(live, key["kid"]), ALG | {"kid": key["kid"]}))
    for path in ("/decrypt", "/keys/unwrap"):
        assert live.post(path, message | {"kid": other["kid"]}).refusal == BAD_REQUEST
        assert live.post(path, message | {"kid": str(uuid4())}).refusal == NOT_FOUND
    one, kid = new_signer(live)
    signed = signed_by((one, ES, {"kid": kid}))
    assert live.post("/verify", signed | {"kid": new_signer(live)[1]}).refusal == BAD_REQUEST
    secret = live.create(kty="oct", alg="HS256")["kid"]
    foreign = signed_by((one, ES, {"kid": "x"}))
    assert live.post("/verify", foreign | {"kid": secret}).refusal == MISFIT


# --- With other libraries ---


def test_joserfc_makes_them_for_us(live):
    key = live.create(**AGREEING)
    public = public_of(live, key["kid"])
    message = jwe.GeneralJSONEncryption({"enc": "A128GCM"}, b"data", {"cty": "text"})
    ours = jwk.import_key({name: public[name] for name in ("kty", "crv", "x", "y")})
    stranger = jwk.import_key(dict(STRANGER))
    message.add_recipient(ALG | {"kid": "x"}, stranger)
    message.add_recipient(ALG | {"kid": key["kid"]}, ours)
    made = jwe.encrypt_json(message, None, algorithms=["ECDH-ES+A128KW", "A128GCM"])
    assert live.ok("/decrypt", dict(made)) == {"kid": key["kid"], "data": DATA}

    private, kid = new_signer(live)
    signer = jwk.import_key(private.export(as_dict=True))
    members: list[jws.HeaderDict] = [
        {"protected": ES, "header": {"kid": name}} for name in (kid, "x")
    ]
    signed = jws.serialize_json(members, b"data", signer)
    assert unb64u(signed["payload"]) == b"data"
    assert live.ok("/verify", dict(signed)) == {
        "kid": kid,
        "valid": True,
        "signatures": [{"kid": kid, "valid": True}, {"kid": "x", "valid": None}],
    }
