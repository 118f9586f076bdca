"""Keys of the token that somebody else has made: find them, prove them, give them our name.

They are not copied. CKA_ID and CKA_LABEL become ours, since that is how keys are found here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pkcs11 import Attribute, Object, ObjectClass, PKCS11Error

from hsm.algorithms.families import (
    Algorithm,
    ContentEncryption,
    KeyManagement,
    KeyWrapping,
    MacAlgorithm,
    SignatureAlgorithm,
)
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import Curve, KeyKind
from hsm.algorithms.tables import ALGORITHMS, CONTENT_ENCRYPTIONS
from hsm.cryptoki.attributes import LABEL_PREFIX, identity
from hsm.cryptoki.faults import name_of
from hsm.cryptoki.handles import Handle, Key
from hsm.cryptoki.material import PublicKey
from hsm.cryptoki.session import Session
from hsm.errors import CryptoFailure, HsmError, KeyNotFound, TokenUnavailable
from hsm.life.token import Token
from hsm.operations import content, mac, signing
from hsm.operations.ecdh import Agreement

_PROBE: Final = b"jose-hsm"
_ID_BYTES: Final = 16

Halves = Mapping[ObjectClass, Object]
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


def find(session: Session, *, key_id: bytes | None, label: str | None) -> Halves:
    """Return the halves of the one key with that CKA_ID and CKA_LABEL.

    Raises ``KeyNotFound``, or ``CryptoFailure`` if several are meant or a public half is missing.
    """
    named = {Attribute.ID: key_id, Attribute.LABEL: label}
    template = {name: value for name, value in named.items() if value is not None}
    found = [
        (half, made)
        for half in (SECRET, PRIVATE)
        for made in _distinct(session, {Attribute.CLASS: half} | template)
    ]
    if not found:
        raise KeyNotFound
    if len(found) > 1:
        raise CryptoFailure("More than one key of the token has that name")
    half, made = found[0]
    if str(made[Attribute.LABEL]).startswith(LABEL_PREFIX):
        raise CryptoFailure("The key is one of ours already, or was meant to be")
    if half is SECRET:
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


def prove(token: Token, session: Session, halves: Halves) -> Adoptable:
    """Try every algorithm that the key could be for; raise ``CryptoFailure`` if none works."""
    made = next(iter(halves.values()))
    specs = {
        row.name: spec
        for row in ALGORITHMS.values()
        for kind, curve in row.keys
        if (spec := _spec(row, kind, curve, halves)) is not None
        and token.offers[row.name].refusal(spec.crv) is None
        and _works(token, session, row, halves)
    }
    if not token.canary.sings(session):  # then nothing was proven
        raise TokenUnavailable("the token does not answer")
    if not specs:
        raise CryptoFailure("The key does nothing that the service offers")
    key_id = made[Attribute.ID]
    public = halves.get(PUBLIC)
    return Adoptable(
        specs=specs,
        kid=UUID(bytes=key_id) if len(key_id) == _ID_BYTES else None,
        is_local=bool(made[Attribute.LOCAL]) and bool(made[Attribute.NEVER_EXTRACTABLE]),
        public=Handle.of(public).public if public else None,
    )


def rename(halves: Halves, kid: UUID) -> None:
    """Set CKA_ID and CKA_LABEL; put them back and raise ``CryptoFailure`` if the token refuses."""
    ours = identity(kid)
    done: list[tuple[Object, bytes, str]] = []
    try:
        for made in halves.values():
            done.append((made, made[Attribute.ID], made[Attribute.LABEL]))
            made[Attribute.LABEL] = ours["label"]
            made[Attribute.ID] = ours["id"]
    except PKCS11Error as error:
        for made, key_id, label in done:
            _put_back(made, key_id, label)
        raise CryptoFailure(f"The token does not let it be renamed: {name_of(error)}") from error


def _put_back(made: Object, key_id: bytes, label: str) -> None:
    for name, value in ((Attribute.ID, key_id), (Attribute.LABEL, label)):
        try:
            made[name] = value
        except PKCS11Error:  # it has not been changed
            continue


def _spec(row: Algorithm, kind: KeyKind, curve: Curve | None, halves: Halves) -> KeySpec | None:
    """Return what the key would be for ``row``, or ``None`` if it is of another kind or size."""
    made = next(iter(halves.values()))
    if made[Attribute.KEY_TYPE] != kind.key_type or kind.is_pair != (PRIVATE in halves):
        return None
    if curve is not None and halves[PUBLIC][Attribute.EC_PARAMS] != curve.ec_params:
        return None
    if len(row.parts) > 1:  # nobody else's two objects are one key
        return None
    bits = _bits(halves)
    if isinstance(row, ContentEncryption | KeyWrapping) and bits != 8 * row.key_bytes:
        return None
    if isinstance(row, MacAlgorithm) and (bits or 0) < 8 * row.mac_bytes:
        return None
    return KeySpec(kty=kind.ktys[0], alg=row.name, crv=curve.crv if curve else None, bits=bits)


def _bits(halves: Halves) -> int | None:
    if SECRET in halves:
        return 8 * int(halves[SECRET][Attribute.VALUE_LEN])
    try:
        return int.from_bytes(halves[PUBLIC][Attribute.MODULUS]).bit_length()
    except PKCS11Error:  # not RSA
        return None


def _works(token: Token, session: Session, row: Algorithm, halves: Halves) -> bool:
    keys = {half: Key(session, Handle.of(made)) for half, made in halves.items()}
    try:
        return _round_trip(token, row, keys)
    except (PKCS11Error, HsmError):
        return False


def _round_trip(token: Token, row: Algorithm, keys: Mapping[ObjectClass, Key]) -> bool:
    match row:
        case SignatureAlgorithm():
            public = keys[PUBLIC].public
            assert public is not None  # noqa: S101  # ``Handle.of`` reads that of public halves
            signature = signing.sign(keys[PRIVATE], row, _PROBE, public)
            return signing.verify(keys[PUBLIC], row, _PROBE, signature, token.canary)
        case MacAlgorithm():
            return mac.verify(keys[SECRET], row, _PROBE, mac.compute(keys[SECRET], row, _PROBE))
        case ContentEncryption():
            cek = (keys[SECRET],)
            sealed = content.encrypt(cek, row, _PROBE, _PROBE)
            return content.decrypt(cek, row, sealed, _PROBE, token.canary) == _PROBE
        case KeyManagement():
            return _transports(token, row, keys)
    return False


def _transports(token: Token, row: KeyManagement, keys: Mapping[ObjectClass, Key]) -> bool:
    enc = CONTENT_ENCRYPTIONS["A256GCM"]
    path = token.path(row.name, enc.name)
    secret = keys.get(SECRET)
    with path.wrapped(secret or keys[PUBLIC], row, enc) as wrapped:
        sealed = content.encrypt(wrapped.cek, enc, _PROBE, _PROBE)
    private, said = secret or keys[PRIVATE], Agreement(wrapped.epk)
    with path.unwrapped(private, row, enc, wrapped.encrypted_key, said) as unwrapped:
        return content.decrypt(unwrapped.cek, enc, sealed, _PROBE, token.canary) == _PROBE
