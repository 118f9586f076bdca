"""The errors that leave ``hsm``. ``hsm.cryptoki.faults`` makes them of return values (CKR_*)."""

from enum import StrEnum
from typing import ClassVar, Self


class Cause(StrEnum):
    """Why the token cannot answer: a word for programs."""

    STARTING = "starting"
    MODULE = "module"
    PERMISSION = "permission"
    TOKEN = "token"  # noqa: S105  # not a password
    PIN = "pin"
    CANARY = "canary"
    LOST = "lost"
    BUSY = "busy"
    INTERNAL = "internal"


class HsmError(Exception):
    """Base of every error that leaves ``hsm``; says nothing that a caller must not know.

    ``code`` is the error code of the wire contract, ``template`` its description. Raised as
    itself it means a fault of ours.
    """

    code: ClassVar[str] = "internal_error"
    template: ClassVar[str] = "Internal server error"

    def __init__(self, subject: str = "") -> None:
        self.subject = subject
        super().__init__(self.template.format(subject))


class WrongResult(HsmError):
    """The token gave a result that does not hold; ``subject`` names its kind. Nobody gets it."""

    cause = Cause.INTERNAL


class KeyNotFound(HsmError):
    """No such key, neither for callers nor on the token."""

    code = "not_found"
    template = "Key not found"


class UnsupportedAlgorithm(HsmError):
    """An algorithm that is unknown, of the wrong class, or not offered by this token."""

    code = "unsupported_algorithm"
    template = "{}"

    @classmethod
    def not_offered(cls, name: str, reason: str) -> Self:
        """Return the refusal of an algorithm that this token, or its setting, lacks."""
        return cls(f"'{name}' is not available: {reason}")


class CryptoFailure(HsmError):
    """The key's type, size, algorithm or state does not permit the operation."""

    code = "crypto_failure"
    template = "{}"


class DecryptionFailed(HsmError):
    """Every failed decryption and unwrapping; one text, whatever the cause (RFC 7516 §11.5)."""

    code = "decryption_failed"
    template = "Decryption failed"


class WrappedKeyRefused(HsmError):
    """A wrapped key that cannot be imported; one text, whatever the cause, as for decryption."""

    code = "crypto_failure"
    template = "The wrapped key cannot be imported"


class TokenUnavailable(HsmError):
    """The token cannot answer now; the same request may succeed later."""

    code = "unavailable"
    template = "Service unavailable: {}"

    def __init__(self, subject: str = "", *, cause: Cause = Cause.TOKEN) -> None:
        """``cause`` is for programs, ``subject`` tells people."""
        self.cause = cause
        super().__init__(subject)


class KeyUnavailable(TokenUnavailable):
    """A key that is kept wrapped cannot be used; that says nothing of the token."""


class BrokenSeal(KeyUnavailable):
    """What the registry says of a key is not what was sealed: somebody else has changed it."""

    def __init__(self) -> None:
        super().__init__("the row of the key was changed by others")


def require(is_right: bool) -> None:
    """Raise ``HsmError`` if a trial did not end as it must."""
    if not is_right:
        raise HsmError
