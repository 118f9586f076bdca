"""Finding keys for principals: 404 for what is not there, 403 for what is not theirs."""

import re
from typing import Final
from uuid import UUID

from app.errors import Forbidden
from app.registry import Key, Registry
from app.rights import Principal, Right
from hsm import KeyNotFound

# One that we could have given: any other string is unknown.
_KID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Access:
    """The one way to a key of a caller's: every right is checked here, and nowhere else."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def find(self, principal: Principal, kid: str, right: Right) -> Key:
        """Return the key; raise ``KeyNotFound``, or ``Forbidden`` without the right to it."""
        found = (
            self._registry.find_for(principal, right, UUID(kid)) if _KID.fullmatch(kid) else None
        )
        if found is None:
            raise KeyNotFound
        key, is_granted = found
        if not principal.may(right, owner=key.owner, is_granted=is_granted):
            raise Forbidden
        return key
