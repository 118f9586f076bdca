"""Both directions with jwcrypto and joserfc: what one side makes, the other accepts, bit by bit.

The peers do all of JOSE themselves. They get a detached JWS as ``protected.payload.signature``.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, cast
from uuid import UUID

import jwcrypto.jwe
import jwcrypto.jwk
import jwcrypto.jws
import pytest
from cryptography.exceptions import InvalidTag
from joserfc import jwe, jwk, jws
from joserfc.errors import JoseError

import hsm
from app.service import service_of
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.bodies import ML_DSA, RSA_TRANSPORTS, free_body_of

# The alg "EdDSA" has a successor, "Ed25519" (RFC 9864); joserfc says so at each use.
pytestmark = pytest.mark.filterwarnings(
    "ignore:EdDSA is deprecated via RFC 9864:joserfc.errors.SecurityWarning"
)

Jwk = dict[str, Any]
Jwe = dict[str, Any]

MESSAGE = b"It\xe2\x80\x99s a dangerous business, Frodo, going out your door."
AAD = b"The Fellowship of the Ring"

UNKNOWN_TO_PEERS = {"RSA-OAEP-384", "RSA-OAEP-512"}
"""What only ``jose`` knows: see ``tests/token/test_key_management.py``."""

# ML-DSA is on no packaged SoftHSM, and the peers know it by its final name only.
SIGNATURES = [alg for alg in hsm.SIGNATURES if alg not in ML_DSA]


class Peer(ABC):
    """A JOSE library. ``refusals`` is what it raises for what is not authentic."""

    refusals: ClassVar[tuple[type[Exception], ...]]

    @staticmethod
    @abstractmethod
    def generate(kty: str, crv: str | None = None, bits: int = 2048) -> Jwk: ...

    @staticmethod
    @abstractmethod
    def load(key: Jwk) -> Any: ...

    @staticmethod
    @abstractmethod
    def sign(key: Any, payload: bytes, protected: dict[str, str]) -> str: ...

    @staticmethod
    @abstractmethod
    def verify(key: Any, compact: str, alg: str) -> bytes: ...

    @staticmethod
    @abstractmethod
    def encrypt(
        key: Any, plaintext: bytes, protected: dict[str, str], aad: bytes | None
    ) -> Jwe: ...

    @staticmethod
    @abstractmethod
    def encrypt_compact(key: Any, plaintext: bytes, protected: dict[str, str]) -> str: ...

    @staticmethod
    @abstractmethod
    def decrypt(key: Any, message: Jwe, algs: tuple[str, str]) -> bytes: ...


class Jwcrypto(Peer):
    refusals = (jwcrypto.jws.InvalidJWSSignature, jwcrypto.jwe.InvalidJWEData)

    @staticmethod
    def generate(kty: str, crv: str | None = None, bits: int = 2048) -> Jwk:
        parameters = {"crv": crv} if crv else {"size": bits}
        return jwcrypto.jwk.JWK.generate(kty=kty, **parameters).export(as_dict=True)

    @staticmethod
    def load(key: Jwk) -> jwcrypto.jwk.JWK:
        return jwcrypto.jwk.JWK(**key)

    @staticmethod
    def sign(key: Any, payload: bytes, protected: dict[str, str]) -> str:
        message = jwcrypto.jws.JWS(payload)
        message.add_signature(key, protected=json.dumps(protected))
        return message.serialize(compact=True)

    @staticmethod
    def verify(key: Any, compact: str, alg: str) -> bytes:
        message = jwcrypto.jws.JWS()
        message.allowed_algs = [alg]
        message.deserialize(compact, key)
        return message.payload

    @staticmethod
    def encrypt(key: Any, plaintext: bytes, protected: dict[str, str], aad: bytes | None) -> Jwe:
        message = jwcrypto.jwe.JWE(plaintext, protected, aad=aad, recipient=key)
        return json.loads(message.serialize())

    @staticmethod
    def encrypt_compact(key: Any, plaintext: bytes, protected: dict[str, str]) -> str:
        algs = [protected["alg"], protected["enc"]]
        message = jwcrypto.jwe.JWE(plaintext, protected, recipient=key, algs=algs)
        return message.serialize(compact=True)

    @staticmethod
    def decrypt(key: Any, message: Jwe, algs: tuple[str, str]) -> bytes:
        opened = jwcrypto.jwe.JWE(algs=list(algs))
        opened.deserialize(json.dumps(message), key)
        return opened.payload


class Joserfc(Peer):
    refusals = (JoseError, InvalidTag, ValueError)

    @staticmethod
    def generate(kty: str, crv: str | None = None, bits: int = 2048) -> Jwk:
        generate: Callable[..., jwk.Key] = jwk.generate_key  # it has types for literals alone
        return generate(kty, crv or bits).as_dict(private=True)

    @staticmethod
    def load(key: Jwk) -> jwk.Key:
        return jwk.import_key(key)

    @staticmethod
    def sign(key: Any, payload: bytes, protected: dict[str, str]) -> str:
        algs = [protected["alg"]]
        return jws.serialize_compact(protected, payload, key, algorithms=algs)

    @staticmethod
    def verify(key: Any, compact: str, alg: str) -> bytes:
        return jws.deserialize_compact(compact, key, algorithms=[alg]).payload

    @staticmethod
    def encrypt(key: Any, plaintext: bytes, protected: dict[str, str], aad: bytes | None) -> Jwe:
        message = jwe.FlattenedJSONEncryption(protected, plaintext, aad=aad)
        message.add_recipient({})
        algs = [protected["alg"], protected["enc"]]
        return dict(jwe.encrypt_json(message, key, algorithms=algs))

    @staticmethod
    def encrypt_compact(key: Any, plaintext: bytes, protected: dict[str, str]) -> str:
        algs = [protected["alg"], protected["enc"]]
        return jwe.encrypt_compact(protected, plaintext, key, algorithms=algs)

    @staticmethod
    def decrypt(key: Any, message: Jwe, algs: tuple[str, str]) -> bytes:
        flattened = cast("jwe.FlattenedJSONSerialization", message)
        opened = jwe.decrypt_json(flattened, key, algorithms=algs)
        assert opened.plaintext is not None
        return opened.plaintext


PEERS = {"jwcrypto": Jwcrypto(), "joserfc": Joserfc()}

every_peer = pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
every_signature = pytest.mark.parametrize("alg", SIGNATURES)
every_mac = pytest.mark.parametrize("alg", hsm.MACS)
every_enc = pytest.mark.parametrize("enc", hsm.CONTENT_ENCRYPTIONS)
every_transport = pytest.mark.parametrize("alg", sorted({*RSA_TRANSPORTS} - UNKNOWN_TO_PEERS))
with_and_without_aad = pytest.mark.parametrize("aad", [None, AAD], ids=["no-aad", "aad"])


def loaded(peer: Peer, key: Jwk) -> Any:
    """Return ``key`` as ``peer`` has it, which checks one of RSA once: that takes long."""
    return _loaded(peer, json.dumps(key))


@cache
def _loaded(peer: Peer, key: str) -> Any:
    return peer.load(json.loads(key))


class Service:
    """The live service, and its keys: each made once, of RSA one for all algorithms."""

    def __init__(self, live: Api, application: Any) -> None:
        self.api = live
        self.adapter: hsm.Hsm = service_of(application).hsm
        registry = service_of(application).registry
        self._find = registry.find
        self._keys: dict[tuple[Peer, str, str | None], Jwk] = {}
        self._kids: dict[tuple[Peer, str, str | None], str] = {}

    def generated(self, alg: str) -> tuple[str, Jwk]:
        """Return the kid of a generated pair, and the public key that its row has."""
        kid = self.api.shared(**free_body_of(alg))["kid"]
        found = self._find(UUID(kid))
        assert found
        assert found.public_jwk
        return kid, dict(found.public_jwk)

    def shared(self, peer: Peer, alg: str) -> tuple[str, Jwk]:
        """Return the kid of a private key that ``peer`` has made, and the key."""
        body = free_body_of(alg)
        kty, crv, bound = body["kty"], body.get("crv"), body.get("alg")
        if (peer, kty, crv) not in self._keys:
            self._keys[peer, kty, crv] = peer.generate(kty, crv)
        key = self._keys[peer, kty, crv]
        if (peer, kty, bound) not in self._kids:
            self._kids[peer, kty, bound] = self.imported(key, bound)
        return self._kids[peer, kty, bound], key

    def imported(self, key: Jwk, alg: str | None) -> str:
        """Import ``key`` for ``alg``, or for all of its kind; return its kid."""
        return self.api.create(**{**key, "alg": alg})["kid"]


@pytest.fixture(scope="module")
def service(live: Api, application: Any) -> Service:
    return Service(live, application)


def public_half(key: Jwk) -> Jwk:
    return {name: key[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in key}


def flipped(text: str) -> str:
    """Return base64url text with one bit in the middle of its bytes changed."""
    octets = bytearray(unb64u(text))
    octets[len(octets) // 2] ^= 0x10
    return b64u(bytes(octets))


# --- Signatures ---


def assert_peer_verifies(peer: Peer, key: Jwk, alg: str, parts: tuple[str, str, str]) -> None:
    protected, payload, signature = parts
    own = loaded(peer, key)
    assert peer.verify(own, f"{protected}.{payload}.{signature}", alg) == unb64u(payload)
    with pytest.raises(peer.refusals):
        peer.verify(own, f"{protected}.{flipped(payload)}.{signature}", alg)
    with pytest.raises(peer.refusals):
        peer.verify(own, f"{protected}.{payload}.{flipped(signature)}", alg)


def signed(service: Service, kid: str, alg: str) -> tuple[str, str, str]:
    data = b64u(MESSAGE)
    detached = service.api.ok("/sign", {"kid": kid, "alg": alg, "data": data})
    return detached["protected"], data, detached["signature"]


def is_accepted(service: Service, kid: str, parts: tuple[str, str, str]) -> bool:
    body = dict(zip(("protected", "data", "signature"), parts, strict=True))
    answer = service.api.ok("/verify", body)
    assert answer["kid"] == kid
    return answer["valid"]


def assert_service_verifies(service: Service, kid: str, compact: str) -> None:
    protected, payload, signature = compact.split(".")
    assert is_accepted(service, kid, (protected, payload, signature))
    assert not is_accepted(service, kid, (protected, flipped(payload), signature))
    assert not is_accepted(service, kid, (protected, payload, flipped(signature)))


@every_peer
@every_signature
def test_a_peer_verifies_what_a_generated_key_signs(alg: str, peer: Peer, service: Service) -> None:
    kid, public = service.generated(alg)
    assert_peer_verifies(peer, public, alg, signed(service, kid, alg))


@every_peer
@every_signature
def test_a_peer_verifies_what_its_own_key_signs_in_the_service(
    alg: str, peer: Peer, service: Service
) -> None:
    kid, key = service.shared(peer, alg)
    assert_peer_verifies(peer, public_half(key), alg, signed(service, kid, alg))


@every_peer
@every_signature
def test_the_service_verifies_what_a_peer_signs(alg: str, peer: Peer, service: Service) -> None:
    kid, key = service.shared(peer, alg)
    compact = peer.sign(loaded(peer, key), MESSAGE, {"alg": alg, "kid": kid})
    assert_service_verifies(service, kid, compact)


# --- MAC ---


@every_peer
@every_mac
def test_a_peer_verifies_what_the_service_macs(alg: str, peer: Peer, service: Service) -> None:
    key = peer.generate("oct", bits=8 * hsm.MACS[alg].mac_bytes)
    kid = service.imported(key, alg)
    protected, payload = header(alg=alg, kid=kid), b64u(MESSAGE)
    signing_input = b64u(f"{protected}.{payload}")
    mac = service.api.ok("/mac", {"kid": kid, "alg": alg, "data": signing_input})["mac"]
    assert_peer_verifies(peer, key, alg, (protected, payload, mac))


@every_peer
@every_mac
def test_the_service_verifies_what_a_peer_macs(alg: str, peer: Peer, service: Service) -> None:
    key = peer.generate("oct", bits=8 * hsm.MACS[alg].mac_bytes)
    kid = service.imported(key, alg)
    compact = peer.sign(loaded(peer, key), MESSAGE, {"alg": alg, "kid": kid})
    signing_input, _, mac = compact.rpartition(".")
    request = {"kid": kid, "alg": alg, "data": b64u(signing_input), "mac": mac}
    assert service.api.ok("/mac", request)["valid"]
    for name in ("data", "mac"):
        corrupted = request | {name: flipped(request[name])}
        assert not service.api.ok("/mac", corrupted)["valid"]


# --- Batches, of which a series is made with calls of its own ---


def batch(service: Service, op: str, bodies: list[Any]) -> list[Any]:
    """Return what is answered to ``bodies``, all of which are good."""
    requests = [{"op": op, "body": body} for body in bodies]
    answers = service.api.ok("/batch", {"requests": requests})["responses"]
    assert {answer["status"] for answer in answers} == {200}
    return [answer["body"] for answer in answers]


def payloads() -> list[str]:
    return [b64u(MESSAGE * number) for number in (0, 1, 100)]


@every_peer
@every_signature
def test_a_peer_verifies_what_a_batch_signs(alg: str, peer: Peer, service: Service) -> None:
    kid, public = service.generated(alg)
    made = batch(service, "sign", [{"kid": kid, "alg": alg, "data": data} for data in payloads()])
    for jws_made, data in zip(made[1:], payloads()[1:], strict=True):
        parts = (jws_made["protected"], data, jws_made["signature"])
        assert_peer_verifies(peer, public, alg, parts)


@every_mac
def test_a_batch_makes_and_verifies_the_macs_that_are_made_alone(
    alg: str, service: Service
) -> None:
    kid = service.api.shared(kty="oct", alg=alg)["kid"]
    bodies = [{"kid": kid, "alg": alg, "data": data} for data in payloads()]
    assert batch(service, "mac", bodies) == [service.api.ok("/mac", body) for body in bodies]
    jwss = [body | {"serialization": "compact"} for body in bodies]
    assert all(one["valid"] for one in batch(service, "verify", batch(service, "mac", jwss)))


@every_enc
def test_a_batch_opens_what_is_encrypted_alone_and_the_other_way_round(
    enc: str, service: Service
) -> None:
    kid = service.api.shared(kty="oct", alg=enc)["kid"]
    bodies = [{"kid": kid, "alg": "dir", "enc": enc, "data": data} for data in payloads()]
    opened = [
        service.api.ok("/decrypt", jwe_made) for jwe_made in batch(service, "encrypt", bodies)
    ]
    alone = [service.api.ok("/encrypt", body) for body in bodies]
    assert [one["data"] for one in opened] == payloads()
    assert batch(service, "decrypt", alone) == opened


# --- Encryption ---


def corruptions(message: Jwe) -> list[Jwe]:
    """Return ``message`` with one bit flipped in each member that has bits, but the header."""
    parts = ("encrypted_key", "iv", "ciphertext", "tag", "aad")
    corrupted = [message | {name: flipped(message[name])} for name in parts if message.get(name)]
    assert len(corrupted) >= 3
    return corrupted


def encrypted(service: Service, kid: str, algs: tuple[str, str], aad: bytes | None) -> Jwe:
    alg, enc = algs
    request = {"kid": kid, "alg": alg, "enc": enc, "data": b64u(MESSAGE)}
    return service.api.ok("/encrypt", request | ({} if aad is None else {"aad": b64u(aad)}))


def assert_peer_decrypts(peer: Peer, key: Jwk, algs: tuple[str, str], message: Jwe) -> None:
    # A member that is empty must be absent in the JSON serialization (RFC 7516 §7.2.1).
    message = {name: value for name, value in message.items() if value}
    own = loaded(peer, key)
    assert peer.decrypt(own, message, algs) == MESSAGE
    for corrupted in corruptions(message):
        with pytest.raises(peer.refusals):
            peer.decrypt(own, corrupted, algs)


def assert_service_decrypts(service: Service, kid: str, message: Jwe) -> None:
    assert service.api.ok("/decrypt", message) == {"kid": kid, "data": b64u(MESSAGE)}
    for corrupted in corruptions(message):
        assert service.api.post("/decrypt", corrupted).refusal == (422, "decryption_failed")


def secret_of(peer: Peer, enc: str) -> Jwk:
    return peer.generate("oct", bits=8 * hsm.CONTENT_ENCRYPTIONS[enc].key_bytes)


@every_peer
@every_enc
@with_and_without_aad
def test_a_peer_decrypts_what_the_service_encrypts_directly(
    enc: str, aad: bytes | None, peer: Peer, service: Service
) -> None:
    key = secret_of(peer, enc)
    algs = (hsm.DIRECT, enc)
    message = encrypted(service, service.imported(key, enc), algs, aad)
    assert_peer_decrypts(peer, key, algs, message)


@every_peer
@every_enc
@with_and_without_aad
def test_the_service_decrypts_what_a_peer_encrypts_directly(
    enc: str, aad: bytes | None, peer: Peer, service: Service
) -> None:
    key = secret_of(peer, enc)
    kid = service.imported(key, enc)
    protected = {"alg": hsm.DIRECT, "enc": enc, "kid": kid}
    message = peer.encrypt(peer.load(key), MESSAGE, protected, aad)
    assert_service_decrypts(service, kid, message)


@every_peer
@every_transport
@every_enc
@with_and_without_aad
def test_a_peer_decrypts_what_the_service_encrypts_to_its_key(
    alg: str, enc: str, aad: bytes | None, peer: Peer, service: Service
) -> None:
    kid, key = service.shared(peer, alg)
    message = encrypted(service, kid, (alg, enc), aad)
    assert_peer_decrypts(peer, key, (alg, enc), message)


@every_peer
@every_transport
@every_enc
@with_and_without_aad
def test_the_service_decrypts_what_a_peer_encrypts_to_a_generated_key(
    alg: str, enc: str, aad: bytes | None, peer: Peer, service: Service
) -> None:
    kid, public = service.generated(alg)
    protected = {"alg": alg, "enc": enc, "kid": kid}
    message = peer.encrypt(peer.load(public), MESSAGE, protected, aad)
    assert_service_decrypts(service, kid, message)


@every_peer
@every_transport
@every_enc
def test_the_service_decrypts_with_an_imported_key_what_its_maker_encrypts(
    alg: str, enc: str, peer: Peer, service: Service
) -> None:
    kid, key = service.shared(peer, alg)
    protected = {"alg": alg, "enc": enc, "kid": kid}
    message = peer.encrypt(peer.load(public_half(key)), MESSAGE, protected, AAD)
    assert_service_decrypts(service, kid, message)


@every_peer
@every_transport
@every_enc
def test_the_service_keeps_the_cek_that_a_peer_made(
    alg: str, enc: str, peer: Peer, service: Service
) -> None:
    kid, public = service.generated(alg)
    protected = {"alg": alg, "enc": enc, "kid": kid}
    message = peer.encrypt(peer.load(public), MESSAGE, protected, None)
    request = {name: message[name] for name in ("protected", "encrypted_key")}
    unwrapped = UUID(service.api.ok("/keys/unwrap", request)["kid"])
    cek = hsm.KeyRef(kid=unwrapped, spec=hsm.KeySpec(kty="oct", alg=enc))
    # At the adapter: the header of the peer's message names the pair, not the CEK.
    sealed = hsm.Sealed(*(unb64u(message[name]) for name in ("iv", "ciphertext", "tag")))
    aad = message["protected"].encode()
    assert service.adapter.decrypt(cek, hsm.DIRECT, enc, b"", sealed, aad) == MESSAGE
