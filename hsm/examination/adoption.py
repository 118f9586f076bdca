"""Keys of the token that somebody else has made: find them, prove them, give them our name.

They are not copied. CKA_ID and CKA_LABEL become ours, since that is how keys are found here. A
public half that is not there is made.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import Attribute, Object, ObjectClass, PKCS11Error

from hsm.algorithms.families import Algorithm
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import Curve, KeyKind, PublicKey, curve_of, curve_of_params
from hsm.algorithms.tables import ALGORITHMS
from hsm.cryptoki.attributes import LABEL_PREFIX, PUBLIC_KEY_INFO, identity
from hsm.cryptoki.faults import name_of
from hsm.cryptoki.handles import (
    Handle,
    Key,
    PublicHandle,
    PublicObject,
    bind_public,
    handle_of,
    temporary,
)
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.material import read_public, read_rsa
from hsm.cryptoki.objects import MAC_HALF
from hsm.cryptoki.session import Session
from hsm.cryptoki.usages import read
from hsm.errors import CryptoFailure, HsmError, KeyNotFound
from hsm.life.token import Token, round_trip
from hsm.messages import KeyRef
from hsm.storage.token_store import OWN_IDS

_PROBE: Final = b"jose-hsm"
_ID_BYTES: Final = 16
_NO_NAMES: Final[Mapping[Attribute, Any]] = MappingProxyType(
    {Attribute.ID: b"", Attribute.LABEL: ""}
)
"""What some tokens call a key that has no name. On others it lacks the attribute."""
SECRET, PRIVATE, PUBLIC = ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY

_CLASSES: Final[Mapping[bool | None, tuple[ObjectClass, ...]]] = MappingProxyType(
    {None: (SECRET, PRIVATE), False: (SECRET,), True: (PRIVATE,)}
)

Candidate = tuple[Algorithm, KeyKind, Curve | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherName:
    """What a key of others is called: by CKA_ID, CKA_LABEL and its class, each if it is given.

    ``public`` is its public half, for tokens that do not hold it.
    """

    key_id: bytes | None = None
    label: str | None = None
    is_pair: bool | None = None
    public: PublicKey | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoptable:
    """A key that can be adopted.

    ``specs`` says by algorithm what it would be, and for no other algorithm has it worked.
    ``kid`` is its CKA_ID where that is as long as a kid. A key that ``is_ours`` by its name is not
    for adoption while the registry knows that kid. ``is_local`` says that the token has made it and
    never shown it.
    """

    specs: Mapping[str, KeySpec]
    kid: UUID | None
    is_ours: bool
    is_local: bool
    public: PublicKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The objects of one key: the secret or private one, and the public one, if it is there.

    ``numbers`` are those of the public half, wherever they come from.
    """

    own: Object
    public: Object | None = None
    numbers: PublicKey | None = None

    @property
    def objects(self) -> tuple[Object, ...]:
        return (self.own,) if self.public is None else (self.own, self.public)

    @property
    def bits(self) -> int | None:
        """How long a secret key or a modulus is."""
        if self.numbers is None:
            return 8 * int(self.own[Attribute.VALUE_LEN])
        return None if curve_of(self.numbers) else getattr(self.numbers, "key_size", None)


# --- Finding ---


def _found(session: Session, name: OtherName) -> tuple[_Found, tuple[Candidate, ...]]:
    """Return the objects of the one key of that name, and what it could be for by its kind.

    Raises ``KeyNotFound``, or ``CryptoFailure`` if several are meant, it is of a kind that we do
    not know, or its public half is nowhere.
    """
    own = _own(session, name)
    is_pair = own[Attribute.CLASS] == PRIVATE
    public = _public_half(session, own) if is_pair else None
    curve = _curve(own, public)
    candidates = tuple(_candidates(_read(own, Attribute.KEY_TYPE), curve, is_pair=is_pair))
    if not candidates:
        raise CryptoFailure("The key is of a kind, or on a curve, that no algorithm here is for")
    numbers = _numbers(own, public, curve, name.public) if is_pair else None
    return _Found(own=own, public=public, numbers=numbers), candidates


def _own(session: Session, name: OtherName) -> Object:
    named = {Attribute.ID: name.key_id, Attribute.LABEL: name.label}
    template = {attribute: value for attribute, value in named.items() if value is not None}
    found = [
        made
        for object_class in _CLASSES[name.is_pair]
        for made in _distinct(session, {Attribute.CLASS: object_class} | template)
    ]
    if not found:
        raise KeyNotFound
    if len(found) > 1:
        raise CryptoFailure("More than one key of the token has that name")
    (own,) = found
    if _is_ours(own) and not _is_of_callers(session, own):
        raise CryptoFailure("The key is one of the service itself, or a half of one of ours")
    return own


def _is_ours(own: Object) -> bool:
    return bool(_names(own)[Attribute.LABEL].startswith(LABEL_PREFIX))


def _is_of_callers(session: Session, own: Object) -> bool:
    """Tell whether a key with our name is a whole one, which a caller had or was to have."""
    key_id = _names(own)[Attribute.ID]
    if len(key_id) != _ID_BYTES or key_id in OWN_IDS:
        return False
    return not session.find(MAC_HALF.template | {Attribute.ID: MAC_HALF.key_id(UUID(bytes=key_id))})


def _distinct(session: Session, template: Mapping[Attribute, Any]) -> Iterator[Object]:
    """Search; SoftHSM sometimes finds one object twice."""
    by_handle = {handle_of(found): found for found in session.find(dict(template))}
    yield from by_handle.values()


def _curve(own: Object, public: Object | None) -> Curve | None:
    """Return the curve that either object of a pair says."""
    ec_params = _read(own, Attribute.EC_PARAMS)
    if not ec_params and public:
        ec_params = _read(public, Attribute.EC_PARAMS)
    return curve_of_params(ec_params or b"")


def _candidates(key_type: Any, curve: Curve | None, *, is_pair: bool) -> Iterator[Candidate]:
    """Give every algorithm for keys of that kind, and on that curve."""
    for row in ALGORITHMS.values():
        for kind, on in row.keys:
            is_of_type = any(way.key_type == key_type for way in kind.ways)
            if is_of_type and (kind.is_pair, on) == (is_pair, curve):
                yield row, kind, on


def _public_half(session: Session, own: Object) -> Object | None:
    its = {Attribute.CLASS: PUBLIC, Attribute.ID: _names(own)[Attribute.ID]}
    found = list(_distinct(session, its))
    if len(found) > 1:
        raise CryptoFailure("The token holds more than one public key with the same CKA_ID")
    return next(iter(found), None)


def _numbers(
    own: Object, public: Object | None, curve: Curve | None, given: PublicKey | None
) -> PublicKey:
    """Return the public half: that of the token, if it says it in any way, else what is given.

    Whether it is that of the private key, the trials will show.
    """
    known = _readable(read_public, public) if public else _of_private(own)
    if known is not None and given is not None and known != given:
        raise CryptoFailure("The public key that was given is not that of the token")
    numbers = known or given
    if numbers is None:
        raise CryptoFailure("The token does not say what the public key is: give it as PEM")
    if curve_of(numbers) is not curve:
        raise CryptoFailure("The public key is not on the curve of the private one")
    return numbers


def _of_private(own: Object) -> PublicKey | None:
    """Return what a private key says of its public half (PKCS#11 v2.40 §4.9)."""
    info = _read(own, PUBLIC_KEY_INFO)
    if info:
        return _readable(load_der_public_key, info)
    return _readable(read_rsa, own) if _read(own, Attribute.MODULUS) else None


def _readable(read: Callable[[Any], Any], source: Any) -> PublicKey | None:
    with suppress(ValueError, UnsupportedAlgorithm, PKCS11Error):
        public = read(source)
        return public if isinstance(public, PublicKey) else None
    return None


def _names(own: Object) -> dict[Attribute, Any]:
    """Return its CKA_ID and CKA_LABEL, empty if it has none."""
    return {**_NO_NAMES, **read(own, _NO_NAMES)}


def _read(own: Object, attribute: Attribute) -> Any:
    """Return an attribute; ``None`` if the object lacks it, or its value has no name."""
    with suppress(PKCS11Error, ValueError):
        return own[attribute]
    return None


# --- Proving ---


def prove(token: Token, session: Session, *, name: OtherName) -> Adoptable:
    """Try every algorithm that the key of that name could be for.

    Raises ``KeyNotFound``, or ``CryptoFailure`` if several are meant or nothing works.
    """
    found, candidates = _found(session, name)
    bits = found.bits
    specs = {
        row.name: spec
        for row, kind, curve in candidates
        if (spec := _spec(row, kind, curve, bits)) is not None
        and token.offers[row.name].refusal(spec.crv) is None
        and _works(token, session, row, spec, found)
    }
    token.canary.require_works(session)  # else nothing was proven
    if not specs:
        raise CryptoFailure("The key does nothing that the service offers")
    own = found.own
    key_id = _names(own)[Attribute.ID]
    return Adoptable(
        specs=specs,
        kid=UUID(bytes=key_id) if len(key_id) == _ID_BYTES else None,
        is_ours=_is_ours(own),
        is_local=bool(_read(own, Attribute.LOCAL) and _read(own, Attribute.NEVER_EXTRACTABLE)),
        public=found.numbers,
    )


def _spec(row: Algorithm, kind: KeyKind, curve: Curve | None, bits: int | None) -> KeySpec | None:
    """Return what the key would be for ``row``, or ``None`` if it is of another size."""
    is_one_object = len(row.parts) == 1  # nobody else's two objects are one key
    if not is_one_object or not row.takes_bits(bits):
        return None
    return KeySpec(kty=kind.ktys[0], alg=row.name, crv=curve.crv if curve else None, bits=bits)


def _works(token: Token, session: Session, row: Algorithm, spec: KeySpec, found: _Found) -> bool:
    try:
        with _bound(token, session, spec, found) as keys:
            return round_trip(keys, token, row, _PROBE)
    except (PKCS11Error, HsmError, ValueError):  # the last for a modulus too short for a padding
        return False


@contextmanager
def _bound(token: Token, session: Session, spec: KeySpec, found: _Found) -> Iterator[Keys]:
    """Give the key for one ``with`` block; a public half that is not there is a session object."""
    own = Key(session, Handle(handle_of(found.own)))
    if found.numbers is None:
        yield Keys(session, token.canary, (own,))
    elif found.public is not None:
        handle = PublicHandle(handle_of(found.public), found.numbers)
        yield Keys.pair(token.canary, PublicObject(session, handle), own)
    else:
        template = token.templates.imported_public(None, spec, found.numbers)
        with temporary(bind_public(session, session.create_object(template))) as public:
            yield Keys.pair(token.canary, public, own)


# --- Renaming ---


def rename(
    token: Token,
    session: Session,
    *,
    ref: KeyRef,
    name: OtherName,
    keep: Callable[[], object],
) -> None:
    """Give the key of that name the CKA_ID and CKA_LABEL of ``ref``, and its public half.

    Then ``keep`` is called. If that fails, all is put back; so it is if the token refuses, and
    ``CryptoFailure`` is raised.
    """
    found, _ = _found(session, name)
    ours = identity(ref.kid)
    try:
        with ExitStack() as undo:
            for made in found.objects:
                undo.callback(_put_back, made, _names(made))
                made[Attribute.ID] = ours["id"]
                made[Attribute.LABEL] = ours["label"]  # once what is ours is found by its kid
            if found.numbers is not None and found.public is None:
                template = token.templates.imported_public(ref.kid, ref.spec, found.numbers)
                undo.callback(session.destroy, session.create_object(template))
            keep()
            undo.pop_all()
    except PKCS11Error as error:
        raise CryptoFailure(f"The token does not let it be renamed: {name_of(error)}") from error


def _put_back(made: Object, before: Mapping[Attribute, Any]) -> None:
    for name, value in before.items():
        with suppress(PKCS11Error):  # it has not been changed
            made[name] = value
