"""Many uses of one key with one loan: what they have in common is done once."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple

from hsm.cryptoki.keys import Keys
from hsm.cryptoki.objects import PRIVATE, PUBLIC, objects_of
from hsm.cryptoki.pool import TURN_SECONDS
from hsm.cryptoki.repeated import Repeatedly
from hsm.cryptoki.session import Session
from hsm.life.token import Token
from hsm.life.work import Use
from hsm.messages import KeyRef
from hsm.operations import content, jwe, mac, signing

Verb = Callable[..., Any]


class _Verb(NamedTuple):
    """How a method of ``Hsm`` does it once, and what does it again and again with one key.

    Of some it can be chosen whether what is new is checked.
    """

    once: Callable[[bool], Verb]
    repeated: Callable[[bool], Callable[[Keys, Any], Repeatedly | None]] = lambda _: _not_repeated


def _not_repeated(_keys: Keys, _row: Any) -> None:
    """Say that each use is made as if there were no other."""


_VERBS: Final[Mapping[str, _Verb]] = MappingProxyType(
    {
        "encrypt": _Verb(
            lambda is_checked: partial(jwe.seal_directly, is_checked=is_checked),
            lambda is_checked: partial(jwe.repeated_seal_directly, is_checked=is_checked),
        ),
        "decrypt": _Verb(lambda _: content.unseal, lambda _: content.repeated_unseal),
        "sign": _Verb(lambda _: signing.sign, lambda _: signing.repeated),
        "verify": _Verb(lambda _: signing.verify),
        "mac": _Verb(
            lambda is_checked: mac.compute_twice if is_checked else mac.compute,
            lambda is_checked: partial(mac.repeated, is_checked=is_checked),
        ),
        "verify_mac": _Verb(lambda _: mac.verify, lambda _: mac.repeated_verify),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series(Use[Any]):
    """Uses of one key with each of ``data``, as many as begin before its turn is over.

    Their results are appended to ``done``, also of those before one that fails. Nothing is tried
    again here: whoever is told of no result uses the key for that one alone.
    """

    attempts: ClassVar[int] = 1

    repeated: Callable[[Keys, Any], Repeatedly | None]
    data: Iterable[tuple[Any, ...]] = field(repr=False)
    done: list[Any] = field(repr=False)

    def run(self, token: Token, session: Session, attempt: int) -> None:
        """See ``Work``."""
        token.require_offered(self.name)
        until = time.monotonic() + TURN_SECONDS
        shared = self.arguments_on(token)
        with token.stores[self.ref.storage].lent(session, self.ref, self.objects) as keys:
            repeatedly = self.repeated(keys, *shared)
            for one in self.data:
                made = repeatedly(*one) if repeatedly else None
                self.done.append(self.verb(keys, *shared, *one) if made is None else made)
                if time.monotonic() >= until:
                    return


def series(  # noqa: PLR0913  # what each is done with, and where it goes
    verb: str,
    ref: KeyRef,
    name: str,
    data: Iterable[tuple[Any, ...]],
    done: list[Any],
    *,
    is_checked: bool,
) -> Series:
    """Return the uses that do ``verb`` with each of ``data``, under the key itself."""
    return Series(
        ref=ref,
        objects=objects_of(ref.spec),
        name=name,
        verb=_VERBS[verb].once(is_checked),
        repeated=_VERBS[verb].repeated(is_checked),
        arguments=(),
        data=data,
        done=done,
    )


def signing_with(verb: Verb, ref: KeyRef, alg: str, data: bytes) -> Use[bytes]:
    """Return one use of a pair, which signs with its private half and may check with the other."""
    return Use(ref=ref, objects=(PRIVATE, PUBLIC), name=alg, verb=verb, arguments=(data,))


def require_destroyable(token: Token, session: Session, *, ref: KeyRef) -> None:
    """Raise ``CryptoFailure`` if the token destroys an object of ``ref`` for nobody."""
    token.stores[ref.storage].require_destroyable(session, ref)
