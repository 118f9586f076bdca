"""A key-encryption key on its way to another token, wrapped under an RSA key of that one.

It crosses as any key that is imported wrapped (CKM_RSA_AES_KEY_WRAP, PKCS#11 v2.40 §2.1.21): an AES
key encrypted to the RSA key, and behind it AES-KWP (RFC 5649) under that. Nothing of it is outside
of a token otherwise.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pkcs11 import MechanismFlag, Object, ObjectClass

from hsm.algorithms.families import RsaOaep
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import AES
from hsm.algorithms.tables import KEY_MANAGEMENTS
from hsm.cryptoki.handles import Handle, Key, bind, temporary
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.objects import PRIVATE
from hsm.cryptoki.session import Session
from hsm.errors import UnsupportedAlgorithm, WrappedKeyRefused
from hsm.importing.imports import Target
from hsm.importing.proof import unwraps_within
from hsm.importing.ways import WrappedKey
from hsm.life.token import Token
from hsm.messages import TRANSFER_KEY, KeyRef
from hsm.operations.cek import mechanism_of, unless_rejected
from hsm.operations.session_keys import SessionKeys
from hsm.storage.keks import WRAPPINGS, Kek, encrypting_arguments, mechanism_on, sealing_arguments

BITS: Final = 3072
_AES_BITS: Final = 256
_AES: Final[Target] = (AES.name, None)
_KWP: Final = tuple(reversed(WRAPPINGS))
"""Mechanisms that may be AES-KWP. Where a token lists both, the older may pad otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A key-encryption key and that of its seals, each wrapped for the same RSA key."""

    kek: UUID
    encrypting: bytes = field(repr=False)
    sealing: bytes = field(repr=False)


def packed(token: Token, session: Session, kek: Kek, alg: str, public: RSAPublicKey) -> Parcel:
    """Wrap ``kek`` for the holder of ``public``, who unwraps by ``alg``.

    The token refuses (CKR_KEY_UNEXTRACTABLE) unless it was made to be taken elsewhere. Raises
    ``UnsupportedAlgorithm`` if it has no such ``alg`` itself.
    """
    if not unwraps_within(token, alg):
        raise UnsupportedAlgorithm.not_offered(alg, "the token does not wrap by it")
    spec = KeySpec(kty="RSA", alg=alg, bits=public.key_size)
    row = cast(RsaOaep, KEY_MANAGEMENTS[alg])
    makes = SessionKeys(token.templates, token.canary)
    with makes.imported_public(session, spec, public) as keys:

        def wrapped(handle: Handle) -> bytes:
            return _wrapped(token, keys, row, Key(session, handle))

        return Parcel(kek=kek.id, encrypting=wrapped(kek.encrypting), sealing=wrapped(kek.sealing))


def _wrapped(token: Token, keys: Keys, row: RsaOaep, key: Key) -> bytes:
    session, listed = keys.session, token.pool.listed
    mechanism = next(each for each in _KWP if int(each) in listed)
    made = session.generate_key(
        AES.key_type,
        _AES_BITS,
        capabilities=MechanismFlag.WRAP,
        mechanism=AES.generation,
        template=token.templates.for_one(mechanism, extractable=True),
    )
    with temporary(bind(session, made)) as transport:
        rest = transport.wrap_key(key, mechanism=mechanism)
        return keys.public.wrap_key(transport, **mechanism_of(row)) + rest


def unpacked(
    token: Token, session: Session, wrapping: KeyRef, parcel: Parcel, *, extractable: bool
) -> None:
    """Keep the key-encryption key of ``parcel``, which was wrapped for ``wrapping``.

    Raises ``WrappedKeyRefused`` if it was wrapped for another, or changed.
    """
    kek, templates = parcel.kek, token.templates
    mechanism = mechanism_on(token.pool.listed)
    sealing = sealing_arguments(kek, templates, extractable=extractable)
    encrypting = encrypting_arguments(kek, templates, mechanism, extractable=extractable)
    arguments = ((parcel.sealing, sealing), (parcel.encrypting, encrypting))
    store = token.stores[wrapping.storage]
    with store.lent(session, wrapping, [PRIVATE]) as keys, ExitStack() as undo:
        for octets, its in arguments:
            made = unless_rejected(partial(_unwrapped, token, keys, wrapping, octets, its))
            if made is None:
                raise WrappedKeyRefused
            undo.callback(session.destroy, made)
        undo.pop_all()


def _unwrapped(
    token: Token, keys: Keys, wrapping: KeyRef, octets: bytes, arguments: dict[str, Any]
) -> Object:
    row = cast(RsaOaep, token.rows[str(wrapping.spec.alg)])
    wrapped = WrappedKey.of(octets, (wrapping.spec.bits or 0) // 8)
    way = token.imports.find().ways[_AES]
    with way.opened(keys, row, token.templates, wrapped) as unwrap:
        return unwrap(object_class=ObjectClass.SECRET_KEY, **arguments)


def wrapping_key(token: Token) -> KeyRef:
    """Return what the RSA key is that one is wrapped for; raise ``UnsupportedAlgorithm``."""
    spec = token.imports.find().wrapping_spec(BITS)
    return KeyRef(kid=TRANSFER_KEY, spec=spec)
