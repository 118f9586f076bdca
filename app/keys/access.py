"""Finding keys for principals: 404 for what is not there, 403 for what is not theirs."""

from collections.abc import Callable, Iterable

from app.errors import Forbidden, RegistryUnavailable
from app.kid import is_kid
from app.registry import Key, Registry
from app.rights import Principal, Right
from hsm import KeyNotFound

Look = Callable[[Principal, Right, str], tuple[Key, bool] | None]
"""Returns the key of a kid, and whether the right to it is granted."""


class Access:
    """The one way to a key of a caller's: every right is checked here, and nowhere else."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def find(self, principal: Principal, kid: str, right: Right) -> Key:
        """Return the key; raise ``KeyNotFound``, or ``Forbidden`` without the right to it."""
        found = self._look(principal, right, kid) if is_kid(kid) else None
        if found is None:
            raise KeyNotFound
        key, is_granted = found
        if not principal.may(right, owner=key.owner, is_granted=is_granted):
            raise Forbidden
        return key


def at_once(registry: Registry, principal: Principal, kids: Iterable[str]) -> Access:
    """Return the way to the keys that ``kids`` name, all read now, with one query."""
    well_formed = {kid for kid in kids if is_kid(kid)}
    try:
        rows = registry.find_all_for(principal, well_formed)
    except RegistryUnavailable:
        return Access(_unavailable)

    def look(_principal: Principal, right: Right, kid: str) -> tuple[Key, bool] | None:
        key, granted = rows.get(kid, (None, frozenset()))
        return None if key is None else (key, right in granted)

    return Access(look)


def _unavailable(*_arguments: object) -> None:
    raise RegistryUnavailable
