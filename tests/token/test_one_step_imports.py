"""CKM_RSA_AES_KEY_WRAP unwraps a key in one step, where a token has it. SoftHSM is made to."""

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, Mechanism

import hsm
from hsm import Hsm, KeySpec
from hsm.cryptoki.attributes import RSA_AES_KEY_WRAP
from hsm.cryptoki.pool import SessionPool
from hsm.importing import proof
from hsm.importing.imports import Imports
from hsm.importing.ways import OneStep
from hsm.life.proof_cache import ProofCache
from hsm.life.work import Errand
from tests.shared.injector import MECHANISM_PARAM_INVALID, Injector
from tests.shared.refs import new_ref
from tests.token.test_wrapped_imports import MESSAGE, Wrapping, der

pytestmark = pytest.mark.usefixtures("softhsm")

ES256 = KeySpec(kty="EC", alg="ES256", crv="P-256")
KEY = ec.generate_private_key(ec.SECP256R1())
MODULUS_BYTES = 256

_ULONG = ctypes.c_ulong


class CkMechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("mechanism", _ULONG), ("pParameter", ctypes.c_void_p), ("length", _ULONG))


class CkParameters(ctypes.Structure):
    """CK_RSA_AES_KEY_WRAP_PARAMS."""

    _fields_ = (("ulAESKeyBits", _ULONG), ("pOAEPParams", ctypes.c_void_p))


class CkAttribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("type", _ULONG), ("pValue", ctypes.c_void_p), ("length", _ULONG))


OAEP_PARAMS_BYTES = 5 * ctypes.sizeof(_ULONG)
AES_KEY = {
    Attribute.CLASS: _ULONG(4),  # CKO_SECRET_KEY
    Attribute.KEY_TYPE: _ULONG(0x1F),  # CKK_AES
    Attribute.TOKEN: ctypes.c_ubyte(0),
    Attribute.UNWRAP: ctypes.c_ubyte(1),
}


def _aes_template() -> Any:
    template = (CkAttribute * len(AES_KEY))()
    for place, (name, value) in zip(template, AES_KEY.items(), strict=True):
        place.type, place.pValue = name, ctypes.addressof(value)
        place.length = ctypes.sizeof(value)
    return template


def unwrap(destroy: Callable[..., int], original: Any, *words: int) -> int:
    """Be C_UnwrapKey of a token with the mechanism, out of the two that SoftHSM has."""
    mechanism = CkMechanism.from_address(words[1])
    if mechanism.mechanism != RSA_AES_KEY_WRAP:
        return int(original(*words))
    if mechanism.length != ctypes.sizeof(CkParameters):
        return MECHANISM_PARAM_INVALID
    parameters = CkParameters.from_address(mechanism.pParameter)
    oaep = CkMechanism(Mechanism.RSA_PKCS_OAEP, parameters.pOAEPParams, OAEP_PARAMS_BYTES)
    kwp = CkMechanism(Mechanism.AES_KEY_WRAP_PAD, None, 0)
    session, _, key, wrapped, length, template, count, made = words
    aes, own = _ULONG(), _aes_template()
    step = (session, ctypes.addressof(oaep), key, wrapped, MODULUS_BYTES)
    answer = original(*step, ctypes.addressof(own), len(own), ctypes.addressof(aes))
    if answer:
        return int(answer)
    rest = wrapped + MODULUS_BYTES, length - MODULUS_BYTES
    answer = original(session, ctypes.addressof(kwp), aes.value, *rest, template, count, made)
    destroy(session, aes.value)
    return int(answer)


@pytest.fixture
def able(chaos: Injector, token: Hsm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SoftHSM have the mechanism, and say so, after it has been found to lack it."""
    token.imports.wrapping_spec()
    chaos.replace_own("C_UnwrapKey", partial(unwrap, chaos.function("C_DestroyObject")))
    monkeypatch.setattr(SessionPool, "listed", frozenset({int(RSA_AES_KEY_WRAP)}))


@pytest.fixture
def found(able: None, token: Hsm) -> Imports:
    """What a token with the mechanism is found to import."""
    connection = token._connection
    return proof.found_imports(connection.token, ProofCache(None, connection.token.pool.token))


@pytest.fixture
def wrapping(found: Imports, token: Hsm) -> Iterator[Wrapping]:
    """A wrapping key that permits the one step, quickly made."""
    ref = new_ref(found.wrapping_spec(8 * MODULUS_BYTES))
    yield Wrapping(ref, token.generate(ref).public)
    token.destroy(ref)


def test_a_token_that_has_the_mechanism_is_found_out_and_used(found, wrapping, token, monkeypatch):
    assert {type(way) for way in found.ways.values()} == {OneStep}
    assert ("EC", "P-256") in found.ways
    assert ("Edwards", "Ed25519") in found.refusals
    monkeypatch.setattr(Imports, "way", lambda _self, spec: found.ways[spec.kind.name, spec.crv])
    new = new_ref(ES256)
    made = token.imports.take(wrapping.ref, new, wrapping.wrapped(der(KEY)), KEY.public_key())
    assert made.public == KEY.public_key()
    assert token.verify(new, "ES256", MESSAGE, token.sign(new, "ES256", MESSAGE))
    token.destroy(new)


def test_what_it_does_not_unwrap_is_refused_with_the_same_error(
    found, wrapping, token, monkeypatch
):
    monkeypatch.setattr(Imports, "way", lambda _self, spec: found.ways[spec.kind.name, spec.crv])
    good = wrapping.wrapped(der(KEY))
    another = wrapping.wrapped(der(ec.generate_private_key(ec.SECP256R1())))
    for octets in (bytes(len(good)), good[:-8], good[:200], another):
        with pytest.raises(hsm.WrappedKeyRefused):
            token.imports.take(wrapping.ref, new_ref(ES256), octets, KEY.public_key())


def test_only_wrapping_keys_permit_it_and_only_where_it_is_used(token, wrapping):
    def allowed(ref: Any) -> Any:
        def read(_token: Any, session: Any) -> Any:
            found = session.find({Attribute.ID: ref.kid.bytes})
            return [set(map(int, one[Attribute.ALLOWED_MECHANISMS])) for one in found]

        return token._connection.perform(Errand(verb=read))

    assert {int(RSA_AES_KEY_WRAP), int(Mechanism.RSA_PKCS_OAEP)} in allowed(wrapping.ref)
    assert not token.imports.wrapping_spec().unwraps_keys


def test_python_pkcs11_has_no_name_for_it_of_its_own():
    """Else it is to be used, and ours is to go."""
    assert int(RSA_AES_KEY_WRAP) not in {int(one) for one in Mechanism}
    assert isinstance(RSA_AES_KEY_WRAP, Mechanism)
