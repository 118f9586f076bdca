"""Key wrapping and key agreement, both directions, with jwcrypto, joserfc and jose (Node.js).

All messages of a library are made and opened in one go: Node.js takes a while to start.
"""

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jwcrypto.jwk
import pytest
from joserfc.errors import JoseError

import hsm
from scripts.throwaway import ROOT
from tests.http.test_interoperation import PEERS, UNKNOWN_TO_PEERS, Peer, public_half
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.bodies import TRANSPORTS, body_of, crvs_of
from tests.shared.waiting import COMMAND

Jwk = dict[str, str]

MESSAGE = b"It\xe2\x80\x99s a dangerous business, Frodo, going out your door."
AAD = b"The Fellowship of the Ring"
PARTS = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
APU, APV = b64u("Alice"), b64u(b"Bob\0\xff")


class Case(NamedTuple):
    """A key of an algorithm, which both sides have, and what is sent with it."""

    kid: str
    key: Jwk
    alg: str
    enc: str
    is_full: bool
    """With ``aad`` and, where there are any, ``apu`` and ``apv``."""

    @property
    def party_info(self) -> dict[str, str]:
        is_agreed = self.alg in hsm.KEY_AGREEMENTS
        return {"apu": APU, "apv": APV} if self.is_full and is_agreed else {}

    @property
    def aad(self) -> bytes | None:
        return AAD if self.is_full else None


class Library(NamedTuple):
    """What makes flattened JWEs with public or shared keys, and opens them with private ones."""

    encrypt: Callable[[Sequence[Case]], list[dict[str, str]]]
    decrypt: Callable[[Sequence[tuple[Case, Any]]], list[bytes | None]]
    lacks: Collection[str] = ()
    """The algorithms that it does not know."""

    def known(self, cases: Sequence[Case]) -> list[Case]:
        return [case for case in cases if case.alg not in self.lacks]


def of_python(peer: Peer) -> Library:
    def encrypt(cases: Sequence[Case]) -> list[dict[str, str]]:
        return [made(case) for case in cases]

    def made(case: Case) -> dict[str, str]:
        protected = {"alg": case.alg, "enc": case.enc, "kid": case.kid, **case.party_info}
        key = peer.load(sending_half(case.key))
        if case.alg not in hsm.KEY_AGREEMENTS.keys() | hsm.GCM_KEY_WRAPPINGS.keys():
            return peer.encrypt(key, MESSAGE, protected, case.aad)
        # In JSON both put what they add outside of the protected header; without it is no aad.
        return dict(
            zip(PARTS, peer.encrypt_compact(key, MESSAGE, protected).split("."), strict=True)
        )

    refused: tuple[type[Exception], ...] = (JoseError, *peer.refusals)

    def opened(case: Case, jwe: Any) -> bytes | None:
        try:
            return peer.decrypt(peer.load(case.key), jwe, (case.alg, case.enc))
        except refused:
            return None

    return Library(encrypt, lambda pairs: [opened(*pair) for pair in pairs], UNKNOWN_TO_PEERS)


def run_node(tasks: Sequence[Any]) -> Any:
    done = subprocess.run(
        ["node", ROOT / "tests" / "node" / "jwe.js"],
        input="".join(f"{json.dumps(task)}\n" for task in tasks),
        check=True,
        capture_output=True,
        text=True,
        timeout=COMMAND.seconds,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def encrypt_in_node(cases: Sequence[Case]) -> Any:
    return run_node(
        [
            {
                "key": sending_half(case.key),
                "alg": case.alg,
                "protected": {"alg": case.alg, "enc": case.enc, "kid": case.kid},
                "plaintext": b64u(MESSAGE),
                **({"aad": b64u(case.aad)} if case.aad else {}),
                **case.party_info,
            }
            for case in cases
        ]
    )


def decrypt_in_node(pairs: Sequence[tuple[Case, Any]]) -> list[bytes | None]:
    told = run_node([{"key": case.key, "alg": case.alg, "jwe": jwe} for case, jwe in pairs])
    return [unb64u(line["plaintext"]) if "plaintext" in line else None for line in told]


LIBRARIES: Mapping[str, Library] = {
    **{name: of_python(peer) for name, peer in PEERS.items()},
    "jose": Library(encrypt_in_node, decrypt_in_node),
}


def sending_half(key: Jwk) -> Jwk:
    return key if key["kty"] == "oct" else public_half(key)


def generated(alg: str, crv: str | None) -> Jwk:
    body = body_of(alg, crv)
    bits = {} if crv else {"size": 8 * hsm.KEY_MANAGEMENTS[alg].smallest_bytes or 2048}
    kind = {"crv": crv} if crv else {}
    return jwcrypto.jwk.JWK.generate(kty=body["kty"], **bits, **kind).export(as_dict=True)


def every_key() -> Iterator[tuple[str, str | None]]:
    for alg in TRANSPORTS:
        is_elsewhere = hsm.KEY_MANAGEMENTS[alg].kind.name == "RSA" and alg not in UNKNOWN_TO_PEERS
        for crv in () if is_elsewhere else crvs_of(alg) or (None,):
            yield alg, crv


@pytest.fixture(scope="module", params=["half", pytest.param("all", marks=pytest.mark.long)])
def cases(request: pytest.FixtureRequest, local: Api) -> Iterator[list[Case]]:
    """A key of each alg on each curve, with each enc, with everything and with nothing.

    Half the encs of a key have everything, and of the next key the others; in the long form all.
    """
    keys = []
    for alg, crv in every_key():
        key = generated(alg, crv)
        keys.append((local.create(**{**key, "alg": alg})["kid"], key, alg))
    every = itertools.product(enumerate(keys), enumerate(hsm.CONTENT_ENCRYPTIONS), (False, True))
    yield [
        Case(kid, key, alg, enc, is_full)
        for (row, (kid, key, alg)), (column, enc), is_full in every
        if request.param == "all" or (row + column) % 2 == is_full
    ]
    for kid, *_ in keys:
        assert local.delete(kid).status == 204


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    if request.param == "jose" and shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    return LIBRARIES[request.param]


def encrypted(api: Api, case: Case) -> dict[str, str]:
    request = {"kid": case.kid, "alg": case.alg, "enc": case.enc, "data": b64u(MESSAGE)}
    jwe = api.ok("/encrypt", request | case.party_info | ({"aad": b64u(AAD)} if case.aad else {}))
    # A member that is empty must be absent in the JSON serialization (RFC 7516 §7.2.1).
    return {name: value for name, value in jwe.items() if value}


def test_a_library_opens_what_the_service_makes(
    library: Library, cases: list[Case], local: Api
) -> None:
    made = [(case, encrypted(local, case)) for case in library.known(cases)]
    assert library.decrypt(made) == [MESSAGE] * len(made)
    spoiled = [(case, jwe | {"tag": b64u(bytes(16))}) for case, jwe in made[::7]]
    assert library.decrypt(spoiled) == [None] * len(spoiled)


def test_the_service_opens_what_a_library_makes(
    library: Library, cases: list[Case], local: Api
) -> None:
    opened, cases = {"kid": "", "data": b64u(MESSAGE)}, library.known(cases)
    made = library.encrypt(cases)
    answers = [local.ok("/decrypt", jwe) for jwe in made]
    assert answers == [opened | {"kid": case.kid} for case in cases]
    for case, jwe in zip(cases[::7], made[::7], strict=True):
        members = json.loads(unb64u(jwe["protected"]))
        assert {name: members.get(name) for name in case.party_info} == case.party_info
        other = jwe | {"protected": header(**members, more="")}
        assert local.post("/decrypt", other).refusal == (422, "decryption_failed")
