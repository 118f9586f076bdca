"""The key-encryption keys of a token: they encrypt the keys that are kept in the registry."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final
from uuid import UUID

from pkcs11 import Attribute, Mechanism, MechanismFlag, Object, ObjectClass, PKCS11Error

from hsm.algorithms.kinds import AES
from hsm.algorithms.tables import MACS
from hsm.cryptoki.attributes import LABEL_PREFIX, Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.handles import Handle, Key
from hsm.cryptoki.session import Session
from hsm.errors import CryptoFailure
from hsm.storage.bare import Made, Unwrapping
from hsm.storage.restriction import restriction

WRAPPINGS: Final = (Mechanism.AES_KEY_WRAP_PAD, Mechanism.AES_KEY_WRAP_KWP)
"""Those that wrap private keys too, the first that a token lists counts."""

_BITS: Final = 256
_ENCRYPTING: Final = (f"{LABEL_PREFIX}kek", b"jose-hsm:kek:")
_SEALING: Final = (f"{LABEL_PREFIX}seal", b"jose-hsm:seal:")
"""CKA_LABEL, and what CKA_ID begins with: behind it is the id, so that it is no kid of a key."""

_SEAL: Final = MACS["HS256"]
_TIME_BYTES: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Kek:
    """A key-encryption key, and the key of the seals that goes with it."""

    id: UUID
    mechanism: Mechanism
    encrypting: Handle
    sealing: Handle

    def wrapped(self, key: Key) -> bytes:
        """Return ``key``, encrypted."""
        return Key(key.lent, self.encrypting).wrap_key(key, mechanism=self.mechanism)

    def unwrapped(self, session: Session, wrapped: bytes, **arguments: object) -> Object:
        """Make an object of a wrapped key."""
        encrypting = Key(session, self.encrypting)
        return encrypting.unwrap_key(key_data=wrapped, mechanism=self.mechanism, **arguments)

    def held(self, session: Session, wrapped: bytes, unwrapping: Unwrapping) -> Made:
        """Make an object of a wrapped key, which is to be used, and nothing else asked of it."""
        return unwrapping.unwrapped(session, self.encrypting, self.mechanism, wrapped)

    def seal(self, session: Session, row: bytes, octets: bytes) -> bytes:
        """Return the MAC over what the registry says of a key, and the key itself."""
        sealed, mechanism = len(row).to_bytes(4) + row + octets, _SEAL.mechanism
        sign = session.repeated("Sign", self.sealing.value, mechanism)
        seal = sign(sealed, most_bytes=_SEAL.mac_bytes) if sign else None
        if seal is not None and len(seal) == _SEAL.mac_bytes:
            return seal
        return Key(session, self.sealing).sign(sealed, mechanism=mechanism)

    def is_sealed(self, session: Session, row: bytes, octets: bytes, seal: bytes) -> bool:
        """Tell whether ``seal`` is that MAC."""
        return compare_digest(self.seal(session, row, octets), seal)


def mechanism_on(listed: frozenset[int]) -> Mechanism | None:
    """Return what a token wraps with that lists these mechanisms."""
    return next((mechanism for mechanism in WRAPPINGS if int(mechanism) in listed), None)


def found_keks(session: Session, canary: Canary, mechanism: Mechanism | None) -> Mapping[UUID, Kek]:
    """Return the key-encryption keys of the token by their ids, the newest last.

    Raises ``TokenUnavailable`` if the token shows nothing, not even its canary.
    """
    if mechanism is None:
        return {}
    encrypting, sealing = dict(_found(session, *_ENCRYPTING)), dict(_found(session, *_SEALING))
    if not encrypting:
        canary.require_found(session)
    return {
        kek: Kek(id=kek, mechanism=mechanism, encrypting=encrypting[kek], sealing=sealing[kek])
        for kek in sorted(encrypting.keys() & sealing.keys(), key=lambda kek: kek.bytes)
    }


def create_kek(
    session: Session, templates: Templates, mechanism: Mechanism | None, *, extractable: bool
) -> UUID:
    """Make a key-encryption key as a token object; return its id.

    One that is ``extractable`` can be taken to another token, wrapped under a key of that one. The
    key of the seals comes first: without the other it is of no use. Raises ``CryptoFailure`` if the
    token wraps nothing.
    """
    kek = _new_id()
    sealing = sealing_arguments(kek, templates, extractable=extractable)
    encrypting = encrypting_arguments(kek, templates, mechanism, extractable=extractable)
    assert mechanism is not None  # noqa: S101  # or there would be no arguments
    encrypting["template"] |= restriction(session, templates, mechanism)
    seal = session.generate_key(key_length=_BITS, mechanism=_SEAL.kind.generation, **sealing)
    try:
        session.generate_key(key_length=_BITS, mechanism=AES.generation, **encrypting)
    except PKCS11Error:
        session.destroy(seal)
        raise
    return kek


def sealing_arguments(kek: UUID, templates: Templates, *, extractable: bool) -> dict[str, Any]:
    """Return what makes the key of seals a token object that does nothing else."""
    return {
        "key_type": _SEAL.kind.key_type,
        "capabilities": templates.usages([_SEAL]),
        "template": templates.secret([_SEAL], extractable=extractable),
        **_identity(kek, *_SEALING),
    }


def encrypting_arguments(
    kek: UUID, templates: Templates, mechanism: Mechanism | None, *, extractable: bool
) -> dict[str, Any]:
    """Return what makes the key-encryption key a token object that wraps and unwraps.

    Raises ``CryptoFailure`` if the token has no ``mechanism`` to wrap with.
    """
    if mechanism is None:
        raise CryptoFailure("The token has no mechanism to wrap private keys with")
    return {
        "key_type": AES.key_type,
        "capabilities": MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        "template": templates.for_one(mechanism, extractable=extractable),
        **_identity(kek, *_ENCRYPTING),
    }


def _new_id() -> UUID:
    """Return an id that is greater than all before: it begins with the time in milliseconds."""
    now = (time.time_ns() // 1_000_000).to_bytes(_TIME_BYTES)
    return UUID(bytes=now + os.urandom(16 - _TIME_BYTES))


def _identity(kek: UUID, label: str, prefix: bytes) -> dict[str, object]:
    return {"id": prefix + kek.bytes, "label": label, "store": True}


def _found(session: Session, label: str, prefix: bytes) -> Iterator[tuple[UUID, Handle]]:
    template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}
    for found in session.find(template):
        key_id = bytes(session.read(found, Attribute.ID))
        if key_id.startswith(prefix) and len(key_id) == len(prefix) + 16:
            yield UUID(bytes=key_id.removeprefix(prefix)), Handle.of(found)
