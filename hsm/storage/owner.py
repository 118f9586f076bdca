"""What registry a token belongs to: a data object that says so (PKCS #11, CKO_DATA)."""

from typing import Any, Final

from pkcs11 import Attribute, Object, ObjectClass, PKCS11Error

from hsm.cryptoki.attributes import LABEL_PREFIX
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.faults import REFUSALS, fault_of
from hsm.cryptoki.session import Session

_NAME: Final[dict[Attribute, Any]] = {
    Attribute.CLASS: ObjectClass.DATA,
    Attribute.LABEL: f"{LABEL_PREFIX}registry",
}
_KEPT: Final[dict[Attribute, Any]] = {
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.APPLICATION: "jose-hsm",
}


def owner_of(session: Session, canary: Canary) -> str:
    """Return what registry the token belongs to, empty if it has never been written down.

    That is to be asked of a library that has just been initialised: SoftHSM may overlook what
    another process has made since. Raises ``TokenUnavailable`` if the token shows nothing, not even
    its canary.
    """
    found = session.find(_NAME)
    if not found:
        canary.require_found(session)
    return min((_value(session, one) for one in found), default="")


def assign(session: Session, registry: str) -> bool:
    """Write down what registry the token belongs to; return whether the token has such objects.

    Workers that start together may do so at once: one object too many says the same.
    """
    found = [(one, _value(session, one)) for one in session.find(_NAME)]
    try:
        if registry not in {value for _, value in found}:
            session.create_object(_NAME | _KEPT | {Attribute.VALUE: registry.encode("ascii")})
    except PKCS11Error as error:
        if fault_of(error) not in REFUSALS:
            raise
        return False
    for one, value in found:
        if value != registry:
            session.destroy(one)
    return True


def _value(session: Session, found: Object) -> str:
    return bytes(session.read(found, Attribute.VALUE)).decode("ascii", "replace")
