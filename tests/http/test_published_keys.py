"""Whoever knows the URL of the published keys verifies what the service signs, in any library."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

import jwcrypto.jwk
import jwcrypto.jws
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwk, jws
from joserfc.errors import JoseError
from jwcrypto.common import JWException

from app import compact_json
from app.config import Config
from app.jwk import write_public
from app.keys.description import public_jwk
from app.registry import Key, Origin, Residency
from hsm import KeySpec
from scripts.throwaway import ROOT
from tests.shared.api import Api, b64u, unb64u
from tests.shared.callers import Callers
from tests.shared.waiting import ANSWER, COMMAND

# The alg "EdDSA" has a successor, "Ed25519" (RFC 9864); joserfc says so at each use.
pytestmark = pytest.mark.filterwarnings(
    "ignore:EdDSA is deprecated via RFC 9864:joserfc.errors.SecurityWarning"
)

PATH = "/.well-known/jwks.json"
MESSAGE = b"It\xe2\x80\x99s a dangerous business, Frodo, going out your door."
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGS: Mapping[str, dict[str, str]] = {
    **{alg: {"kty": "RSA"} for alg in RSA},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "ES384": {"kty": "EC", "crv": "P-384"},
    "ES512": {"kty": "EC", "crv": "P-521"},
    "ES256K": {"kty": "EC", "crv": "secp256k1"},
    "EdDSA": {"kty": "OKP"},
    "Ed25519": {"kty": "OKP"},
}

Payloads = list[bytes | None]
"""What was signed; ``None`` for what does not verify."""


def fetched(url: str) -> Any:
    return requests.get(url, timeout=ANSWER.seconds).json()


def by_joserfc(url: str, signed: Sequence[str]) -> Payloads:
    keys = jwk.KeySet.import_key_set(fetched(url))

    def payload(compact: str) -> bytes | None:
        try:
            return jws.deserialize_compact(compact, keys, algorithms=list(ALGS)).payload
        except (JoseError, ValueError):
            return None

    return [payload(compact) for compact in signed]


def by_jwcrypto(url: str, signed: Sequence[str]) -> Payloads:
    keys = jwcrypto.jwk.JWKSet.from_json(json.dumps(fetched(url)))

    def payload(compact: str) -> bytes | None:
        message = jwcrypto.jws.JWS()
        message.allowed_algs = list(ALGS)
        message.deserialize(compact)
        key = keys.get_key(message.jose_header["kid"])
        try:
            message.verify(key)
        except (JWException, TypeError):  # the latter without a key
            return None
        return message.payload

    return [payload(compact) for compact in signed]


def by_jose(node: "subprocess.Popen[str]", url: str, signed: Sequence[str]) -> Payloads:
    assert node.stdin
    assert node.stdout
    print(json.dumps({"url": url, "signed": signed}), file=node.stdin, flush=True)
    limit = threading.Timer(COMMAND.seconds, node.kill)
    limit.start()
    told = json.loads(node.stdout.readline())
    limit.cancel()
    assert all(one.get("refused") in REFUSALS for one in told if "payload" not in one), told
    return [unb64u(one["payload"]) if "payload" in one else None for one in told]


REFUSALS = {"ERR_JWKS_NO_MATCHING_KEY", "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"}
LIBRARIES: Mapping[str, Callable[[str, Sequence[str]], Payloads]] = {
    "joserfc": by_joserfc,
    "jwcrypto": by_jwcrypto,
}


@pytest.fixture(scope="module")
def node() -> Iterator["subprocess.Popen[str]"]:
    """A process that verifies in jose: most of what one costs is its start."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    command = ["node", str(ROOT / "tests" / "node" / "verify.js")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@pytest.fixture(params=[*LIBRARIES, "jose"])
def verified(request: Any, callers: Callers) -> Callable[[Sequence[str]], Payloads]:
    """Verify with what the live service publishes now, in each library."""
    if request.param in LIBRARIES:
        library = LIBRARIES[request.param]
    else:
        library = partial(by_jose, request.getfixturevalue("node"))
    return lambda signed: library(callers.url + PATH, signed)


def test_the_set_is_not_too_big_for_any_library_by_default():
    numbers = rsa.RSAPublicNumbers(65537, 2**4096 - 1)
    key = Key(
        kid=uuid4(),
        kid_public=uuid4(),
        owner="anonymous",
        spec=KeySpec(kty="RSA", alg="RS256", bits=4096),
        origin=Origin.GENERATED,
        residency=Residency.TOKEN,
        public_jwk=write_public(numbers.public_key()),
    )
    most = Config.jwks_keys  # by default
    assert len(compact_json.dumps({"keys": [public_jwk(key)] * most})) < 50 * 1024


def signed(api: Api, kid: str, alg: str, message: bytes = MESSAGE) -> str:
    """Return a compact JWS (RFC 7515 §3.1) of what ``/sign`` gives apart."""
    data = b64u(message)
    made = api.ok("/sign", {"kid": kid, "alg": alg, "data": data})
    return f"{made['protected']}.{data}.{made['signature']}"


def spoiled(compact: str) -> str:
    protected, _, signature = compact.split(".")
    return f"{protected}.{b64u(MESSAGE + b'!')}.{signature}"


def test_every_signature_verifies_and_no_other_message(callers, verified):
    alice = callers.alice
    rsa = alice.shared(kty="RSA")["kid"]
    good = [
        signed(alice, rsa if alg in RSA else alice.create(**members, alg=alg)["kid"], alg)
        for alg, members in ALGS.items()
    ]
    assert verified(good) == [MESSAGE] * len(ALGS)
    assert verified([spoiled(compact) for compact in good]) == [None] * len(ALGS)


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "PS256"])
def test_signatures_verify_while_the_signing_key_is_rotated(callers, verified, alg):
    alice, members = callers.alice, {**ALGS[alg], "alg": alg}
    old = alice.create(**members)["kid"]
    before = signed(alice, old, alg, b"before")
    assert verified([before]) == [b"before"]

    new = alice.create(**members)["kid"]
    between = signed(alice, old, alg, b"between")
    after = signed(alice, new, alg, b"after")
    everything = [before, between, after]
    assert verified(everything) == [b"before", b"between", b"after"]

    alice.request("PATCH", f"/keys/{old}", json={"state": "deactivated"})
    refused = alice.post("/sign", {"kid": old, "alg": alg, "data": ""})
    assert refused.refusal == (422, "crypto_failure")
    assert verified(everything) == [b"before", b"between", b"after"]

    alice.request("PATCH", f"/keys/{old}", json={"state": "compromised"})
    assert verified(everything) == [None, None, b"after"]

    assert alice.delete(new).status == 204
    assert verified(everything) == [None, None, None]


def test_what_an_unpublished_key_signs_does_not_verify(callers, verified):
    alice = callers.alice
    pair = alice.create(kty="EC", crv="P-256", alg="ES256")
    compact = signed(alice, pair["kid"], "ES256")
    path = f"/keys/{pair['kid']}/tags"
    alice.request("DELETE", path, json={"tags": ["jwks"]})
    assert verified([compact]) == [None]
    alice.post(path, {"tags": ["jwks"]})
    assert verified([compact]) == [MESSAGE]
