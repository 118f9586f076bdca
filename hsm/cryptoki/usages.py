"""Usage attributes (CKA_SIGN and the like), read back: what a token lets an object do."""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Any, Final

from pkcs11 import Attribute, MechanismFlag, Object, PKCS11Error, types
from pkcs11.exceptions import FunctionFailed

from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.material import Attributes
from hsm.errors import CryptoFailure

_NONE: Final = MechanismFlag(0)
_OF_PRIVATE: Final = (
    MechanismFlag.DECRYPT | MechanismFlag.SIGN | MechanismFlag.UNWRAP | MechanismFlag.DERIVE
)
_OF_PUBLIC: Final = MechanismFlag.ENCRYPT | MechanismFlag.VERIFY
USAGES: Final[Mapping[Attribute, MechanismFlag]] = MappingProxyType(
    {
        Attribute.ENCRYPT: MechanismFlag.ENCRYPT,
        Attribute.DECRYPT: MechanismFlag.DECRYPT,
        Attribute.SIGN: MechanismFlag.SIGN,
        Attribute.SIGN_RECOVER: MechanismFlag.SIGN_RECOVER,
        Attribute.VERIFY: MechanismFlag.VERIFY,
        Attribute.VERIFY_RECOVER: MechanismFlag.VERIFY_RECOVER,
        Attribute.WRAP: MechanismFlag.WRAP,
        Attribute.UNWRAP: MechanismFlag.UNWRAP,
        Attribute.DERIVE: MechanismFlag.DERIVE,
    }
)


def read(made: Object, names: Iterable[Attribute]) -> Attributes:
    """Return attributes of ``made`` by one question; what the object does not have is not there.

    Where the token answers nothing because of one that it does not know, each is asked for alone.
    """
    try:
        return made.get_attributes(list(names))
    except PKCS11Error:
        return dict(_read_singly(made, names))


def _read_singly(made: Object, names: Iterable[Attribute]) -> Iterator[tuple[Attribute, Any]]:
    for name in names:
        try:
            yield name, made[name]
        except PKCS11Error as error:
            if fault_of(error) is not Fault.BUG:
                raise


def require_usages(made: Object, usages: MechanismFlag, attributes: Attributes) -> None:
    """Raise unless ``made`` may do what was asked for: of ``usages``, which are those of a pair.

    Raises ``CryptoFailure`` if it may do more, as an RSA key may that NSS has unwrapped, and
    ``FunctionFailed`` if it may do less. What a public key may do gives nothing away, nor does that
    of a private one, where a token writes down the uses of both halves in each. ``attributes`` are
    what was ``read`` of it.
    """
    if isinstance(made, types.PublicKey):
        return
    asked, granted = usages, _granted(attributes)
    if isinstance(made, types.PrivateKey):
        asked, granted = asked & _OF_PRIVATE, granted & ~_OF_PUBLIC
    if granted & ~asked:
        raise CryptoFailure("The token permits more uses of this key than were asked for")
    if granted != asked:
        raise FunctionFailed


def _granted(attributes: Attributes) -> MechanismFlag:
    return reduce(or_, (flag for usage, flag in USAGES.items() if attributes.get(usage)), _NONE)
