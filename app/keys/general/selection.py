"""Which recipients and signatures of a message are those of the caller's keys."""

from collections.abc import Iterable, Sequence

from app import current_request
from app.errors import BadRequest
from app.keys.access import KeysOfMessage, performed
from app.registry import Key
from app.rights import Right
from app.schemas.messages.addressed import Addressed
from hsm import KeyNotFound

Chosen = tuple[Key, Addressed]


def recipients_of(
    keys: KeysOfMessage, recipients: Sequence[Addressed], kid: str | None, right: Right
) -> list[Chosen]:
    """Return the recipients to be tried, in order, each with its key.

    Without a ``kid`` that is the first that names a key which the caller has ``right`` on.
    Raises what ``find`` does, ``BadRequest`` if all name other keys of the caller's.
    """
    if kid is None:
        named = [(key, one) for one in recipients if (key := keys.usable(one.kid, right))]
        if not named:
            raise KeyNotFound
        return _noted((_fitting(named) or named)[:1])
    key = keys.find(kid, right)
    candidates = [(key, one) for one in addressed_to(keys, recipients, key)]
    return _noted(_fitting(candidates) or candidates[:1])


def addressed_to(keys: KeysOfMessage, several: Sequence[Addressed], key: Key) -> list[Addressed]:
    """Return those that name ``key``; if none does, those that somebody else has named.

    Raises ``BadRequest`` if all name other keys that the caller knows.
    """
    named = [one for one in several if keys.is_that(one.kid, key)]
    others = named or [one for one in several if not keys.is_another(one.kid, key)]
    if not others:
        raise BadRequest("Field 'kid' is not that of the header")
    return others


def note_verifiers(pairs: Iterable[tuple[Key | None, Addressed]]) -> None:
    """Have the logs name the keys that are to verify, each with the signature that names it."""
    own = [(str(key.kid), one.header) for key, one in pairs if key is not None]
    header = own[0][1] if own else None
    current_request.name_several([kid for kid, _ in own], header.alg if header else None)


def permits(key: Key, one: Addressed) -> bool:
    """Tell whether ``key`` is for the algorithm of one of several."""
    header = one.header
    if header is None:
        return False
    return key.spec.permits_under_any_name(performed(header.alg, header.enc))


def _fitting(several: Sequence[Chosen]) -> list[Chosen]:
    return [(key, one) for key, one in several if permits(key, one)]


def _noted(chosen: list[Chosen]) -> list[Chosen]:
    """Have the logs name the first, which decides."""
    key, one = chosen[0]
    header = one.header
    named = {"alg": header.alg, "enc": header.enc} if header else {}
    current_request.name(kid=str(key.kid), **named)
    return chosen
