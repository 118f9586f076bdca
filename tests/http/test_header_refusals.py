"""What is refused of a caller's header, in which words, and that nothing is made of it."""

import hashlib
import itertools
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.shared.api import Api, b64u, header
from tests.shared.chains import chain_for, der, der_of_no_version, public_key, x5c
from tests.shared.injector import Injector

BAD_REQUEST = (400, "bad_request")
UNSUPPORTED = (422, "unsupported_algorithm")
CRYPTO_FAILURE = (422, "crypto_failure")
DATA = b64u("data")
KEYS: Mapping[str, Mapping[str, str]] = {
    "own": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    "other": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    "RSA": {"kty": "RSA", "alg": "PS256"},
}
RECIPIENTS: Mapping[str, Mapping[str, str]] = {
    "own": {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES"},
    "other": {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES"},
    "RSA": {"kty": "RSA", "alg": "RSA-OAEP"},
}
MAKING = ("C_Sign", "C_Encrypt", "C_WrapKey", "C_GenerateKey", "C_DeriveKey")


class Known:
    """What the cases are made of: kids, public keys and certificates of ``keys``."""

    def __init__(self, api: Api, keys: Mapping[str, Mapping[str, str]]) -> None:
        made = {name: api.create(**members) for name, members in keys.items()}
        self.kid = {name: key["kid"] for name, key in made.items()}
        self.kid_public = {name: key["kid_public"] for name, key in made.items()}
        self.jwk = {name: api.get(f"/keys/{kid}").body["jwk"] for name, kid in self.kid.items()}
        self.chain = {name: chain_for(public_key(api, kid)) for name, kid in self.kid.items()}
        self.x5c = {name: x5c(chain) for name, chain in self.chain.items()}

    def thumbprint(self, name: str, hashed: Callable[[bytes], Any] = hashlib.sha256) -> str:
        return b64u(hashed(der(self.chain[name][0])).digest())


@pytest.fixture(scope="module")
def known(local: Api) -> Known:
    return Known(local, KEYS)


Members = Callable[[Known], dict[str, Any]]
Case = tuple[Members, tuple[int, str], str]
"""Members of the header, the answer, and what its description says."""


def just(**members: Any) -> Members:
    return lambda _known: members


ANOTHER = "does not name this key"
CERTIFYING: Mapping[str, tuple[Members, str]] = {
    "x5c of another key": (lambda known: {"x5c": known.x5c["other"]}, "'x5c'"),
    "x5c of a key of another type": (lambda known: {"x5c": known.x5c["RSA"]}, "'x5c'"),
    "x5c with its own certificate second": (
        lambda known: {"x5c": [known.x5c["other"][0], known.x5c["own"][0]]},
        "'x5c'",
    ),
    "x5c in base64url": (
        lambda known: {"x5c": [b64u(der(known.chain["own"][0])) + "_-"]},
        "'x5c'",
    ),
    "x5c that is no certificate": (just(x5c=["AAAA"]), "'x5c'"),
    "x5c of a version that there is not": (
        lambda known: {"x5c": [b64encode(der_of_no_version(known.chain["own"][0])).decode()]},
        "'x5c'",
    ),
    "x5c that is not base64": (just(x5c=["?"]), "'x5c'"),
    "x5t#S256 of another certificate": (
        lambda known: {"x5c": known.x5c["own"], "x5t#S256": known.thumbprint("other")},
        "'x5t#S256'",
    ),
    "x5t#S256 of nothing": (lambda known: {"x5t#S256": known.thumbprint("own")}, "'x5t#S256'"),
    "x5t#S256 that is an x5t": (
        lambda known: {"x5c": known.x5c["own"], "x5t#S256": known.thumbprint("own", hashlib.sha1)},
        "'x5t#S256'",
    ),
    "x5t of another certificate": (
        lambda known: {
            "x5c": known.x5c["own"],
            "x5t": known.thumbprint("other", hashlib.sha1),
        },
        "'x5t'",
    ),
    "x5t of nothing": (lambda known: {"x5t": known.thumbprint("own", hashlib.sha1)}, "'x5t'"),
}


def in_own_jwk(members: Members) -> Members:
    return lambda known: {"jwk": {**known.jwk["own"], **members(known)}}


FOREIGN: Mapping[str, Case] = {
    **{
        title: (members, CRYPTO_FAILURE, f"{name} {ANOTHER}")
        for title, (members, name) in CERTIFYING.items()
    },
    **{
        f"jwk with {title}": (in_own_jwk(members), CRYPTO_FAILURE, f"{name} {ANOTHER}")
        for title, (members, name) in CERTIFYING.items()
    },
    "kid of another key": (
        lambda known: {"kid": known.kid["other"]},
        CRYPTO_FAILURE,
        f"'kid' {ANOTHER}",
    ),
    "kid of another public half": (
        lambda known: {"kid": known.kid_public["other"]},
        CRYPTO_FAILURE,
        f"'kid' {ANOTHER}",
    ),
    "kid of nobody": (just(kid="theirs"), CRYPTO_FAILURE, f"'kid' {ANOTHER}"),
    "empty kid": (just(kid=""), CRYPTO_FAILURE, f"'kid' {ANOTHER}"),
    "kid in upper case": (
        lambda known: {"kid": known.kid["own"].upper()},
        CRYPTO_FAILURE,
        f"'kid' {ANOTHER}",
    ),
    "jwk of another key": (
        lambda known: {"jwk": known.jwk["other"]},
        CRYPTO_FAILURE,
        f"'jwk' {ANOTHER}",
    ),
    "jwk of another type": (
        lambda known: {"jwk": known.jwk["RSA"]},
        CRYPTO_FAILURE,
        f"'jwk' {ANOTHER}",
    ),
    "jwk with one coordinate of another": (
        lambda known: {"jwk": known.jwk["own"] | {"y": known.jwk["other"]["y"]}},
        CRYPTO_FAILURE,
        f"'jwk' {ANOTHER}",
    ),
    "jwk without a coordinate": (
        lambda known: {
            "jwk": {name: known.jwk["own"][name] for name in known.jwk["own"] if name != "y"}
        },
        CRYPTO_FAILURE,
        f"'jwk' {ANOTHER}",
    ),
    "jwk with a private member": (
        lambda known: {"jwk": known.jwk["own"] | {"d": "AAAA"}},
        CRYPTO_FAILURE,
        f"'jwk' {ANOTHER}",
    ),
    "empty jwk": (just(jwk={}), CRYPTO_FAILURE, f"'jwk' {ANOTHER}"),
}
EXTENDED: Mapping[str, Case] = {
    "crit of nothing": (just(crit=[]), BAD_REQUEST, "'crit' must be"),
    "crit of what is not there": (just(crit=["b64"]), BAD_REQUEST, "'b64' is required"),
    "crit of what everybody knows": (just(crit=["alg"]), BAD_REQUEST, "'crit' must be"),
    "crit of the unknown": (just(crit=["exp"], exp=1), BAD_REQUEST, "'crit' must be"),
    "crit of b64 and more": (
        just(crit=["b64", "exp"], b64=False, exp=1),
        BAD_REQUEST,
        "'crit' must be",
    ),
    "crit of b64 twice": (just(crit=["b64", "b64"], b64=False), BAD_REQUEST, "'crit' must be"),
    "crit that is text": (just(crit="b64", b64=False), BAD_REQUEST, "'crit' must be"),
    "crit that is null": (just(crit=None, b64=False), BAD_REQUEST, "'crit' must be"),
    "crit that is an object": (just(crit={"b64": 1}, b64=False), BAD_REQUEST, "'crit' must be"),
    "b64 false without crit": (just(b64=False), BAD_REQUEST, "'crit' must name 'b64'"),
    "b64 true without crit": (just(b64=True), BAD_REQUEST, "'crit' must name 'b64'"),
    "b64 that is text": (just(crit=["b64"], b64="false"), BAD_REQUEST, "'b64' must be true or"),
    "b64 that is a number": (just(crit=["b64"], b64=0), BAD_REQUEST, "'b64' must be true or"),
    "b64 that is null": (just(crit=["b64"], b64=None), BAD_REQUEST, "'b64' must be true or"),
    "zip": (just(zip="DEF"), BAD_REQUEST, "'zip' is not supported"),
}
MISTYPED: Mapping[str, Case] = {
    **{
        f"{name} that is a number": (just(**{name: 1}), BAD_REQUEST, f"'{name}' must be a string")
        for name in ("kid", "typ", "cty", "jku", "x5u", "x5t", "x5t#S256")
    },
    "jwk that is false": (just(jwk=False), BAD_REQUEST, "'jwk' must be an object"),
    "jwk that is text": (just(jwk="true"), BAD_REQUEST, "'jwk' must be an object"),
    "x5c that is false": (just(x5c=False), BAD_REQUEST, "'x5c' must be an array of strings"),
    "x5c that is text": (just(x5c="AAAA"), BAD_REQUEST, "'x5c' must be an array of strings"),
    "empty x5c": (just(x5c=[]), BAD_REQUEST, "'x5c' must be an array of strings"),
    "x5c of numbers": (just(x5c=[1]), BAD_REQUEST, "'x5c' must be an array of strings"),
}
IN_EITHER: Mapping[str, Case] = {**FOREIGN, **EXTENDED, **MISTYPED}
"""What neither kind of header may hold."""

IN_MEMBERS: Mapping[str, Case] = {
    "alg": (just(alg="ES256"), BAD_REQUEST, "must not hold 'alg'"),
    "alg of another": (just(alg="none"), BAD_REQUEST, "must not hold 'alg'"),
    "x5c without a certificate": (just(x5c=True), CRYPTO_FAILURE, "no certificate"),
    "x5t#S256 without a certificate": (just(**{"x5t#S256": True}), CRYPTO_FAILURE, "no certifi"),
    "x5t to fill in": (just(x5t=True), BAD_REQUEST, "'x5t' must be a string"),
    "8 KiB and a byte": (just(x="x" * (8193 - len('{"x":""}'))), BAD_REQUEST, "8192 bytes"),
    "8 KiB once it is escaped": (just(x="\u00e4" * 1500), BAD_REQUEST, "8192 bytes"),
}
IN_WHOLE: Mapping[str, Case] = {
    "alg of another": (just(alg="ES384"), CRYPTO_FAILURE, "not that of the request"),
    "alg of nobody": (just(alg="none"), UNSUPPORTED, "'none' is not a signature algorithm"),
    "alg of a MAC": (just(alg="HS256"), UNSUPPORTED, "'HS256' is not a signature algorithm"),
    "alg that is a number": (just(alg=256), BAD_REQUEST, "'alg' must be a string"),
    "alg that is null": (just(alg=None), BAD_REQUEST, "'alg' must be a string"),
    "kid that is null": (just(kid=None), BAD_REQUEST, "'kid' must be a string"),
    "jwk to fill in": (just(jwk=True), BAD_REQUEST, "'jwk' must be an object"),
    "x5c to fill in": (just(x5c=True), BAD_REQUEST, "'x5c' must be an array"),
}
NO_HEADERS: Mapping[str, tuple[Any, str]] = {
    "empty": ("", "is not a JSON object"),
    "of an empty object": ("e30", "'alg' is required"),
    "not base64url": ("e30=", "is not valid base64url"),
    "an object": ({"alg": "ES256"}, "must be a string"),
    "a number": (1, "must be a string"),
    "an array": (b64u("[]"), "is not a JSON object"),
    "with duplicates": (b64u('{"alg":"ES256","alg":"ES256"}'), "is not a JSON object"),
    "with duplicates inside": (b64u('{"alg":"ES256","x":{"a":1,"a":1}}'), "is not a JSON object"),
    "with a name escaped twice": (b64u(r'{"alg":"ES256","\u0061lg":"none"}'), "is not a JSON ob"),
    "with NaN": (b64u('{"alg":"ES256","x":NaN}'), "is not a JSON object"),
    "with a lone surrogate": (b64u(r'{"alg":"ES256","x":"\ud800"}'), "is not a JSON object"),
    "with something after it": (b64u('{"alg":"ES256"} {}'), "is not a JSON object"),
    "not UTF-8": (b64u(b'{"alg":"ES256","x":"\xff"}'), "is not a JSON object"),
    "too deep": (b64u('{"alg":"ES256","x":' + "[" * 4000 + "]" * 4000 + "}"), "is not a JSON obj"),
    "of 8 KiB and a byte": (b64u('{"alg":"ES256"}'.ljust(8193)), "at most 8192 bytes"),
}
NO_MEMBERS: Mapping[str, Any] = {
    "text": "e30",
    "a number": 1,
    "an array": [],
    "true": True,
}


IN_JWE: Mapping[str, Case] = {
    **{title: case for title, case in FOREIGN.items() if "kid" not in title},
    **{
        name: (just(**{name: "x"}), BAD_REQUEST, f"must not hold '{name}'")
        for name in ("alg", "enc", "kid", "epk", "apu", "apv", "iv", "tag")
    },
    "kid that is null": (just(kid=None), BAD_REQUEST, "must not hold 'kid'"),
    "crit": (just(crit=["b64"], b64=True), BAD_REQUEST, "'crit' is not supported"),
    "zip": (just(zip="DEF"), BAD_REQUEST, "'zip' is not supported"),
    "b64 false": (just(b64=False), BAD_REQUEST, "'b64' must be true"),
    "8 KiB and a byte": IN_MEMBERS["8 KiB and a byte"],
    "x5c without a certificate": IN_MEMBERS["x5c without a certificate"],
    "jwk that is false": MISTYPED["jwk that is false"],
    "x5c that is text": MISTYPED["x5c that is text"],
}


def refusals_of_encryption(known: Known) -> Iterator[tuple[str, dict[str, Any], Any, str]]:
    """Give bad bodies of /encrypt: for a key of the service, and for one that is brought along."""
    names = {"alg": "ECDH-ES", "enc": "A128GCM", "data": DATA}
    recipients = {"kid": {"kid": known.kid["own"]}, "jwk": {"jwk": known.jwk["own"]}}
    for (to, recipient), (title, case) in itertools.product(recipients.items(), IN_JWE.items()):
        members, answer, text = case
        yield f"to a {to}: {title}", names | recipient | {"header": members(known)}, answer, text


def refusals(known: Known) -> Iterator[tuple[str, dict[str, Any], tuple[int, str], str]]:
    """Give every bad body of /sign, with the answer."""
    sign = {"kid": known.kid["own"], "alg": "ES256", "data": DATA}
    for title, (members, answer, text) in {**IN_EITHER, **IN_MEMBERS}.items():
        yield f"members: {title}", sign | {"header": members(known)}, answer, text
    for title, (members, answer, text) in {**IN_EITHER, **IN_WHOLE}.items():
        whole = {"alg": "ES256", **members(known)}
        yield f"whole: {title}", sign | {"protected": header(**whole)}, answer, text
    for title, (value, text) in NO_HEADERS.items():
        yield f"whole: {title}", sign | {"protected": value}, BAD_REQUEST, text
    for title, value in NO_MEMBERS.items():
        yield f"members: {title}", sign | {"header": value}, BAD_REQUEST, "must be an object"
    protected = header(alg="ES256")
    beside: Mapping[str, Any] = {"header": {}, "typ": "JWT", "cty": "JWT"}
    for other, value in beside.items():
        body = sign | {"protected": protected, other: value}
        yield f"whole with {other}", body, BAD_REQUEST, f"'{other}' does not go with 'protected'"
    for name in ("typ", "cty"):
        body = sign | {"header": {name: "a"}, name: "a"}
        yield f"{name} twice", body, BAD_REQUEST, f"'{name}' is in the header, too"
    public = sign | {"kid": known.kid_public["own"]}
    yield "of a public key", public | {"header": {"x": 1}}, CRYPTO_FAILURE, "cannot sign"
    forged = sign | {"kid": known.kid["other"], "header": {"kid": known.kid["own"]}}
    yield "of the other key", forged, CRYPTO_FAILURE, ANOTHER


@pytest.fixture
def made(chaos: Injector) -> Counter[str]:
    """What this thread has the token make."""
    return chaos.count_own(*MAKING)


@pytest.fixture(scope="module")
def cases(known: Known) -> list[Any]:
    return list(refusals(known))


def test_every_refusal_is_exact_and_nothing_is_signed(local, known, cases, made) -> None:
    wrong = []
    for title, body, expected, text in cases:
        answer = local.post("/sign", body)
        if (answer.status, answer.body.get("error")) != expected or (
            text not in answer.body["description"]
        ):
            wrong.append((title, answer.status, answer.body))
    assert not wrong
    assert not any(made.values())
    local.ok("/sign", {"kid": known.kid["own"], "alg": "ES256", "data": DATA, "header": {"x": 1}})
    assert made["C_Sign"]


def test_a_batch_refuses_each_as_it_is_refused_alone(local, cases, made) -> None:
    requests = [{"op": "sign", "body": body} for _title, body, _answer, _text in cases]
    answers = local.ok("/batch", {"requests": requests})["responses"]
    found = [(one["status"], one["body"].get("error")) for one in answers]
    assert found == [expected for _title, _body, expected, _text in cases]
    assert not any(made.values())


def test_there_are_as_many_refusals_as_are_promised_and_none_is_there_twice(cases) -> None:
    bodies = {json.dumps(body, sort_keys=True) for _title, body, _answer, _text in cases}
    assert len(bodies) == len(cases) >= 60


def test_verification_refuses_the_same_extensions_but_for_b64_true(local, known) -> None:
    for title, (members, answer, text) in EXTENDED.items():
        protected = header(alg="ES256", kid=known.kid["own"], **members(known))
        body = {"protected": protected, "data": DATA, "signature": "AAAA"}
        if title == "b64 true without crit":
            assert local.ok("/verify", body)["valid"] is False
        else:
            refused = local.post("/verify", body)
            assert (refused.refusal, text in refused.body["description"]) == (answer, True), title


def test_an_unencoded_compact_jws_has_to_be_detached(local, known) -> None:
    protected = header(alg="ES256", kid=known.kid["own"], b64=False, crit=["b64"])
    refused = local.post("/verify", {"jws": f"{protected}.{DATA}.AAAA"})
    assert refused.refusal == BAD_REQUEST
    assert "must be detached" in refused.body["description"]
    assert local.ok("/verify", {"jws": f"{protected}..AAAA", "data": DATA})["valid"] is False


def test_nothing_is_encrypted_with_a_wrong_header(local, made) -> None:
    known = Known(local, RECIPIENTS)
    cases = list(refusals_of_encryption(known))
    made.clear()
    wrong = []
    for title, body, expected, text in cases:
        answer = local.post("/encrypt", body)
        if (answer.status, answer.body.get("error")) != expected or (
            text not in answer.body["description"]
        ):
            wrong.append((title, answer.status, answer.body))
    assert not wrong
    assert not any(made.values())
    assert len(cases) >= 60
