"""One wrapped key: unwrapped to be tried, and only then to be kept."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pkcs11 import PKCS11Error
from pkcs11.exceptions import FunctionFailed

from hsm.algorithms.families import RsaOaep
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import PublicKey
from hsm.cryptoki.faults import Fault, fault_of
from hsm.cryptoki.handles import Key, bind, bind_public, temporary
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.cryptoki.usages import USAGES, read, require_usages
from hsm.errors import (
    CryptoFailure,
    DecryptionFailed,
    WrappedKeyRefused,
    WrongResult,
)
from hsm.importing.ways import Unwrap, WrappedKey
from hsm.life.offer import first_offered
from hsm.life.token import Token, round_trip
from hsm.life.work import CREATION_ATTEMPTS, Use
from hsm.messages import KeyRef, Made
from hsm.operations.cek import unless_rejected
from hsm.operations.jwe import OPENINGS

_PROBE: Final = b"jose-hsm"
_NOT_THAT_KEY: Final = (CryptoFailure, DecryptionFailed, WrongResult)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedImport(Use[Made]):
    """A use of a wrapping key whose verb keeps the unwrapped key as ``new``."""

    attempts: ClassVar[int] = CREATION_ATTEMPTS

    new: KeyRef

    def run(self, token: Token, session: Session, attempt: int) -> Made:
        """See ``Work``."""
        if attempt > 1:  # the one before may have failed halfway
            token.stores[self.new.storage].destroy(session, self.new)
        return Use.run(self, token, session, attempt)

    def arguments_on(self, token: Token) -> tuple[Any, ...]:
        """See ``Use``."""
        return (token, token.rows[self.name], self.new, *self.arguments)


def keep(  # noqa: PLR0913, PLR0917  # what is unwrapped, and what becomes of it
    keys: Keys,
    token: Token,
    row: RsaOaep,
    new: KeyRef,
    wrapped: WrappedKey,
    public: PublicKey | None,
) -> Made:
    """Keep the key as ``new``; ``keys`` are the wrapping key.

    Raises ``WrappedKeyRefused`` unless it is a key of that kind that works, and that of ``public``.
    It is tried as a session object: on the token there is never one that has not been.
    """
    session = keys.session
    way = token.imports.find().way(new.spec)
    if public is None and not _is_of_size(new.spec, wrapped):
        raise WrappedKeyRefused
    for _ in range(OPENINGS):
        with way.opened(keys, row, token.templates, wrapped) as unwrap:
            if is_that_key(keys, token, new.spec, unwrap, public):
                return _kept(session, token, new, unwrap, public)
    keys.canary.require_works(session)  # the key may be good and the token broken
    raise WrappedKeyRefused


def _kept(
    session: Session, token: Token, new: KeyRef, unwrap: Unwrap, public: PublicKey | None
) -> Made:
    try:
        return token.stores[new.storage].keep_unwrapped(session, new, unwrap, public)
    except CryptoFailure as error:
        raise WrappedKeyRefused from error
    except PKCS11Error as error:
        if fault_of(error) is not Fault.BUG:
            raise
        raise FunctionFailed from error  # see ``Creation``


def is_that_key(
    keys: Keys, token: Token, spec: KeySpec, unwrap: Unwrap, public: PublicKey | None
) -> bool:
    """Tell whether ``unwrap`` gives a key of ``spec`` that works, and that of ``public``.

    One that may do more than was asked for is not that key.
    """
    made = unless_rejected(lambda: unwrap(**token.templates.unwrapped(spec)))
    if made is None:
        return False
    with temporary(bind(keys.session, made)) as key:
        try:
            require_usages(made, token.templates.usages(spec.algorithms), read(made, USAGES))
            return bool(unless_rejected(lambda: _works(keys, token, spec, key, public)))
        except _NOT_THAT_KEY:
            return False


def _is_of_size(spec: KeySpec, wrapped: WrappedKey) -> bool:
    """Tell whether a secret key has the length that is claimed, as far as the wrapping says.

    A key of up to 7 bytes less is wrapped alike, and is found out by the trial.
    """
    bits = wrapped.secret_bits
    return bits == spec.bits and spec.algorithms[0].takes_bits(bits)


def _works(keys: Keys, token: Token, spec: KeySpec, key: Key, public: PublicKey | None) -> bool:
    session, row = keys.session, first_offered(spec, token.offers)
    if public is None:
        return round_trip(Keys(session, keys.canary, (key,)), token, row, _PROBE)
    made = session.create_object(token.templates.imported_public(None, spec, public))
    with temporary(bind_public(session, made)) as half:
        return round_trip(Keys.pair(keys.canary, half, key), token, row, _PROBE)
