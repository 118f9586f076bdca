"""Keys that were wrapped for the token, and are unwrapped in it."""

import hashlib
import hmac
import os
import time
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import hsm
from app.service import service_of
from hsm import Hsm, KeyRef, KeySpec, Made
from hsm.operations.jwe import OPENINGS
from hsm.operations.timing import FAILURE_SECONDS
from tests.shared.refs import new_ref

pytestmark = pytest.mark.usefixtures("softhsm")

MESSAGE = b"message"
OAEP_SHA1 = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # RSA-OAEP


@cache
def pair(kind: str) -> Any:
    """A private key, made once."""
    if kind.startswith("RSA"):
        return rsa.generate_private_key(65537, int(kind.removeprefix("RSA-")))
    return ec.generate_private_key(hsm.WEIERSTRASS_CURVES[kind])


def der(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


PAIRS = {
    "RS256": ("RSA-2048", KeySpec(kty="RSA", alg="RS256", bits=2048)),
    "RSA-OAEP": ("RSA-2048", KeySpec(kty="RSA", alg="RSA-OAEP", bits=2048)),
    "PS384": ("RSA-3072", KeySpec(kty="RSA", alg="PS384", bits=3072)),
    "any RSA": ("RSA-4096", KeySpec(kty="RSA", bits=4096)),
    "ES256": ("P-256", KeySpec(kty="EC", alg="ES256", crv="P-256")),
    "any P-384": ("P-384", KeySpec(kty="EC", crv="P-384")),
    "ES512": ("P-521", KeySpec(kty="EC", alg="ES512", crv="P-521")),
    "ECDH-ES": ("P-256", KeySpec(kty="EC", alg="ECDH-ES", crv="P-256")),
}
SECRETS = {
    "A128GCM": 16,
    "A256GCM": 32,
    "A256KW": 32,
    "A128GCMKW": 16,
    "HS256": 32,
    "HS512": 200,
}


class Wrapping(NamedTuple):
    """A wrapping key: its name, and what whoever wraps for it has of it."""

    ref: KeyRef
    public: Any

    def wrapped(self, octets: bytes, *, aes: bytes | None = None) -> bytes:
        """Wrap ``octets`` as a peer does that shares no code with the service."""
        aes = os.urandom(32) if aes is None else aes
        return bytes(self.public.encrypt(aes, OAEP_SHA1)) + aes_key_wrap_with_padding(aes, octets)


@pytest.fixture(scope="module")
def wrapping(application: Any) -> Iterator[Wrapping]:
    token: Hsm = service_of(application).hsm
    ref = new_ref(token.imports.wrapping_spec())
    yield Wrapping(ref, token.generate(ref).public)
    token.destroy(ref)


@pytest.fixture
def take(token: Hsm, wrapping: Wrapping) -> Iterator[Any]:
    """What imports a wrapped key, which is gone after the test."""
    taken: list[KeyRef] = []

    def take(spec: KeySpec, octets: bytes, public: Any = None) -> Made:
        taken.append(new_ref(spec))
        return token.imports.take(wrapping.ref, taken[-1], octets, public)

    yield take
    for ref in taken:
        token.destroy(ref)


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_comes_in_and_has_the_public_half_that_it_had(name, token, wrapping, take):
    kind, spec = PAIRS[name]
    key = pair(kind)
    made = take(spec, wrapping.wrapped(der(key)), key.public_key())
    assert made.public == key.public_key()
    assert token.works(made.ref)


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_key_comes_in(name, token, wrapping, take):
    value = os.urandom(SECRETS[name])
    spec = KeySpec(kty="oct", alg=name, bits=8 * len(value))
    ref = take(spec, wrapping.wrapped(value)).ref
    if name in hsm.MACS:
        code = hmac.digest(value, MESSAGE, getattr(hashlib, f"sha{name[2:]}"))
        assert token.mac(ref, name, MESSAGE) == code
    assert token.works(ref)


@pytest.mark.parametrize("aes_bytes", [16, 24, 32])
def test_every_size_of_the_aes_key_will_do(aes_bytes, token, wrapping, take):
    key = pair("P-256")
    octets = wrapping.wrapped(der(key), aes=os.urandom(aes_bytes))
    assert take(PAIRS["ES256"][1], octets, key.public_key()).public == key.public_key()


ES256 = PAIRS["ES256"][1]
AES = os.urandom(32)


def _flipped(octets: bytes, index: int) -> bytes:
    changed = bytearray(octets)
    changed[index] ^= 1
    return bytes(changed)


def _good(wrapping: Wrapping) -> bytes:
    return wrapping.wrapped(der(pair("P-256")), aes=AES)


REFUSED: dict[str, Any] = {
    "a bad padding": lambda w: _flipped(_good(w), 100),
    "a value above the modulus": lambda w: b"\xff" * 384 + _good(w)[384:],
    "another AES key": lambda w: w.wrapped(b"key", aes=bytes(32))[:384] + _good(w)[384:],
    "an AES key of 15 bytes": lambda w: w.public.encrypt(bytes(15), OAEP_SHA1) + _good(w)[384:],
    "a changed key": lambda w: _flipped(_good(w), -1),
    "a changed beginning": lambda w: _flipped(_good(w), 384),
    "a key that is cut": lambda w: _good(w)[:-8],
    "a key that is cut to no multiple of 8": lambda w: _good(w)[:-1],
    "a key that is longer": lambda w: _good(w) + bytes(8),
    "no key": lambda w: _good(w)[:384],
    "less than an AES key": lambda w: _good(w)[:383],
    "nothing": lambda _: b"",
    "another key": lambda w: w.wrapped(der(ec.generate_private_key(ec.SECP256R1()))),
    "a key on another curve": lambda w: w.wrapped(der(pair("P-384"))),
    "a key of another type": lambda w: w.wrapped(der(pair("RSA-2048"))),
    "bytes": lambda w: w.wrapped(bytes(32)),
}


@pytest.mark.parametrize("octets", REFUSED.values(), ids=REFUSED)
def test_what_is_not_the_key_is_refused_with_one_error_and_leaves_nothing(
    octets, token, wrapping, take
):
    before = token.inventory().keys()
    started = time.monotonic()
    with pytest.raises(hsm.WrappedKeyRefused) as refused:
        take(ES256, octets(wrapping), pair("P-256").public_key())
    assert time.monotonic() - started >= FAILURE_SECONDS
    assert str(refused.value) == "The wrapped key cannot be imported"
    assert token.inventory().keys() == before


@pytest.mark.parametrize(
    ("name", "size_bytes", "claimed_bits"),
    [
        ("A256GCM", 16, 128),
        ("A256GCM", 16, 256),
        ("A128GCM", 32, 128),
        ("A256GCM", 31, 256),
        ("A256KW", 31, 256),
        ("HS256", 20, 192),
        ("HS256", 31, 256),
        ("HS512", 32, 256),
        ("HS256", 40, 256),
    ],
)
def test_a_secret_key_of_a_wrong_size_is_refused(name, size_bytes, claimed_bits, wrapping, take):
    spec = KeySpec(kty="oct", alg=name, bits=claimed_bits)
    with pytest.raises(hsm.WrappedKeyRefused):
        take(spec, wrapping.wrapped(os.urandom(size_bytes)))


def test_a_bad_aes_key_takes_the_steps_of_a_wrong_one(token, wrapping, take, chaos):
    """What RSA-OAEP refuses is told by nothing: a random AES key goes on in its place."""
    steps = []
    for octets in (REFUSED["a bad padding"], REFUSED["another AES key"]):
        calls = chaos.count_own("C_UnwrapKey", "C_SignInit", "C_CreateObject", "C_DestroyObject")
        with pytest.raises(hsm.WrappedKeyRefused):
            take(ES256, octets(wrapping), pair("P-256").public_key())
        steps.append(dict(calls))
        chaos.heal()
    assert steps[0] == steps[1]
    assert steps[0]["C_UnwrapKey"] == 2 * OPENINGS


def test_a_kind_that_the_token_does_not_unwrap_is_refused_before(token, wrapping, take):
    spec = KeySpec(kty="OKP", alg="EdDSA", crv="Ed25519")
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(hsm.UnsupportedAlgorithm, match="does not unwrap such keys"):
        token.imports.require(spec)
    with pytest.raises(hsm.UnsupportedAlgorithm, match="does not unwrap such keys"):
        take(spec, wrapping.wrapped(der(key)), key.public_key())


def test_a_key_of_two_objects_is_refused(token):
    with pytest.raises(hsm.UnsupportedAlgorithm):
        token.imports.require(KeySpec(kty="oct", alg="A128CBC-HS256", bits=256))


def test_a_token_in_trouble_refuses_no_key(token, wrapping, take, chaos, monkeypatch):
    """What looks like a bad key may be a broken token: then nobody is told that the key is bad."""
    monkeypatch.setattr("hsm.cryptoki.canary.Canary.works", lambda *_: False)
    with pytest.raises(hsm.TokenUnavailable):
        take(ES256, REFUSED["a changed key"](wrapping), pair("P-256").public_key())
