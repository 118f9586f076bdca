"""Many uses of one key with one loan: what they have in common is done once."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Final

from hsm.cryptoki.objects import objects_of
from hsm.cryptoki.pool import TURN_SECONDS
from hsm.cryptoki.session import Session
from hsm.life.token import Token
from hsm.life.work import Use
from hsm.messages import KeyRef
from hsm.operations import content, jwe, mac, signing

Verb = Callable[..., Any]

_VERBS: Final[Mapping[str, Callable[[bool], Verb]]] = MappingProxyType(
    {
        "encrypt": lambda is_checked: partial(jwe.seal_directly, is_checked=is_checked),
        "decrypt": lambda _is_checked: content.unseal,
        "sign": lambda _is_checked: signing.sign,
        "verify": lambda _is_checked: signing.verify,
        "mac": lambda is_checked: mac.compute_twice if is_checked else mac.compute,
        "verify_mac": lambda _is_checked: mac.verify,
    }
)
"""What methods of ``Hsm`` do; of some it can be chosen whether what is new is checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series(Use[Any]):
    """Uses of one key with each of ``data``, as many as begin before its turn is over.

    Their results are appended to ``done``, also of those before one that fails. Nothing is tried
    again here: whoever is told of no result uses the key for that one alone.
    """

    attempts: ClassVar[int] = 1

    data: Iterable[tuple[Any, ...]] = field(repr=False)
    done: list[Any] = field(repr=False)

    def run(self, token: Token, session: Session, attempt: int) -> None:
        """See ``Work``."""
        token.require_offered(self.name)
        until = time.monotonic() + TURN_SECONDS
        shared = self.arguments_on(token)
        with token.stores[self.ref.storage].lent(session, self.ref, self.objects) as keys:
            for one in self.data:
                self.done.append(self.verb(keys, *shared, *one))
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
        verb=_VERBS[verb](is_checked),
        arguments=(),
        data=data,
        done=done,
    )
