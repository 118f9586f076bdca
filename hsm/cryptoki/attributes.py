"""Attributes of the objects on the token, by purpose: never more than the algorithms need."""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.attributes import AttributeMapper
from pkcs11.constants import DEFAULT

from hsm.algorithms.families import Algorithm
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import (
    EC_MONTGOMERY,
    HMAC,
    Curve,
    KeyKind,
    PrivateKey,
    PublicKey,
    unnamed,
)
from hsm.cryptoki.material import CONVERSIONS, Attributes

_ULONG: Final = struct.Struct("L")

LABEL_PREFIX: Final = "jose-hsm:"
PUBLIC_KEY_INFO: Final = cast(Attribute, 0x129)
"""CKA_PUBLIC_KEY_INFO (PKCS#11 v2.40), which python-pkcs11 does not name."""
RSA_AES_KEY_WRAP: Final = unnamed(Mechanism, "RSA_AES_KEY_WRAP", 0x1054)
"""CKM_RSA_AES_KEY_WRAP (PKCS#11 v2.40 §2.1.21), likewise."""
_LABEL_BYTES: Final = 32
"""Longer ones cost an object more on small tokens, as on the YubiHSM."""

STORED_TRIAL: Final[dict[str, Any]] = {"id": b"jose-hsm:trial\0\0", "store": True}
"""The arguments that make a token object of what is made to try with, and destroyed then."""

OPTIONAL: Final = (
    Attribute.ALLOWED_MECHANISMS,
    Attribute.SIGN_RECOVER,
    Attribute.VERIFY_RECOVER,
    Attribute.MODIFIABLE,
    Attribute.COPYABLE,
)
"""Attributes that younger or smaller tokens do not know; ``variants`` tries each at boot."""

_FIXED: Final = {
    Attribute.COPYABLE: False,
    # Last: when SoftHSM unwraps, it sets one attribute after the other.
    Attribute.MODIFIABLE: False,
}


_NOT_OF_PRIVATE: Final[Attributes] = dict.fromkeys(
    (Attribute.ENCRYPT, Attribute.VERIFY, Attribute.WRAP), DEFAULT
)
"""What python-pkcs11 says of every unwrapped key, and SoftHSM refuses of private ones: left out."""


def attribute_mapper() -> AttributeMapper:
    """Return a mapper that also knows CKA_ALLOWED_MECHANISMS, an array of CK_MECHANISM_TYPE.

    And CKA_PUBLIC_KEY_INFO, and CKK_EC_MONTGOMERY among the key types, and CKA_UNWRAP_TEMPLATE: an
    array of CK_ATTRIBUTE, as bytes. A label of others that is no UTF-8 stays what it is.
    """
    mapper = AttributeMapper()
    mapper.register_handler(
        Attribute.LABEL,
        lambda label: label.encode("utf-8", "surrogateescape"),
        lambda octets: octets.decode("utf-8", "surrogateescape"),
    )
    mapper.register_handler(
        Attribute.KEY_TYPE, _ULONG.pack, lambda packed: _key_type(*_ULONG.unpack(packed))
    )
    mapper.register_handler(PUBLIC_KEY_INFO, bytes, bytes)
    mapper.register_handler(Attribute.UNWRAP_TEMPLATE, bytes, bytes)
    mapper.register_handler(
        Attribute.ALLOWED_MECHANISMS,
        lambda mechanisms: struct.pack(f"{len(mechanisms)}L", *mechanisms),
        lambda packed: {mechanism for (mechanism,) in struct.iter_unpack("L", packed)},
    )
    return mapper


def _key_type(number: int) -> KeyType:
    return EC_MONTGOMERY if number == EC_MONTGOMERY else KeyType(number)


_MAPPER: Final = attribute_mapper()


def label(kid: UUID) -> str:
    """Return CKA_LABEL of ``kid``, as much of it as fits: for people; keys are found by CKA_ID."""
    return f"{LABEL_PREFIX}{kid}"[:_LABEL_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """Templates for one token.

    ``of_secrets`` and ``of_pairs`` are those of ``OPTIONAL`` that its secret keys and the halves of
    its pairs take. ``public_is_private`` is CKA_PRIVATE of public keys, if they are to have one.
    ``in_process`` names the algorithms whose padding is decoded in the process, which takes the
    bare RSA operation, and ``otherwise`` those that take another of their ``ways`` than the first.
    ``kinds`` are those kinds that the token makes under other numbers than the first. It
    ``stores_trials`` if it makes no pairs as session objects, and ``pairs_decrypt`` if it makes
    none that may not: tpm2-pkcs11 does neither. Keys are made ``to_be_wrapped`` that do not stay as
    they are: wrapped at once, they are unwrapped for use.
    """

    of_secrets: frozenset[Attribute] = frozenset(OPTIONAL)
    of_pairs: frozenset[Attribute] = frozenset(OPTIONAL)
    public_is_private: bool | None = False
    in_process: frozenset[str] = frozenset()
    otherwise: frozenset[str] = frozenset()
    kinds: tuple[KeyKind, ...] = ()
    stores_trials: bool = False
    pairs_decrypt: bool = False
    to_be_wrapped: bool = False

    def kind(self, spec: KeySpec) -> KeyKind:
        """Return the kind of that key under the numbers that the token has for it."""
        return next((kind for kind in self.kinds if kind.name == spec.kind.name), spec.kind)

    def usages(self, rows: Iterable[Algorithm]) -> MechanismFlag:
        """Return the usage attributes that ``rows`` need; those not named are set false."""
        usages = MechanismFlag(0)
        for row in rows:
            usages |= row.usages
            if row.name in self.in_process or (self.pairs_decrypt and row.kind.is_pair):
                # NSS tries a new pair by encrypting to it; of a public key that gives nothing away.
                usages |= MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
        return usages

    def secret(self, rows: Iterable[Algorithm], *, extractable: bool = False) -> Attributes:
        """Return what guards a secret key of ``rows``.

        ``extractable`` is for CEKs that live for one message, as session objects: they have to
        be wrapped.
        """
        guards = _guards(extractable=extractable or self.to_be_wrapped)
        return guards | _known(self.of_secrets, self._restrictions(rows))

    def for_one(self, mechanism: Mechanism, *, extractable: bool = False) -> Attributes:
        """Return what guards a secret key for one mechanism: that wraps others, or is hashed.

        One that is ``extractable`` can be taken to another token.
        """
        restrictions = _restricted_to({mechanism})
        return _guards(extractable=extractable) | _known(self.of_secrets, restrictions)

    def passing(self, value: bytes) -> Attributes:
        """Return a whole session object with a CEK that is only to be wrapped."""
        return {
            **_MAPPER.secret_key_template(
                capabilities=MechanismFlag(0), id_=None, label=None, store=False
            ),
            Attribute.KEY_TYPE: HMAC.key_type,
            Attribute.VALUE: value,
            **_guards(extractable=True),
            **_known(self.of_secrets, _FIXED),
        }

    def shown(self) -> Attributes:
        """Return what guards a CEK that has been unwrapped to be read, and for nothing else."""
        guards = _guards(extractable=True) | {Attribute.SENSITIVE: False}
        return guards | _known(self.of_secrets, _FIXED)

    def private(self, spec: KeySpec) -> Attributes:
        """Return what guards the private half of a pair."""
        digests = spec.digest_algorithms if spec.signs_digests else ()
        more = [row.digest_mechanism for row in digests if row.digest_mechanism]
        if spec.unwraps_keys:
            more.append(RSA_AES_KEY_WRAP)
        restrictions = self._restrictions(spec.algorithms, more)
        own = {Attribute.SIGN_RECOVER: False} | restrictions
        return _guards(extractable=self.to_be_wrapped) | _known(self.of_pairs, own)

    def public(self, rows: Iterable[Algorithm]) -> Attributes:
        """Return what guards the public half of a pair of ``rows``."""
        own = {Attribute.VERIFY_RECOVER: False} | self._restrictions(rows)
        private = {Attribute.PRIVATE: self.public_is_private}
        return _known(self.of_pairs, own) | ({} if self.public_is_private is None else private)

    def secret_generation(
        self, rows: Sequence[Algorithm], *, extractable: bool = False
    ) -> dict[str, Any]:
        """Return the arguments of ``Session.generate_key`` for one kind of key."""
        return {
            "mechanism": rows[0].kind.generation,
            "capabilities": self.usages(rows),
            "template": self.secret(rows, extractable=extractable),
        }

    def pair_generation(self, spec: KeySpec) -> dict[str, Any]:
        """Return the arguments of ``Session.generate_keypair``."""
        return {
            "mechanism": self.kind(spec).generation,
            "capabilities": self.usages(spec.algorithms),
            "public_template": self.public(spec.algorithms)
            | _curve(spec.curve)
            | _parameter_set(spec),
            "private_template": self.private(spec),
        }

    def pair_trial(self, spec: KeySpec) -> dict[str, Any]:
        """Return the same of a pair to try with: a session object, if the token makes such."""
        return self.pair_generation(spec) | (STORED_TRIAL if self.stores_trials else {})

    def imported_secret(
        self,
        kid: UUID | None,
        row: Algorithm,
        value: bytes | bytearray,
        *,
        extractable: bool = False,
    ) -> Attributes:
        """Return a whole secret key for C_CreateObject; a session object without ``kid``."""
        guards = self.secret([row], extractable=extractable)
        own = {Attribute.KEY_TYPE: row.kind.key_type, Attribute.VALUE: value} | guards
        return self._imported(_MAPPER.secret_key_template, kid, [row], own)

    def imported_private(self, kid: UUID | None, spec: KeySpec, key: PrivateKey) -> Attributes:
        """Return a whole private key for C_CreateObject; a session object without ``kid``."""
        rows, material = spec.algorithms, CONVERSIONS[spec.kind.name].private(key)
        own = self._kind(spec) | material | self.private(spec)
        return self._imported(_MAPPER.private_key_template, kid, rows, own)

    def imported_public(self, kid: UUID | None, spec: KeySpec, key: PublicKey) -> Attributes:
        """Return the public half of a private key that was not made here, likewise."""
        rows, material = spec.algorithms, CONVERSIONS[spec.kind.name].public(key)
        own = self._kind(spec) | material | self.public(rows)
        return self._imported(_MAPPER.public_key_template, kid, rows, own)

    def unwrapped(self, spec: KeySpec, kid: UUID | None = None) -> dict[str, Any]:
        """Return the arguments of ``Key.unwrap_key`` for a key that comes in wrapped.

        It is a session object without ``kid``.
        """
        is_pair, rows = spec.kind.is_pair, spec.algorithms
        return {
            "object_class": ObjectClass.PRIVATE_KEY if is_pair else ObjectClass.SECRET_KEY,
            "key_type": self.kind(spec).key_type,
            "capabilities": self.usages(rows),
            "template": _NOT_OF_PRIVATE | self.private(spec) if is_pair else self.secret(rows),
            **(identity(kid) if kid else {}),
        }

    def unwrapped_part(self, part: Algorithm) -> dict[str, Any]:
        """Return the arguments for one secret object of a key, a session object."""
        return {
            "object_class": ObjectClass.SECRET_KEY,
            "key_type": part.kind.key_type,
            "capabilities": self.usages([part]),
            "template": self.secret([part]),
        }

    def _imported(
        self,
        template: Callable[..., Attributes],
        kid: UUID | None,
        rows: Sequence[Algorithm],
        own: Attributes,
    ) -> Attributes:
        return {
            **template(
                capabilities=self.usages(rows),
                id_=kid.bytes if kid else None,
                label=label(kid) if kid else None,
                store=kid is not None,
            ),
            **own,
        }

    def _kind(self, spec: KeySpec) -> Attributes:
        key_type = {Attribute.KEY_TYPE: self.kind(spec).key_type}
        return key_type | _curve(spec.curve) | _parameter_set(spec)

    def _restrictions(
        self, rows: Iterable[Algorithm], more: Iterable[Mechanism] = ()
    ) -> Attributes:
        mechanisms = {row.mechanism for row in rows} | set(more)
        others = (row for row in rows if row.name in self.otherwise)
        mechanisms.update(way.mechanism for row in others for way in row.ways)
        if any(row.name in self.in_process for row in rows):
            mechanisms.add(Mechanism.RSA_X_509)
        return _restricted_to(mechanisms)


def _restricted_to(mechanisms: Iterable[Mechanism]) -> Attributes:
    return {Attribute.ALLOWED_MECHANISMS: sorted(mechanisms)} | _FIXED


def _known(known: frozenset[Attribute], attributes: Attributes) -> Attributes:
    return {name: value for name, value in attributes.items() if name in known}


def _guards(*, extractable: bool) -> Attributes:
    return {
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: extractable,
    }


def _curve(curve: Curve | None) -> Attributes:
    return {Attribute.EC_PARAMS: curve.ec_params} if curve else {}


def _parameter_set(spec: KeySpec) -> Attributes:
    parameter_set = spec.algorithms[0].parameter_set
    return {Attribute.PARAMETER_SET: parameter_set} if parameter_set else {}


def identity(kid: UUID, suffix: bytes = b"") -> dict[str, Any]:
    """Return the arguments that make a generated or unwrapped key a token object.

    Behind the kid CKA_ID has the ``suffix``.
    """
    return {"id": kid.bytes + suffix, "label": label(kid), "store": True}
