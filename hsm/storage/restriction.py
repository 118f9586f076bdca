"""What a key-encryption key may make of a blob: the token holds it to that, where it can.

Whoever has the PIN, the registry and this key could else have it unwrap a key that can be read. It
is tried whether the token takes CKA_UNWRAP_TEMPLATE (PKCS#11 v2.40 §4.10.2), and holds to it. There
is no CKA_WRAP_WITH_TRUSTED: who is to take the key to another token needs it without, and one that
never leaves is never wrapped.
"""

from typing import Any, Final

from pkcs11 import Attribute, Mechanism, MechanismFlag, PKCS11Error

from hsm.algorithms.kinds import AES
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.handles import Key, bind, temporary
from hsm.cryptoki.material import Attributes
from hsm.cryptoki.session import Session
from hsm.storage.bare import Packed

_MADE: Final = {Attribute.TOKEN: False, Attribute.PRIVATE: True, Attribute.SENSITIVE: True}
"""What every key is that is unwrapped here, also one that is to be wrapped again at once."""
_BITS: Final = 256
_TRIED: Final = CONTENT_ENCRYPTIONS["A256GCM"]


def restriction(session: Session, templates: Templates, mechanism: Mechanism) -> Attributes:
    """Return what to add to the template of a key-encryption key, nothing if it is of no use.

    Raises ``PKCS11Error`` if the token fails in a way that says nothing of that.
    """
    found = {Attribute.UNWRAP_TEMPLATE: Packed(_MADE)}
    try:
        made = session.generate_key(
            *(AES.key_type, _BITS),
            mechanism=AES.generation,
            capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
            template=templates.for_one(mechanism) | found,
        )
    except PKCS11Error as error:
        _require_refusal(error)
        return {}
    with temporary(bind(session, made)) as kek:
        return found if _is_held_to(session, templates, kek, mechanism) else {}


def _is_held_to(session: Session, templates: Templates, kek: Key, mechanism: Mechanism) -> bool:
    """Tell whether ``kek`` unwraps what is guarded, and nothing that can be read."""
    generation = templates.secret_generation([_TRIED], extractable=True)
    made = session.generate_key(_TRIED.kind.key_type, _BITS, **generation)
    with temporary(bind(session, made)) as key:
        wrapped = kek.wrap_key(key, mechanism=mechanism)
    good = templates.unwrapped_part(_TRIED)
    readable = good | {"template": good["template"] | {Attribute.SENSITIVE: False}}
    return _unwraps(session, kek, wrapped, mechanism, good) and not _unwraps(
        session, kek, wrapped, mechanism, readable
    )


def _unwraps(
    session: Session, kek: Key, wrapped: bytes, mechanism: Mechanism, arguments: dict[str, Any]
) -> bool:
    try:
        made = kek.unwrap_key(key_data=wrapped, mechanism=mechanism, **arguments)
    except PKCS11Error as error:
        _require_refusal(error)
        return False
    session.destroy(made)
    return True


def _require_refusal(error: PKCS11Error) -> None:
    """Raise ``error`` unless it says that the token does not take a template."""
    if fault_of(error) not in {Fault.BUG, Fault.POLICY}:
        raise error
