"""The units of work that are tried again after a fault of the session."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, TypeVar

from pkcs11 import PKCS11Error
from pkcs11.exceptions import FunctionFailed

from hsm.cryptoki.faults import Fault, fault_of, translate
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.objects import KeyObject
from hsm.cryptoki.session import Session
from hsm.errors import CryptoFailure, DecryptionFailed, HsmError, KeyNotFound
from hsm.life.token import Token
from hsm.messages import Agreement, KeyRef, Made
from hsm.operations.cek import Outcome, Unwrapped
from hsm.operations.jwe import Transport
from hsm.storage.store import Material, Store

Result = TypeVar("Result")

ATTEMPTS: Final = 2
CREATION_ATTEMPTS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(ABC, Generic[Result]):
    """Work on the token that is done again, on another session, if the session is at fault.

    ``takes_seconds`` puts it into the lane of RSA generation. The process ends if it takes longer
    than ``deadline_seconds``, by default those of the settings.
    """

    attempts: ClassVar[int] = ATTEMPTS

    takes_seconds: bool = False
    deadline_seconds: float | None = None

    @abstractmethod
    def run(self, token: Token, session: Session, attempt: int) -> Result:
        """Do it; ``attempt`` counts from 1. What must not happen twice has to look after that."""

    def failure(self, error: PKCS11Error) -> HsmError:
        """Return what callers get if the last attempt ends with ``error``."""
        return translate(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand(Work[Result]):
    """Work that uses no key of ours."""

    verb: Callable[[Token, Session], Result]

    def run(self, token: Token, session: Session, attempt: int) -> Result:
        """See ``Work``."""
        return self.verb(token, session)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use(Work[Result]):
    """One use of the key ``ref`` for the algorithm ``name``: a verb of a family on its objects.

    The verb gets the keys, the algorithm as the token performs it, and ``arguments``.
    """

    ref: KeyRef
    objects: tuple[KeyObject, ...]
    name: str
    verb: Callable[..., Result]
    arguments: tuple[Any, ...] = field(repr=False)

    def run(self, token: Token, session: Session, attempt: int) -> Result:
        """See ``Work``."""
        token.require_offered(self.name)
        with token.stores[self.ref.storage].lent(session, self.ref, self.objects) as keys:
            return self.verb(keys, *self.arguments_on(token))

    def arguments_on(self, token: Token) -> tuple[Any, ...]:
        """Return what the verb gets beside the keys."""
        return (token.rows[self.name], *self.arguments)

    def failure(self, error: PKCS11Error) -> HsmError:
        """See ``Work``. Each attempt has looked for the objects anew.

        One is being destroyed and still found here, or it is the key-encryption key that is gone.
        """
        return KeyNotFound() if fault_of(error) is Fault.KEY_GONE else translate(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial(Use[Result]):
    """A use whose verb gets the token too, to find out what the key does on it."""

    def arguments_on(self, token: Token) -> tuple[Any, ...]:
        """See ``Use``."""
        return (token, *self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportUse(Use[Result]):
    """One use of a key that transports, or agrees on, CEKs of ``enc``."""

    enc: str

    def arguments_on(self, token: Token) -> tuple[Any, ...]:
        """See ``Use``."""
        return (token.transport(self.name, self.enc), *self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwrapping(TransportUse[Made]):
    """A use whose verb keeps the CEK as the key ``new``; see ``keep``."""

    new: KeyRef

    def run(self, token: Token, session: Session, attempt: int) -> Made:
        """See ``Work``."""
        if attempt > 1:  # the one before may have failed halfway
            token.stores[self.new.storage].destroy(session, self.new)
        return TransportUse.run(self, token, session, attempt)

    def arguments_on(self, token: Token) -> tuple[Any, ...]:
        """See ``Use``."""
        transport = token.transport(self.name, self.enc)
        return (transport, token.stores[self.new.storage], self.new, *self.arguments)


def keep(  # noqa: PLR0913, PLR0917  # the parts of a JWE, and what becomes of it
    keys: Keys,
    transport: Transport,
    store: Store,
    new: KeyRef,
    encrypted_key: bytes,
    agreement: Agreement,
) -> Made:
    """Keep the CEK of ``encrypted_key`` as the key ``new``.

    Raises ``DecryptionFailed`` if the padding is bad, ``CryptoFailure`` if a CEK came out that is
    not of the size that its ``enc`` takes.
    """

    def kept(unwrapped: Unwrapped) -> Made:
        if unwrapped.outcome is Outcome.REJECTED:
            raise DecryptionFailed
        if unwrapped.outcome is Outcome.WRONG_SIZE:
            raise CryptoFailure(f"The unwrapped key is not of the size of {transport.enc.name}")
        return store.keep(new, transport.path.kek(keys.session), unwrapped.cek.secrets)

    try:
        return transport.opened(keys, encrypted_key, agreement, kept)
    except DecryptionFailed:
        keys.canary.require_works(keys.session)  # the padding may be good and the token broken
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation(Work[Made]):
    """The key ``ref``, generated or created from ``material``."""

    attempts: ClassVar[int] = CREATION_ATTEMPTS

    ref: KeyRef
    material: Material | None = field(default=None, repr=False)

    def run(self, token: Token, session: Session, attempt: int) -> Made:
        """See ``Work``."""
        store = token.stores[self.ref.storage]
        if attempt > 1:  # the one before may have failed halfway
            store.destroy(session, self.ref)
        try:
            return store.make(session, self.ref, self.material)
        except (PKCS11Error, ValueError) as error:
            if isinstance(error, PKCS11Error) and fault_of(error) is not Fault.BUG:
                raise
            if attempt == self.attempts:
                raise CryptoFailure("The token does not accept this key") from error
            # While its files change, SoftHSM finds fault with good templates, and shows objects
            # without their attributes.
            raise FunctionFailed from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Destruction(Work[None]):
    """The end of every object of the key ``ref``."""

    ref: KeyRef

    def run(self, token: Token, session: Session, attempt: int) -> None:
        """See ``Work``."""
        token.stores[self.ref.storage].destroy(session, self.ref)
