"""One key of our own on the token, by which we see whether the token is telling the truth."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pkcs11 import Attribute, GCMParams, Mechanism, Object, ObjectClass, PKCS11Error

from hsm.algorithms.families import Algorithm
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, MACS
from hsm.cryptoki.attributes import LABEL_PREFIX, Templates
from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.handles import Handle, Key
from hsm.cryptoki.session import Session
from hsm.errors import Cause, TokenUnavailable

_MESSAGE: Final = b"tweet"
_BITS: Final = 256


def _encrypts(key: Key) -> bool:
    mechanism: dict[str, Any] = {
        "mechanism": Mechanism.AES_GCM,
        "mechanism_param": GCMParams(key.lent.generate_random(96), _MESSAGE, 128),
    }
    return key.decrypt(key.encrypt(_MESSAGE, **mechanism), **mechanism) == _MESSAGE


def _computes(key: Key) -> bool:
    return len(key.sign(_MESSAGE, mechanism=Mechanism.SHA256_HMAC)) == MACS["HS256"].mac_bytes


class _Kind(NamedTuple):
    """A kind of canary: its CKA_ID, what its key is for, and what shows that it works."""

    key_id: bytes
    row: Algorithm
    works: Callable[[Key], bool]


# The first tells more: what SoftHSM answers for a bad tag is what it answers when it is broken.
_KINDS: Final = (
    _Kind(b"jose-hsm:canary\0", CONTENT_ENCRYPTIONS["A256GCM"], _encrypts),
    _Kind(b"jose-hsm:canary\1", MACS["HS256"], _computes),
)
_REFUSALS: Final = (Fault.POLICY, Fault.BUG, Fault.REJECTED)
CANARY_IDS: Final = tuple(kind.key_id for kind in _KINDS)


class Canary:
    """A private secret key that every user of the token shares.

    A token in trouble answers searches with nothing and CKR_OK, and gives one error for bad input
    and for its own faults. Whoever finds the canary, or sees it work, knows better.
    """

    def __init__(self, session: Session, templates: Templates, *, is_kept: bool = True) -> None:
        """Find the canary or make it; the caller holds the boot lock, so there is one.

        Unless it ``is_kept``, one that is made is a session object, and gone with ``session``.
        It is of the first kind that the token does not refuse; some have AES-GCM and want to make
        the IV themselves. Raises ``TokenUnavailable`` if ``session`` does not see even the one it
        has just made, or if no kind works; then the cause is what the token answered last.
        """
        self._is_kept = is_kept
        self.was_there = False
        refusal = None
        for self._kind in _KINDS:
            try:
                self._handle = Handle.of(self._find_or_make(session, templates))
                if self._kind.works(Key(session, self._handle)):
                    return
            except PKCS11Error as error:
                if fault_of(error) not in _REFUSALS:
                    raise
                refusal = error
        reason = "the token does not use its keys"
        raise TokenUnavailable(reason, cause=Cause.CANARY) from refusal

    def is_found(self, session: Session) -> bool:
        """Tell whether ``session`` sees private objects now."""
        return bool(self._search(session))

    def works(self, session: Session) -> bool:
        """Tell whether ``session`` uses keys now."""
        try:
            return self._kind.works(Key(session, self._handle))
        except PKCS11Error:
            return False

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
                session.destroy(made)
                raise TokenUnavailable("the token does not show its keys", cause=Cause.CANARY)
        return found[0]

    def _search(self, session: Session) -> list[Object]:
        return session.find(
            {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: self._kind.key_id}
        )

    def _generate(self, session: Session, templates: Templates) -> Object:
        return session.generate_key(
            self._kind.row.kind.key_type,
            _BITS,
            id=self._kind.key_id,
            label=f"{LABEL_PREFIX}canary",
            store=self._is_kept,
            **templates.secret_generation([self._kind.row]),
        )
