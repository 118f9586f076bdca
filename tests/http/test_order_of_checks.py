"""The first failure answers (wire contract, "Order of checks"): of every two, the earlier one."""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from tests.shared.api import Api, b64u, header, unb64u

GONE = object()
"""The member is left out."""


class Failure(NamedTuple):
    """What is wrong, where (``protected.kid`` is in the header), and its answer.

    ``named`` tells answers of one code apart: the member that the description names.
    """

    member: str
    value: Any
    refusal: tuple[int, str]
    named: str = ""

    @property
    def title(self) -> str:
        """What is wrong, for the name of a test."""
        value = "missing" if self.value is GONE else str(self.value)[:14]
        return f"{self.member} {value}".strip()


def bad(member: str, value: Any, named: str | None = None) -> Failure:
    """Return a failure that answers 400 and names the member."""
    name = member.rpartition(".")[2]
    return Failure(member, value, (400, "bad_request"), f"'{name}'" if named is None else named)


def unsupported(member: str, value: str) -> Failure:
    """Return a failure of an algorithm, which the description names."""
    return Failure(member, value, (422, "unsupported_algorithm"), f"'{value}'")


def unknown(member: str) -> Failure:
    """Return a failure of the kid."""
    return Failure(member, "unknown", (404, "not_found"))


def unfit(member: str, value: Any) -> Failure:
    """Return a failure of the key or of what is asked of it."""
    return Failure(member, value, (422, "crypto_failure"))


def undecryptable(member: str, value: Any) -> Failure:
    """Return a failure that only the token can see."""
    return Failure(member, value, (422, "decryption_failed"))


class Kid(NamedTuple):
    """The kid of one of ``KEYS``."""

    name: str
    member: str = "kid"


KEYS: Mapping[str, Mapping[str, str]] = {
    "A256GCM": {"kty": "oct", "alg": "A256GCM"},
    "HS256": {"kty": "oct", "alg": "HS256"},
    "RSA-OAEP": {"kty": "RSA", "alg": "RSA-OAEP"},
    "ES256": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    "ECDH-ES": {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES"},
}
NOT_BASE64URL = "A==="
SHORT = b64u(bytes(11))

JWE_HEADER = (
    bad("protected", NOT_BASE64URL),
    bad("protected", b64u("{"), "JSON"),
    bad("protected.kid", GONE),
    bad("protected.alg", GONE),
    bad("protected.enc", GONE),
    unsupported("protected.alg", "RSA1_5"),
    unsupported("protected.enc", "A128CBC+HS256"),
)
JWE_REST = (
    bad("iv", NOT_BASE64URL, "'iv' is not valid base64url"),
    bad("ciphertext", NOT_BASE64URL),
    bad("tag", NOT_BASE64URL, "'tag' is not valid base64url"),
    bad("aad", NOT_BASE64URL),
    bad("iv", SHORT, "'iv'"),
    bad("tag", SHORT, "'tag'"),
    unknown("protected.kid"),
)

ORDERS: Mapping[str, tuple[Failure, ...]] = {
    "encrypt": (
        bad("kid", 5),
        bad("data", NOT_BASE64URL),
        unsupported("alg", "RSA1_5"),
        unsupported("enc", "A128CBC+HS256"),
        bad("aad", NOT_BASE64URL),
        unknown("kid"),
        unfit("enc", "A128GCM"),
    ),
    "decrypt": (
        bad("ciphertext", 5),
        *JWE_HEADER,
        bad("encrypted_key", "AAAA"),
        *JWE_REST,
        unfit("protected.enc", "A128GCM"),
        undecryptable("ciphertext", "AAAA"),
    ),
    "decrypt OAEP": (
        bad("ciphertext", 5),
        *JWE_HEADER,
        bad("encrypted_key", GONE),
        bad("encrypted_key", ""),
        *JWE_REST,
        unfit("protected.kid", Kid("A256GCM")),
        undecryptable("ciphertext", "AAAA"),
    ),
    "encrypt ECDH": (
        unsupported("enc", "A128CBC+HS256"),
        bad("aad", NOT_BASE64URL),
        bad("apu", NOT_BASE64URL),
        bad("apv", NOT_BASE64URL),
        unknown("kid"),
    ),
    "decrypt ECDH": (
        bad("protected.kid", GONE),
        unsupported("protected.enc", "A128CBC+HS256"),
        bad("protected.epk", GONE),
        bad("protected.apu", NOT_BASE64URL),
        bad("protected.apv", 5),
        bad("encrypted_key", "AAAA"),
        bad("iv", SHORT, "'iv'"),
        unknown("protected.kid"),
        unfit("protected.kid", Kid("ES256")),
        undecryptable("ciphertext", "AAAA"),
    ),
    "sign": (
        bad("kid", GONE),
        bad("data", NOT_BASE64URL),
        unsupported("alg", "HS256"),
        unknown("kid"),
        unfit("kid", Kid("ES256", "kid_public")),
    ),
    "verify": (
        bad("signature", 5),
        bad("protected", NOT_BASE64URL),
        bad("protected", b64u("[]"), "JSON"),
        bad("protected.kid", GONE),
        bad("protected.alg", GONE),
        unsupported("protected.alg", "dir"),
        bad("data", NOT_BASE64URL),
        bad("signature", NOT_BASE64URL),
        unknown("protected.kid"),
        unfit("protected.alg", "ES384"),
    ),
    "mac": (
        bad("kid", GONE),
        bad("data", NOT_BASE64URL),
        bad("mac", NOT_BASE64URL),
        unsupported("alg", "RS256"),
        unknown("kid"),
        unfit("alg", "HS384"),
    ),
    "unwrap": (
        bad("encrypted_key", 5),
        bad("protected", NOT_BASE64URL),
        bad("protected", b64u("{"), "JSON"),
        bad("protected.kid", GONE),
        bad("protected.alg", GONE),
        bad("protected.enc", GONE),
        unsupported("protected.alg", "dir"),
        unsupported("protected.enc", "A128CBC+HS256"),
        bad("encrypted_key", ""),
        unknown("protected.kid"),
        unfit("protected.kid", Kid("ES256")),
        undecryptable("encrypted_key", b64u(bytes(256))),
    ),
}
PATHS = {
    "decrypt OAEP": "/decrypt",
    "encrypt ECDH": "/encrypt",
    "decrypt ECDH": "/decrypt",
    "unwrap": "/keys/unwrap",
}


def collide(first: Failure, second: Failure) -> bool:
    """Tell whether one request cannot have both failures."""
    whole_header = "protected" in (first.member, second.member)
    both_in_header = {first.member.partition(".")[0], second.member.partition(".")[0]} == {
        "protected"
    }
    return first.member == second.member or (whole_header and both_in_header)


def pairs() -> Iterator[Any]:
    for endpoint, failures in ORDERS.items():
        for first, second in itertools.combinations(failures, 2):
            if not collide(first, second):
                title = f"{endpoint}: {first.title} before {second.title}"
                yield pytest.param(endpoint, first, second, id=title)


@pytest.fixture(scope="module")
def kids(local: Api) -> Mapping[Kid, str]:
    keys = {name: local.create(**members) for name, members in KEYS.items()}
    return {
        Kid(name, member): key[member]
        for name, key in keys.items()
        for member in ("kid", "kid_public")
        if member in key
    }


@pytest.fixture(scope="module")
def valid(local: Api, kids: Mapping[Kid, str]) -> Mapping[str, Mapping[str, Any]]:
    data = b64u("data")
    encrypt = {"kid": kids[Kid("A256GCM")], "alg": "dir", "enc": "A256GCM", "data": data}
    sign = {"kid": kids[Kid("ES256")], "alg": "ES256", "data": data}
    oaep = local.ok("/encrypt", encrypt | {"kid": kids[Kid("RSA-OAEP")], "alg": "RSA-OAEP"})
    agreed = encrypt | {"kid": kids[Kid("ECDH-ES")], "alg": "ECDH-ES", "apu": "AA", "apv": "AA"}
    return {
        "encrypt ECDH": agreed,
        "decrypt ECDH": local.ok("/encrypt", agreed),
        "encrypt": encrypt,
        "decrypt": local.ok("/encrypt", encrypt),
        "decrypt OAEP": oaep,
        "sign": sign,
        "verify": local.ok("/sign", sign) | {"data": data},
        "mac": {"kid": kids[Kid("HS256")], "alg": "HS256", "data": data},
        "unwrap": oaep,
    }


def broken(
    body: Mapping[str, Any], kids: Mapping[Kid, str], failures: tuple[Failure, ...]
) -> dict[str, Any]:
    """Return ``body`` with all the ``failures``."""
    broken_body = dict(body)
    for member, value, *_ in failures:
        text = kids[value] if isinstance(value, Kid) else value
        name, _, inner = member.partition(".")
        if inner:
            members = json.loads(unb64u(broken_body[name])) | {inner: text}
            text = header(**{key: value for key, value in members.items() if value is not GONE})
        broken_body[name] = text
    return {name: value for name, value in broken_body.items() if value is not GONE}


@pytest.mark.parametrize(("endpoint", "first", "second"), list(pairs()))
def test_the_earlier_failure_answers(  # noqa: PLR0913, PLR0917  # fixtures and a row
    local: Api,
    kids: Mapping[Kid, str],
    valid: Mapping[str, Mapping[str, Any]],
    endpoint: str,
    first: Failure,
    second: Failure,
) -> None:
    path = PATHS.get(endpoint, f"/{endpoint}")
    answer = local.post(path, broken(valid[endpoint], kids, (first, second)))
    assert answer.refusal == first.refusal
    assert first.named in answer.body["description"]


@pytest.mark.parametrize(
    ("endpoint", "failure"),
    [
        pytest.param(endpoint, failure, id=f"{endpoint}: {failure.title}")
        for endpoint, failures in ORDERS.items()
        for failure in failures
    ],
)
def test_each_failure_alone_is_answered_by_itself(
    local: Api,
    kids: Mapping[Kid, str],
    valid: Mapping[str, Mapping[str, Any]],
    endpoint: str,
    failure: Failure,
) -> None:
    answer = local.post(
        PATHS.get(endpoint, f"/{endpoint}"), broken(valid[endpoint], kids, (failure,))
    )
    assert answer.refusal == failure.refusal
    assert failure.named in answer.body["description"]


def test_a_bad_signature_is_the_last_thing_that_counts(
    local: Api, kids: Mapping[Kid, str], valid: Mapping[str, Mapping[str, Any]]
) -> None:
    body = {**valid["verify"], "signature": ""}
    assert local.ok("/verify", body)["valid"] is False
    for failure in ORDERS["verify"]:
        if failure.member != "signature":
            assert local.post("/verify", broken(body, kids, (failure,))).refusal == failure.refusal


def test_a_bad_mac_is_the_last_thing_that_counts(
    local: Api, kids: Mapping[Kid, str], valid: Mapping[str, Mapping[str, Any]]
) -> None:
    body = {**valid["mac"], "mac": ""}
    assert local.ok("/mac", body)["valid"] is False
    for failure in ORDERS["mac"]:
        if failure.member != "mac":
            assert local.post("/mac", broken(body, kids, (failure,))).refusal == failure.refusal
