"""Keys of the token that somebody else has made: find them, prove them, give them our name.

They are not copied. CKA_ID and CKA_LABEL become ours, since that is how keys are found here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pkcs11 import Attribute, Object, ObjectClass, PKCS11Error

from hsm.algorithms.families import Algorithm
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import Curve, KeyKind, PublicKey
from hsm.algorithms.tables import ALGORITHMS
from hsm.cryptoki.attributes import LABEL_PREFIX, identity
from hsm.cryptoki.faults import name_of
from hsm.cryptoki.handles import Handle, Key, PublicHandle, PublicObject
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.errors import CryptoFailure, HsmError, KeyNotFound, TokenUnavailable
from hsm.life.token import Token, round_trip

_PROBE: Final = b"jose-hsm"
_ID_BYTES: Final = 16

Objects = Mapping[ObjectClass, Object]
SECRET, PRIVATE, PUBLIC = ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoptable:
    """A key that can be adopted.

    ``specs`` says by algorithm what it would be, and for no other algorithm has it worked.
    ``kid`` is its CKA_ID where that is as long as a kid. ``is_local`` says that the token has made
    it and never shown it.
    """

    specs: Mapping[str, KeySpec]
    kid: UUID | None
    is_local: bool
    public: PublicKey | None


def _find(session: Session, *, key_id: bytes | None, label: str | None) -> Objects:
    """Return the objects of the one key with that CKA_ID and CKA_LABEL.

    Raises ``KeyNotFound``, or ``CryptoFailure`` if several are meant or a public half is missing.
    """
    named = {Attribute.ID: key_id, Attribute.LABEL: label}
    template = {name: value for name, value in named.items() if value is not None}
    found = [
        (object_class, made)
        for object_class in (SECRET, PRIVATE)
        for made in _distinct(session, {Attribute.CLASS: object_class} | template)
    ]
    if not found:
        raise KeyNotFound
    if len(found) > 1:
        raise CryptoFailure("More than one key of the token has that name")
    object_class, made = found[0]
    if str(made[Attribute.LABEL]).startswith(LABEL_PREFIX):
        raise CryptoFailure("The key is one of ours already, or was meant to be")
    if object_class is SECRET:
        return {SECRET: made}
    return {PRIVATE: made, PUBLIC: _public_half(session, made)}


def _distinct(session: Session, template: Mapping[Attribute, Any]) -> Iterator[Object]:
    """Search; SoftHSM sometimes finds one object twice."""
    by_handle = {Handle.of(found).value: found for found in session.find(dict(template))}
    yield from by_handle.values()


def _public_half(session: Session, private: Object) -> Object:
    template = {Attribute.CLASS: PUBLIC, Attribute.ID: private[Attribute.ID]}
    found = list(_distinct(session, template))
    if len(found) != 1:
        raise CryptoFailure("The token does not hold one public key with the same CKA_ID")
    return found[0]


def prove(token: Token, session: Session, *, key_id: bytes | None, label: str | None) -> Adoptable:
    """Try every algorithm that the key of that name could be for.

    Raises ``KeyNotFound``, or ``CryptoFailure`` if several are meant or nothing works.
    """
    objects = _find(session, key_id=key_id, label=label)
    made = next(iter(objects.values()))
    specs = {
        row.name: spec
        for row in ALGORITHMS.values()
        for kind, curve in row.keys
        if (spec := _spec(row, kind, curve, objects)) is not None
        and token.offers[row.name].refusal(spec.crv) is None
        and _works(token, session, row, objects)
    }
    if not token.canary.works(session):  # then nothing was proven
        raise TokenUnavailable("the token does not answer")
    if not specs:
        raise CryptoFailure("The key does nothing that the service offers")
    key_id = made[Attribute.ID]
    public = objects.get(PUBLIC)
    return Adoptable(
        specs=specs,
        kid=UUID(bytes=key_id) if len(key_id) == _ID_BYTES else None,
        is_local=bool(made[Attribute.LOCAL]) and bool(made[Attribute.NEVER_EXTRACTABLE]),
        public=PublicHandle.of(public).numbers if public else None,
    )


def rename(
    _token: Token, session: Session, *, kid: UUID, key_id: bytes | None, label: str | None
) -> None:
    """Give the key of that name the CKA_ID and CKA_LABEL of ``kid``.

    If the token refuses, they are put back and ``CryptoFailure`` is raised.
    """
    objects = _find(session, key_id=key_id, label=label)
    ours = identity(kid)
    done: list[tuple[Object, bytes, str]] = []
    try:
        for made in objects.values():
            done.append((made, made[Attribute.ID], made[Attribute.LABEL]))
            made[Attribute.LABEL] = ours["label"]
            made[Attribute.ID] = ours["id"]
    except PKCS11Error as error:
        for names in done:
            _put_back(*names)
        raise CryptoFailure(f"The token does not let it be renamed: {name_of(error)}") from error


def _put_back(made: Object, key_id: bytes, label: str) -> None:
    for name, value in ((Attribute.ID, key_id), (Attribute.LABEL, label)):
        try:
            made[name] = value
        except PKCS11Error:  # it has not been changed
            continue


def _spec(row: Algorithm, kind: KeyKind, curve: Curve | None, objects: Objects) -> KeySpec | None:
    """Return what the key would be for ``row``, or ``None`` if it is of another kind or size."""
    made = next(iter(objects.values()))
    if made[Attribute.KEY_TYPE] != kind.key_type or kind.is_pair != (PRIVATE in objects):
        return None
    if curve is not None and objects[PUBLIC][Attribute.EC_PARAMS] != curve.ec_params:
        return None
    if len(row.parts) > 1:  # nobody else's two objects are one key
        return None
    bits = _bits(objects)
    if not row.takes_bits(bits):
        return None
    return KeySpec(kty=kind.ktys[0], alg=row.name, crv=curve.crv if curve else None, bits=bits)


def _bits(objects: Objects) -> int | None:
    if SECRET in objects:
        return 8 * int(objects[SECRET][Attribute.VALUE_LEN])
    try:
        return int.from_bytes(objects[PUBLIC][Attribute.MODULUS]).bit_length()
    except PKCS11Error:  # not RSA
        return None


def _works(token: Token, session: Session, row: Algorithm, objects: Objects) -> bool:
    try:
        return round_trip(_bound(token, session, objects), token, row, _PROBE)
    except (PKCS11Error, HsmError):
        return False


def _bound(token: Token, session: Session, objects: Objects) -> Keys:
    if SECRET in objects:
        return Keys(session, token.canary, (Key(session, Handle.of(objects[SECRET])),))
    public = PublicObject(session, PublicHandle.of(objects[PUBLIC]))
    return Keys.pair(token.canary, public, Key(session, Handle.of(objects[PRIVATE])))
