"""What a JWK says of its key counts (RFC 7517 §4.2-§4.4), and what was made is said."""

from collections.abc import Mapping
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from joserfc import jwe
from joserfc.jwk import OKPKey

from hsm import Hsm, KeyRef
from hsm.life.offer import Offer
from tests.shared.api import Api, b64u, leave_out_if_lacking, unb64u

BAD_REQUEST = (400, "bad_request")
SIGNS, ENCRYPTS = ["sign", "verify"], ["encrypt", "decrypt"]
ENCRYPTION = ["encrypt", "decrypt", "wrapKey", "unwrapKey"]
AGREEMENT = ["deriveKey", "deriveBits"]


def _integer(value: int) -> str:
    return b64u(value.to_bytes((value.bit_length() + 7) // 8))


def _rsa() -> dict[str, str]:
    """n, e and d only; the primes are computed."""
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    public = numbers.public_numbers
    members = {"n": public.n, "e": public.e, "d": numbers.d}
    return {name: _integer(value) for name, value in members.items()}


_D: Final = b64u(
    ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value.to_bytes(32)
)
KEYS: Final[Mapping[str, Mapping[str, str]]] = {
    "RSA": {"kty": "RSA", **_rsa()},
    "EC": {"kty": "EC", "crv": "P-256", "d": _D},
    "secp256k1": {"kty": "EC", "crv": "secp256k1", "d": b64u((5).to_bytes(32))},
    "Ed25519": {
        "kty": "OKP",
        "crv": "Ed25519",
        "d": b64u(ed25519.Ed25519PrivateKey.generate().private_bytes_raw()),
    },
    "X25519": {
        "kty": "OKP",
        "crv": "X25519",
        "d": b64u(x25519.X25519PrivateKey.generate().private_bytes_raw()),
    },
    "oct": {"kty": "oct", "k": b64u(bytes(range(32)))},
}

# --- What is made of a key without alg ---

MADE: Final[Mapping[str, tuple[str, Mapping[str, Any], str | None, list[str]]]] = {
    "EC": ("EC", {}, None, SIGNS),
    "EC for signatures": ("EC", {"use": "sig"}, None, SIGNS),
    "EC for encryption": ("EC", {"use": "enc"}, "ECDH-ES", ENCRYPTS),
    "EC that agrees": ("EC", {"key_ops": AGREEMENT}, "ECDH-ES", ENCRYPTS),
    "EC that derives bits": ("EC", {"key_ops": ["deriveBits"]}, "ECDH-ES", ENCRYPTS),
    "EC as we say it": ("EC", {"key_ops": ENCRYPTS}, "ECDH-ES", ENCRYPTS),
    "EC of both": ("EC", {"key_ops": ["sign", "deriveBits"]}, None, SIGNS),
    "EC of both, but for encryption": (
        "EC",
        {"use": "enc", "key_ops": ["sign", "deriveBits"]},
        "ECDH-ES",
        ENCRYPTS,
    ),
    "EC of an unknown use": ("EC", {"use": "tls", "key_ops": ["attest"]}, None, SIGNS),
    "EC of no operation": ("EC", {"use": None, "key_ops": []}, None, SIGNS),
    "RSA": ("RSA", {}, None, SIGNS),
    "RSA for signatures": ("RSA", {"use": "sig", "key_ops": ["sign"]}, None, SIGNS),
    "RSA for encryption": ("RSA", {"use": "enc"}, "RSA-OAEP", ENCRYPTS),
    "RSA that unwraps": ("RSA", {"key_ops": ["unwrapKey"]}, "RSA-OAEP", ENCRYPTS),
    "RSA of both": ("RSA", {"key_ops": ["sign", "decrypt"]}, None, SIGNS),
    "Ed25519": ("Ed25519", {"use": "sig"}, None, SIGNS),
    "X25519": ("X25519", {}, None, ENCRYPTS),
    "X25519 for encryption": ("X25519", {"use": "enc", "key_ops": AGREEMENT}, None, ENCRYPTS),
}


@pytest.mark.parametrize(("key", "said", "alg", "key_ops"), MADE.values(), ids=MADE)
def test_what_a_jwk_says_of_its_key_makes_it_that(
    live: Api, key: str, said: Mapping[str, Any], alg: str | None, key_ops: list[str]
) -> None:
    made = live.create(**KEYS[key], **said)
    assert (made.get("alg"), made["key_ops"]) == (alg, key_ops)
    assert made.get("bits") == (2048 if key == "RSA" else None)
    description = live.get(f"/keys/{made['kid']}").body
    assert description["jwk"]["use"] == ("sig" if key_ops == SIGNS else "enc")


@pytest.mark.parametrize("said", [{"use": "enc"}, {"key_ops": ["deriveBits"]}])
def test_what_it_is_for_by_its_use_is_refused_where_the_token_lacks_that(
    local: Api, token: Hsm, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]
) -> None:
    offers = {**token.offers(), "ECDH-ES": Offer("the token lacks it")}
    monkeypatch.setattr(Hsm, "offers", lambda _: offers)
    answer = local.post("/keys", {**KEYS["EC"], **said})
    assert answer.refusal == (422, "unsupported_algorithm")
    assert answer.body["description"] == "'ECDH-ES' is not available: the token lacks it"


def test_what_the_token_does_not_offer_any_more_when_it_is_tried_is_refused(
    local: Api, token: Hsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = {**token.offers(), "ES256": Offer("the token lacks it")}
    works = Hsm.works

    def try_later(self: Hsm, ref: KeyRef) -> bool:
        monkeypatch.setattr(Hsm, "offers", lambda _: offers)
        return works(self, ref)

    monkeypatch.setattr(Hsm, "works", try_later)
    answer = local.post("/keys", {**KEYS["EC"], "alg": "ES256"})
    assert answer.refusal == (422, "unsupported_algorithm")


# --- What contradicts ---

SIGNING = (*SIGNS,)
WRAPPING = (*ENCRYPTION,)
AGREEING = (*ENCRYPTION, *AGREEMENT)
FITTING: Final[Mapping[str, tuple[str, str, tuple[str, ...]]]] = {
    "RS256": ("RSA", "sig", SIGNING),
    "PS512": ("RSA", "sig", SIGNING),
    "ES256": ("EC", "sig", SIGNING),
    "EdDSA": ("Ed25519", "sig", SIGNING),
    "HS256": ("oct", "sig", SIGNING),
    "RSA-OAEP-256": ("RSA", "enc", WRAPPING),
    "A256GCM": ("oct", "enc", WRAPPING),
    "A128CBC-HS256": ("oct", "enc", WRAPPING),
    "A256KW": ("oct", "enc", WRAPPING),
    "ECDH-ES": ("EC", "enc", AGREEING),
    "ECDH-ES+A256KW": ("X25519", "enc", AGREEING),
}
"""A key of each algorithm, its use, and its operations; every other one contradicts."""


@pytest.mark.parametrize("alg", FITTING)
def test_use_and_key_ops_that_fit_are_taken_and_others_refused(
    local: Api, alg: str, lacks: frozenset[str]
) -> None:
    key, use, operations = FITTING[alg]
    leave_out_if_lacking(lacks, alg, KEYS[key].get("crv", ""))
    said: list[dict[str, Any]] = [
        *({"use": one} for one in ("sig", "enc")),
        *({"key_ops": [one]} for one in (*SIGNS, *ENCRYPTION, *AGREEMENT)),
    ]
    for members in said:
        answer = local.post("/keys", {**KEYS[key], "alg": alg, **members})
        if members.get("use") == use or {*members.get("key_ops", ())} & {*operations}:
            assert (answer.status, answer.body.get("alg")) == (200, alg), members
            assert local.delete(answer.body["kid"]).status == 204
        else:
            assert answer.refusal == BAD_REQUEST, members
            name = next(iter(members))
            assert answer.body["description"] == f"Field '{name}' contradicts algorithm '{alg}'"


REFUSED: Final[Mapping[str, tuple[str, Mapping[str, Any], str]]] = {
    "each other": (
        "EC",
        {"use": "enc", "key_ops": ["sign"]},
        "Fields 'use' and 'key_ops' contradict each other",
    ),
    "Ed25519 for encryption": (
        "Ed25519",
        {"use": "enc"},
        "Field 'use' contradicts curve 'Ed25519'",
    ),
    "secp256k1 for encryption": (
        "secp256k1",
        {"use": "enc"},
        "Field 'use' contradicts curve 'secp256k1'",
    ),
    "X25519 for signatures": ("X25519", {"use": "sig"}, "Field 'use' contradicts curve 'X25519'"),
    "X25519 that signs": (
        "X25519",
        {"key_ops": SIGNS},
        "Field 'key_ops' contradicts curve 'X25519'",
    ),
    "use of another type": ("EC", {"use": ["enc"]}, "Field 'use' must be a string"),
    "key_ops of another type": (
        "EC",
        {"key_ops": "sign"},
        "Field 'key_ops' must be an array of different strings",
    ),
    "key_ops of numbers": (
        "EC",
        {"key_ops": [1]},
        "Field 'key_ops' must be an array of different strings",
    ),
    "key_ops twice": (
        "EC",
        {"key_ops": ["sign", "sign"]},
        "Field 'key_ops' must be an array of different strings",
    ),
    "more than two primes": (
        "RSA",
        {"oth": [{"r": "AQAB", "d": "AQAB", "t": "AQAB"}]},
        "Field 'oth' is not taken: an RSA key has two primes here",
    ),
    **{
        f"{name} of 4096": (
            "RSA",
            {name: 4096},
            f"Field '{name}' is not taken: the size of an RSA key is 'bits', that of others "
            "follows from 'alg' or 'crv'",
        )
        for name in ("size", "length", "modulusLength")
    },
    "oct without alg": (
        "oct",
        {},
        "Field 'alg' is required for key type 'oct'; a key of 32 bytes may be for: HS256, A256GCM, "
        "A128CBC-HS256, A256KW, A256GCMKW",
    ),
}


@pytest.mark.parametrize(("key", "said", "description"), REFUSED.values(), ids=REFUSED)
def test_what_goes_with_no_key_is_refused(
    local: Api, key: str, said: Mapping[str, Any], description: str
) -> None:
    answer = local.post("/keys", {**KEYS[key], **said})
    assert (answer.refusal, answer.body["description"]) == (BAD_REQUEST, description)


def test_a_new_key_is_what_alg_says_whatever_the_jwk_is_for(local: Api) -> None:
    made = local.create(kty="EC", crv="P-256", use="enc", key_ops=AGREEMENT)
    assert ("alg" in made, made["key_ops"]) == (False, SIGNS)


# --- X25519 without alg ---


@pytest.mark.parametrize("body", [KEYS["X25519"], {"kty": "OKP", "crv": "X25519"}])
@pytest.mark.parametrize("wrapping", ["", "+A128KW", "+A192KW", "+A256KW"])
def test_a_key_on_x25519_without_alg_does_all_of_ecdh_es(
    live: Api, body: Mapping[str, str], wrapping: str
) -> None:
    made = live.create(**body)
    alg = f"ECDH-ES{wrapping}"
    sent = live.ok("/encrypt", {"kid": made["kid"], "alg": alg, "enc": "A256GCM", "data": "AAAA"})
    assert live.ok("/decrypt", sent)["data"] == "AAAA"
    jwk = live.get(f"/keys/{made['kid']}").body["jwk"]
    assert "alg" not in jwk
    peer = OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x")})
    header = {"alg": alg, "enc": "A128GCM", "kid": made["kid"]}
    theirs = jwe.encrypt_compact(header, b"x", peer, algorithms=[alg, "A128GCM"])
    assert unb64u(live.ok("/decrypt", {"jwe": theirs})["data"]) == b"x"


# --- Messages of clients of other services ---


@pytest.mark.parametrize("path", ["/sign", "/verify"])
@pytest.mark.parametrize(
    "member", [{"message_type": "DIGEST"}, {"prehashed": True}, {"prehashed": []}]
)
def test_a_digest_is_not_taken_for_data(local: Api, path: str, member: Mapping[str, Any]) -> None:
    kid = local.create(kty="EC", crv="P-256", alg="ES256")["kid"]
    body = {"kid": kid, "alg": "ES256", "data": b64u(bytes(32))}
    signed = local.ok("/sign", body | {"message_type": "RAW", "prehashed": False})
    bodies = {"/sign": body, "/verify": signed | {"data": body["data"]}}
    assert local.post(path, bodies[path]).status == 200
    answer = local.post(path, bodies[path] | member)
    assert answer.refusal == BAD_REQUEST
    assert f"'{next(iter(member))}'" in answer.body["description"]
