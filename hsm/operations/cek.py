"""CEKs: made, unwrapped or agreed on for one message, as session objects.

The paths of a CEK (RFC 7516 §5.1, §5.2). ``TokenPath``: it is never outside the token. On all
others it, or the key that wraps it, passes through the memory of the process for that one message,
and the private key works in the token: ``cek_process``, ``cek_splitting``, ``cek_sealed`` and
``cek_agreed``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum, auto
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeVar

from pkcs11 import MechanismFlag, ObjectClass, PKCS11Error

from hsm.algorithms.families import (
    CEK_WRAPPING,
    ContentEncryption,
    KeyManagement,
)
from hsm.algorithms.kinds import AES
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.handles import Handle, Key, bind, temporary
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.messages import NO_AGREEMENT, Agreement
from hsm.operations import content
from hsm.operations.session_keys import SessionKeys

Result = TypeVar("Result")

# The proof has shown that the token unwraps a good CEK: whatever it answers for another one means
# bad padding or an odd size, and must look the same.
_NOT_UNWRAPPED: Final = (Fault.REJECTED, Fault.AMBIGUOUS, Fault.POLICY, Fault.BUG)
_WRAPPING_OVERHEAD_BYTES: Final = 8  # RFC 3394 §2.2.1
_ANY_AAD: Final = b"."
_WRAPPING: Final = {"mechanism": CEK_WRAPPING}


class Outcome(Enum):
    """How an unwrapping ended; only ``/keys/unwrap`` may tell it to anybody."""

    RECOVERED = auto()
    WRONG_SIZE = auto()
    REJECTED = auto()


class Unwrapped(NamedTuple):
    """``cek`` is a random one unless the outcome is ``RECOVERED`` (RFC 7516 §11.5).

    ``value`` is empty where it is in the token alone; it is wiped at the end.
    """

    cek: Keys
    outcome: Outcome
    value: bytes | bytearray = b""

    def __repr__(self) -> str:
        return "<Unwrapped>"


class Wrapped(NamedTuple):
    """A new CEK, and how its recipient gets it: from ``encrypted_key``, the header or both."""

    cek: Keys
    encrypted_key: bytes
    agreement: Agreement = NO_AGREEMENT


class NewCek(NamedTuple):
    """A CEK for new messages; ``value`` is empty where it is in the token alone."""

    keys: Keys
    value: bytes

    def __repr__(self) -> str:
        return "<NewCek>"


def generate_kek(session: Session, templates: Templates) -> Key:
    """Make the key under which CEKs are measured and kept: a session object, never stored.

    Made on the anchor session, which outlives all others.
    """
    kek = session.generate_key(
        AES.key_type,
        256,
        capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        mechanism=AES.generation,
        template=templates.for_one(CEK_WRAPPING),
    )
    return bind(session, kek)


class CekPath(ABC):
    """What all paths offer; ``residency`` says where a CEK is.

    ``takes_bare_rsa`` says that the token has to perform the bare RSA operation.
    """

    residency: ClassVar[Literal["token", "process"]]
    takes_bare_rsa: ClassVar[bool] = False

    def __init__(self, templates: Templates, kek: Handle) -> None:
        self._templates = templates
        self._kek = kek

    @contextmanager
    def wrapped(
        self, keys: Keys, row: Any, enc: ContentEncryption, agreement: Agreement = NO_AGREEMENT
    ) -> Iterator[Wrapped]:
        """Give a new CEK for one ``with`` block."""
        with self.new(keys, enc, is_shown=self.needs_value(enc)) as cek:
            yield self.wrap(keys, row, enc, cek, agreement)

    @contextmanager
    def new(self, keys: Keys, enc: ContentEncryption, *, is_shown: bool) -> Iterator[NewCek]:
        """Give a new CEK that nobody has yet, with its value if that ``is_shown``."""
        session, canary = keys.session, keys.canary
        if is_shown:
            value = session.generate_random(8 * enc.key_bytes)
            with self._imported(keys, enc, value) as imported:
                yield NewCek(imported, value)
        else:
            with temporary(self._generate(session, enc)) as cek:
                yield NewCek(Keys(session, canary, (cek,)), b"")

    def wrap(
        self, keys: Keys, row: Any, enc: ContentEncryption, cek: NewCek, agreement: Agreement
    ) -> Wrapped:
        """Return how the recipient that has ``keys`` gets ``cek``."""
        raise NotImplementedError  # both sides agree on the CEK

    def needs_value(self, _enc: ContentEncryption) -> bool:
        """Tell whether to wrap a CEK of ``enc`` takes its value."""
        return True

    def showing(self) -> "CekPath":
        """Return the path that shows CEKs of every ``enc``, of one that carries those split."""
        return self

    @abstractmethod
    def unwrapped(
        self,
        keys: Keys,
        row: Any,
        enc: ContentEncryption,
        encrypted_key: bytes,
        agreement: Agreement = NO_AGREEMENT,
    ) -> AbstractContextManager[Unwrapped]:
        """Give the CEK of a message for one ``with`` block, or a random one in its place.

        Bad padding and a CEK of the wrong size take the same steps as a good one.
        """

    def carries(self, enc: ContentEncryption) -> bool:
        """Tell whether the path takes CEKs of ``enc``: not every path takes CEKs that are split."""
        return len(enc.parts) == 1

    def works(self, session: Session) -> bool:
        """Tell whether the key-encryption key is still there: it wraps a throw-away CEK."""
        with temporary(self._generate(session, CONTENT_ENCRYPTIONS["A256GCM"])) as cek:
            self.kek(session).wrap_key(cek, **_WRAPPING)
        return True

    def kek(self, session: Session) -> Key:
        """Return the key-encryption key in the hands of ``session``."""
        return Key(session, self._kek)

    def _generate(self, session: Session, enc: ContentEncryption) -> Key:
        cek = session.generate_key(
            AES.key_type,
            8 * enc.key_bytes,
            **self._templates.secret_generation([enc], extractable=True),
        )
        return bind(session, cek)

    def _imported(
        self, keys: Keys, enc: ContentEncryption, value: bytes | bytearray
    ) -> AbstractContextManager[Keys]:
        """Give the objects that ``value`` is split into for one ``with`` block."""
        makes = SessionKeys(self._templates, keys.canary)
        return makes.imported(keys.session, enc, value, extractable=True)

    @contextmanager
    def _recovered(
        self, keys: Keys, enc: ContentEncryption, value: bytearray, outcome: Outcome
    ) -> Iterator[Unwrapped]:
        """Give the CEK ``value`` for one ``with`` block, and wipe it at the end."""
        try:
            with self._imported(keys, enc, value) as cek:
                yield Unwrapped(cek, outcome, value)
        finally:
            value[:] = bytes(len(value))


class TokenPath(CekPath):
    """The CEK stays in the token."""

    residency = "token"

    def wrap(
        self,
        keys: Keys,
        row: KeyManagement,
        enc: ContentEncryption,
        cek: NewCek,
        agreement: Agreement,
    ) -> Wrapped:
        """See ``CekPath``."""
        (whole,) = cek.keys.secrets
        encrypted_key = wrapping_key(keys, row).wrap_key(whole, **mechanism_of(row))
        return Wrapped(cek.keys, encrypted_key)

    def needs_value(self, _enc: ContentEncryption) -> bool:
        """See ``CekPath``."""
        return False

    @contextmanager
    def unwrapped(
        self,
        keys: Keys,
        row: KeyManagement,
        enc: ContentEncryption,
        encrypted_key: bytes,
        agreement: Agreement = NO_AGREEMENT,
    ) -> Iterator[Unwrapped]:
        """See ``CekPath``. The substitute is made before the unwrapping."""
        session, canary = keys.session, keys.canary
        with temporary(self._generate(session, enc)) as substitute:
            unwrapped = self._unwrap(keys, row, enc, encrypted_key)
            # A good padding makes an object, so a bad one does too: the times must not differ.
            with temporary(unwrapped or self._generate(session, enc)) as found:
                is_of_size = self._is_of_size(Keys(session, canary, (found,)), enc)
                outcome = outcome_of(row, is_valid=unwrapped is not None, is_of_size=is_of_size)
                cek = found if outcome is Outcome.RECOVERED else substitute
                yield Unwrapped(Keys(session, canary, (cek,)), outcome)

    def _unwrap(
        self, keys: Keys, row: KeyManagement, enc: ContentEncryption, encrypted_key: bytes
    ) -> Key | None:
        cek = unless_rejected(
            lambda: unwrapping_key(keys, row).unwrap_key(
                ObjectClass.SECRET_KEY,
                AES.key_type,
                encrypted_key,
                capabilities=enc.usages,
                template=self._templates.secret([enc], extractable=True),
                **mechanism_of(row),
            )
        )
        return None if cek is None else bind(keys.session, cek)

    def _is_of_size(self, cek: Keys, enc: ContentEncryption) -> bool:
        """Measure a CEK that the token will not measure: unwrapped keys have no CKA_VALUE_LEN.

        Only keys of 16, 24 and 32 bytes encrypt, and a wrapped key is 8 bytes longer than the key
        rounded up to 8: together they give the size.
        """
        try:
            content.seal(cek, enc, b"", _ANY_AAD)
            wrapped = self.kek(cek.session).wrap_key(cek.secrets[0], **_WRAPPING)
        except PKCS11Error as error:
            if fault_of(error) not in (Fault.POLICY, Fault.BUG):
                raise
            return False
        return len(wrapped) == enc.key_bytes + _WRAPPING_OVERHEAD_BYTES


def wrapping_key(keys: Keys, row: KeyManagement) -> Key:
    """Return what wraps a CEK: the public half of a pair, or the shared key."""
    return keys.public if row.kind.is_pair else keys.secrets[0]


def unwrapping_key(keys: Keys, row: KeyManagement) -> Key:
    """Return what unwraps a CEK: the private half of a pair, or the shared key."""
    return keys.private if row.kind.is_pair else keys.secrets[0]


def unless_rejected(unwrap: Callable[[], Result]) -> Result | None:
    """Return what ``unwrap`` returns, or ``None`` if the token says that its input is bad."""
    try:
        return unwrap()
    except PKCS11Error as error:
        if fault_of(error) not in _NOT_UNWRAPPED:
            raise
        return None


def outcome_of(row: KeyManagement, *, is_valid: bool, is_of_size: bool) -> Outcome:
    """Return how an unwrapping ended that had a good padding or not, and a CEK of that size."""
    if is_valid and is_of_size:
        return Outcome.RECOVERED
    return Outcome.WRONG_SIZE if is_valid and row.tells_size else Outcome.REJECTED


def mechanism_of(row: KeyManagement) -> dict[str, object]:
    """Return the mechanism as the verbs of a key take it."""
    return {"mechanism": row.mechanism, "mechanism_param": row.param}
