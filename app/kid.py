"""The forms of the names of keys: kids are of our choosing, aliases of callers'."""

import re
from typing import Final, Self

_KID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_ALIAS: Final = re.compile(r"[A-Za-z0-9._~:-]{1,128}", re.ASCII)
ALIAS_FORM: Final = "1 to 128 characters of A-Z a-z 0-9 . _ ~ : - and not like a UUID"
"""The form of aliases, and of names of key sets, for people."""

_NO_SEGMENT: Final = (".", "..")
"""What a path cannot hold (RFC 3986 §3.3)."""


class KeySetName(str):
    """Names the current version of a key set wherever a kid names a key.

    As a text it is no kid and no alias. A caller may send the same text for one all the same, in
    the same batch or message: so it is equal to no other text.
    """

    __slots__ = ()

    @classmethod
    def of(cls, name: str) -> Self:
        """Return it for the key set ``name``."""
        return cls(f"/{name}")

    def __eq__(self, other: object) -> bool:
        """Tell whether ``other`` names the same key set."""
        return isinstance(other, KeySetName) and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        """Tell the opposite, which ``str`` has a method of its own for."""
        return not self == other

    __hash__ = str.__hash__

    @property
    def name(self) -> str:
        """What the key set is called."""
        return self[1:]


def is_kid(text: str) -> bool:
    """Tell whether ``text`` is one that we could have given: any other string is unknown."""
    return _KID.fullmatch(text) is not None


def is_alias(text: str) -> bool:
    """Tell whether a key may be called ``text`` by callers: nobody may take it for a kid."""
    is_formed = _ALIAS.fullmatch(text) is not None and text not in _NO_SEGMENT
    return is_formed and not is_kid(text.lower())


def names_key(text: str) -> bool:
    """Tell whether ``text`` can name a key."""
    return is_kid(text) or is_alias(text.name if isinstance(text, KeySetName) else text)
