"""One key of our own on the token, by which we see whether the token is telling the truth."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

from pkcs11 import Attribute, GCMParams, Mechanism, Object, ObjectClass, PKCS11Error

from hsm.algorithms.families import Algorithm
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, MACS
from hsm.cryptoki.attributes import LABEL_PREFIX, Templates
from hsm.cryptoki.faults import REFUSALS, Fault, fault_of
from hsm.cryptoki.handles import Handle, Key
from hsm.cryptoki.session import Session
from hsm.errors import Cause, TokenUnavailable

_MESSAGE: Final = b"tweet"
_BITS: Final = 256
_DIGEST_BYTES: Final = 32
_HIDDEN: Final = "the token does not show its keys"

Make = Callable[..., tuple[Object, ...]]
"""Makes the objects of a key with a session, templates, and the arguments that name it."""


def _secret(row: Algorithm, session: Session, templates: Templates, **named: Any) -> tuple[Object]:
    arguments = named | templates.secret_generation([row])
    return (session.generate_key(row.kind.key_type, _BITS, **arguments),)


def _pair(
    spec: KeySpec, session: Session, templates: Templates, **named: Any
) -> tuple[Object, ...]:
    # The mechanism that takes a digest is one that every token has.
    templates = replace(templates, otherwise=frozenset({str(spec.alg)}))
    arguments = named | templates.pair_generation(spec)
    return session.generate_keypair(spec.kind.key_type, spec.bits, **arguments)


def _encrypts(key: Key) -> bool:
    mechanism: dict[str, Any] = {
        "mechanism": Mechanism.AES_GCM,
        "mechanism_param": GCMParams(key.lent.generate_random(96), _MESSAGE, 128),
    }
    return key.decrypt(key.encrypt(_MESSAGE, **mechanism), **mechanism) == _MESSAGE


def _computes(key: Key) -> bool:
    return len(key.sign(_MESSAGE, mechanism=Mechanism.SHA256_HMAC)) == MACS["HS256"].mac_bytes


def _signs(mechanism: Mechanism, signature_bytes: int, key: Key) -> bool:
    digest = _MESSAGE.ljust(_DIGEST_BYTES)
    return len(key.sign(digest, mechanism=mechanism)) == signature_bytes


class _Kind(NamedTuple):
    """A kind of canary: its CKA_ID and class, how it is made, and what shows that it works."""

    key_id: bytes
    object_class: ObjectClass
    make: Make
    works: Callable[[Key], bool]


# The first tells more: what SoftHSM answers for a bad tag is what it answers when it is broken.
# The last are for tokens that only sign, such as TPM 2.0.
_KINDS: Final = (
    _Kind(
        b"jose-hsm:canary\0",
        ObjectClass.SECRET_KEY,
        partial(_secret, CONTENT_ENCRYPTIONS["A256GCM"]),
        _encrypts,
    ),
    _Kind(
        b"jose-hsm:canary\1",
        ObjectClass.SECRET_KEY,
        partial(_secret, MACS["HS256"]),
        _computes,
    ),
    _Kind(
        b"jose-hsm:canary\2",
        ObjectClass.PRIVATE_KEY,
        partial(_pair, KeySpec(kty="EC", alg="ES256", crv="P-256")),
        partial(_signs, Mechanism.ECDSA, 64),
    ),
    _Kind(
        b"jose-hsm:canary\3",
        ObjectClass.PRIVATE_KEY,
        partial(_pair, KeySpec(kty="RSA", alg="RS256", bits=2048)),
        partial(_signs, Mechanism.RSA_PKCS, 256),
    ),
)
CANARY_IDS: Final = tuple(kind.key_id for kind in _KINDS)


class Canary:
    """A secret or private key that every user of the token shares.

    A token in trouble answers searches with nothing and CKR_OK, and gives one error for bad input
    and for its own faults. Whoever finds the canary, or sees it work, knows better.
    """

    def __init__(self, session: Session, templates: Templates, *, is_kept: bool = True) -> None:
        """Find the canary or make it; the caller holds the boot lock, so there is one.

        Unless it ``is_kept``, one that is made is a session object, and gone with ``session``; the
        token may make none, and then it is kept.
        It is of the first kind that the token does not refuse; some have AES-GCM and want to make
        the IV themselves. Raises ``TokenUnavailable`` if ``session`` does not see even the one it
        has just made, or if no kind works; then the cause is what the token answered last.
        """
        self._is_kept = is_kept or templates.stores_trials
        self.was_there = False
        refusal = None
        for self._kind in _KINDS:
            try:
                self._handle = Handle.of(self._find_or_make(session, templates))
                if self._kind.works(Key(session, self._handle)):
                    return
            except PKCS11Error as error:
                if fault_of(error) not in REFUSALS:
                    raise
                refusal = error
        reason = "the token does not use its keys"
        raise TokenUnavailable(reason, cause=Cause.CANARY) from refusal

    def is_found(self, session: Session) -> bool:
        """Tell whether ``session`` sees private objects now."""
        return bool(self._search(session))

    def require_found(self, session: Session) -> None:
        """Raise ``TokenUnavailable`` unless ``session`` sees private objects now."""
        if not self.is_found(session):
            raise TokenUnavailable(_HIDDEN, cause=Cause.CANARY)

    def works(self, session: Session) -> bool:
        """Tell whether ``session`` uses keys now."""
        try:
            return self._kind.works(Key(session, self._handle))
        except PKCS11Error:
            return False

    def require_works(self, session: Session) -> None:
        """Raise ``TokenUnavailable`` unless ``session`` uses keys now."""
        if not self.works(session):
            raise TokenUnavailable("the token does not answer")

    def blames_input(self, error: PKCS11Error, session: Session) -> bool:
        """Tell whether ``error`` is the word of a healthy token for bad input.

        SoftHSM 2.6 says CKR_GENERAL_ERROR for a bad tag and for a broken token alike: only if the
        canary still works is it the tag.
        """
        fault = fault_of(error)
        return fault is Fault.REJECTED or (fault is Fault.AMBIGUOUS and self.works(session))

    def _find_or_make(self, session: Session, templates: Templates) -> Object:
        found = self._search(session)
        self.was_there = bool(found)
        if not found:
            made = self._generate(session, templates)
            found = self._search(session)
            if len(found) != 1:  # it sees nothing still, or now what it did not see before
                for one in made:
                    session.destroy(one)
                raise TokenUnavailable(_HIDDEN, cause=Cause.CANARY)
        return found[0]

    def _search(self, session: Session) -> list[Object]:
        return session.find(
            {Attribute.CLASS: self._kind.object_class, Attribute.ID: self._kind.key_id}
        )

    def _generate(self, session: Session, templates: Templates) -> tuple[Object, ...]:
        return self._kind.make(
            session,
            templates,
            id=self._kind.key_id,
            label=f"{LABEL_PREFIX}canary",
            store=self._is_kept,
        )
