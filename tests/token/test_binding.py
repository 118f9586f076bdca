"""A key is bound to its algorithm: of all requests only those for it are answered with 2xx."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import hsm
from app.service import service_of
from tests.shared.api import b64u, header
from tests.shared.bodies import body_of
from tests.shared.sealing import IV_BYTES, TAG_BYTES

SIGNATURES = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "Ed448"),
    *("ML-DSA-44", "ML-DSA-65", "ML-DSA-87", "MLDSA44"),
)
MACS = ("HS256", "HS384", "HS512")
ENCS = ("A128GCM", "A192GCM", "A256GCM", "A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512")
ANY_RSA_TRANSPORTS = ("RSA-OAEP", "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512")
TRANSPORTS = (
    *ANY_RSA_TRANSPORTS,
    *("RSA1_5", "A128KW", "A192KW", "A256KW", "A128GCMKW", "A192GCMKW", "A256GCMKW"),
    *("ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW"),
)
AGREEMENT = "ECDH-ES"
ALGORITHMS = (*SIGNATURES, *MACS, *ENCS, *TRANSPORTS, AGREEMENT)
STRANGERS = ("none", "dir", "A128GCMKW+", "A128CBC+HS256")

ANY_RSA = {name for name in SIGNATURES if name[:2] in ("RS", "PS")} | set(ANY_RSA_TRANSPORTS)
UNBOUND = {
    "any RSA": ({"kty": "RSA"}, ANY_RSA),
    "any P-256": ({"kty": "EC", "crv": "P-256"}, {"ES256"}),
    "any P-384": ({"kty": "EC", "crv": "P-384"}, {"ES384"}),
    "any P-521": ({"kty": "EC", "crv": "P-521"}, {"ES512"}),
    "any secp256k1": ({"kty": "EC", "crv": "secp256k1"}, {"ES256K"}),
    "any Ed25519": ({"kty": "OKP"}, {"EdDSA", "Ed25519"}),
    "any Ed448": ({"kty": "OKP", "crv": "Ed448"}, {"EdDSA", "Ed448"}),
}

OTHER_NAMES = {
    "EdDSA": "Ed25519",
    "Ed25519": "EdDSA",
    "Ed448": "EdDSA",
    "ML-DSA-44": "MLDSA44",
    "MLDSA44": "ML-DSA-44",
}
"""The other name under which keys of an algorithm verify, made by ``body_of``."""

OK = (200, None)
MISFIT = (422, "crypto_failure")
UNKNOWN = (422, "unsupported_algorithm")


class Key(NamedTuple):
    """A key and the algorithms that it may perform; ``kid_public`` is its kid if there is none."""

    kid: str
    kid_public: str
    permitted: set[str]


def test_the_tables_and_this_test_know_the_same_algorithms():
    assert set(ALGORITHMS) == set(hsm.ALGORITHMS)


@pytest.fixture(scope="module")
def offered(application: Any) -> set[str]:
    """The algorithms that this token performs."""
    offers = service_of(application).hsm.offers()
    return {name for name, offer in offers.items() if offer.is_offered}


@pytest.fixture(scope="module", params=[*ALGORITHMS, *UNBOUND])
def key(request: pytest.FixtureRequest, local: Any, offered: set[str]) -> Iterator[Key]:
    """A key for each algorithm, then those that are bound to none."""
    name = request.param
    body, permitted = UNBOUND[name] if name in UNBOUND else (body_of(name), {name})
    if not permitted & offered:
        assert local.post("/keys", body).refusal == UNKNOWN
        pytest.skip(f"this token does not offer {name}")
    made = local.create(**body)
    yield Key(made["kid"], made.get("kid_public", made["kid"]), permitted & offered)
    assert local.delete(made["kid"]).status == 204


def _outcome(answer: Any) -> tuple[int, str | None]:
    return answer.status, None if answer.status == 200 else answer.body["error"]


def _expected(
    key: Key, names: tuple[str, ...], offered: set[str]
) -> dict[str, tuple[int, str | None]]:
    """The outcome by request algorithm, where the endpoint takes ``names``."""

    def outcome(name: str) -> tuple[int, str | None]:
        if name not in names or name not in offered:
            return UNKNOWN
        return OK if name in key.permitted else MISFIT

    return {name: outcome(name) for name in (*ALGORITHMS, *STRANGERS)}


def test_sign(key, local, offered):
    found = {
        alg: _outcome(local.post("/sign", {"kid": key.kid, "alg": alg, "data": ""}))
        for alg in (*ALGORITHMS, *STRANGERS)
    }
    assert found == _expected(key, SIGNATURES, offered)


def test_a_public_kid_signs_nothing(key, local, offered):
    if key.kid_public == key.kid:
        pytest.skip("a secret key has no public half")
    found = {
        alg: _outcome(local.post("/sign", {"kid": key.kid_public, "alg": alg, "data": ""}))
        for alg in (*ALGORITHMS, *STRANGERS)
    }
    none = key._replace(permitted=set())
    assert found == _expected(none, SIGNATURES, offered)


@pytest.mark.parametrize("half", ["kid", "kid_public"])
def test_verify(key, half, local, offered):
    if half == "kid_public" and key.kid_public == key.kid:
        pytest.skip("a secret key has no public half")

    def verify(alg: str) -> tuple[int, str | None]:
        jws = {"protected": header(alg=alg, kid=getattr(key, half)), "signature": b64u(b"?")}
        answer = local.post("/verify", jws | {"data": "AA"})
        if alg in key.permitted and alg in SIGNATURES:
            assert answer.body["valid"] is False
            signed = local.ok("/sign", {"kid": key.kid, "alg": alg, "data": "AA"})
            answer = local.post("/verify", signed | {"data": "AA"})
            assert answer.body["valid"] is True
        return _outcome(answer)

    found = {alg: verify(alg) for alg in (*ALGORITHMS, *STRANGERS)}
    bound = key.permitted if len(key.permitted) == 1 else set()
    others = {OTHER_NAMES[name] for name in bound & OTHER_NAMES.keys()}
    named = key._replace(permitted=key.permitted | others)
    assert found == _expected(named, (*SIGNATURES, *MACS), offered)


def test_mac_computation_and_verification(key, local, offered):
    def compute(alg: str, **mac: str) -> tuple[int, str | None]:
        return _outcome(local.post("/mac", {"kid": key.kid, "alg": alg, "data": ""} | mac))

    expected = _expected(key, MACS, offered)
    assert {alg: compute(alg) for alg in expected} == expected
    assert {alg: compute(alg, mac="AA") for alg in expected} == expected


def test_encrypt_and_decrypt_directly(key, local, offered):
    def both(enc: str) -> tuple[int, str | None]:
        request = {"kid": key.kid, "alg": "dir", "enc": enc, "data": "AA"}
        encrypted = local.post("/encrypt", request)
        jwe = {
            "protected": header(alg="dir", enc=enc, kid=key.kid),
            "iv": b64u(bytes(IV_BYTES.get(enc, 12))),
            "ciphertext": "",
            "tag": b64u(bytes(TAG_BYTES.get(enc, 16))),
        }
        decrypted = local.post("/decrypt", encrypted.body if encrypted.status == 200 else jwe)
        assert _outcome(decrypted) == _outcome(encrypted)
        return _outcome(encrypted)

    expected = _expected(key, ENCS, offered)
    assert {enc: both(enc) for enc in expected} == expected


# The base point of P-256, for headers that nobody has made.
EPK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
    "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
}


SEALED_CEK = {"iv": b64u(bytes(12)), "tag": b64u(bytes(16))}


def _transported(key: Key, alg: str, enc: str) -> dict[str, str]:
    return {
        "protected": header(alg=alg, enc=enc, kid=key.kid, epk=EPK, **SEALED_CEK),
        "encrypted_key": "" if alg == AGREEMENT else b64u(bytes(256)),
        "iv": b64u(bytes(IV_BYTES[enc])),
        "ciphertext": "",
        "tag": b64u(bytes(TAG_BYTES[enc])),
    }


def test_encrypt_decrypt_and_unwrap_with_key_management(key, local, offered):
    def outcomes(alg: str, enc: str) -> list[tuple[int, str | None]]:
        request = {"kid": key.kid_public, "alg": alg, "enc": enc, "data": "AA"}
        encrypted = local.post("/encrypt", request)
        jwe = encrypted.body if encrypted.status == 200 else _transported(key, alg, enc)
        unwrapped = local.post("/keys/unwrap", jwe)
        if unwrapped.status == 200:
            assert local.delete(unwrapped.body["kid"]).status == 204
        return [_outcome(encrypted), _outcome(local.post("/decrypt", jwe)), _outcome(unwrapped)]

    expected = _expected(key, (*TRANSPORTS, AGREEMENT), offered)
    del expected["dir"]  # a class of its own, see above
    for alg, outcome in expected.items():
        for enc in ENCS if alg in key.permitted else ENCS[:1]:
            unwrapped = UNKNOWN if alg == AGREEMENT else outcome
            assert outcomes(alg, enc) == [outcome, outcome, unwrapped], (alg, enc)


@pytest.mark.parametrize("alg", ["dir", AGREEMENT])
def test_unwrap_does_not_take_what_transports_no_key(key, local, alg):
    body = _transported(key, alg, "A256GCM")
    assert local.post("/keys/unwrap", body).refusal == UNKNOWN
