"""One key of our own on the token, by which we see whether the token is telling the truth."""

from typing import Final

from pkcs11 import Attribute, GCMParams, Mechanism, Object, ObjectClass, PKCS11Error, Session

from hsm.algorithms import AES, CONTENT_ENCRYPTIONS
from hsm.errors import TokenUnavailable
from hsm.faults import Fault, fault_of
from hsm.handles import Handle, Key
from hsm.templates import LABEL_PREFIX, Templates

CANARY_ID: Final = b"jose-hsm:canary\0"

_ROW: Final = CONTENT_ENCRYPTIONS["A256GCM"]
_SONG: Final = b"tweet"


class Canary:
    """A private AES key that every user of the token shares.

    A token in trouble answers searches with nothing and CKR_OK, and gives one error for bad input
    and for its own faults. Whoever can find the canary, or hear it sing, knows better.
    """

    def __init__(self, session: Session, templates: Templates) -> None:
        """Find the canary or make it; the caller holds the boot lock, so there is one.

        Raises ``TokenUnavailable`` if ``session`` does not see even the one it has just made.
        """
        found = self._search(session)
        if not found:
            made = self._generate(session, templates)
            found = self._search(session)
            if not found:
                made.destroy()
                raise TokenUnavailable("the token does not show its keys")
        self._handle = Handle.of(found[0])

    def is_found(self, session: Session) -> bool:
        """Tell whether ``session`` sees private objects now."""
        return bool(self._search(session))

    def sings(self, session: Session) -> bool:
        """Tell whether ``session`` encrypts and decrypts now."""
        try:
            song = {
                "mechanism": Mechanism.AES_GCM,
                "mechanism_param": GCMParams(session.generate_random(96), _SONG, 128),
            }
            key = Key(session, self._handle)
            return bool(key.decrypt(key.encrypt(_SONG, **song), **song) == _SONG)
        except PKCS11Error:
            return False

    def blames_input(self, error: PKCS11Error, session: Session) -> bool:
        """Tell whether ``error`` is the word of a healthy token for bad input.

        SoftHSM 2.6 says CKR_GENERAL_ERROR for a bad tag and for a broken token alike: only if the
        canary still sings is it the tag.
        """
        fault = fault_of(error)
        return fault is Fault.REJECTED or (fault is Fault.AMBIGUOUS and self.sings(session))

    @staticmethod
    def _search(session: Session) -> list[Object]:
        return list(
            session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: CANARY_ID})
        )

    @staticmethod
    def _generate(session: Session, templates: Templates) -> Object:
        return session.generate_key(
            AES.key_type,
            8 * _ROW.key_bytes,
            id=CANARY_ID,
            label=f"{LABEL_PREFIX}canary",
            store=True,
            **templates.secret_generation([_ROW]),
        )
