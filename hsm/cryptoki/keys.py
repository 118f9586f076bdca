"""The objects of one key while one operation has them."""

from collections.abc import Iterable
from typing import Self

from hsm.cryptoki.canary import Canary
from hsm.cryptoki.handles import Cek, Handle, Key, PublicHandle, PublicObject
from hsm.cryptoki.objects import PRIVATE, KeyObject
from hsm.cryptoki.session import Session


class Keys:
    """The objects of one key in the hands of one session.

    ``public`` and ``private`` are those of a pair, ``secrets`` those of a secret key in the order
    of its parts. There are only those that were asked for. ``canary`` tells whether the token is
    well that refuses to use them.
    """

    __slots__ = ("canary", "private", "public", "secrets", "session")

    public: PublicObject
    private: Key

    def __init__(self, session: Session, canary: Canary, secrets: Cek = ()) -> None:
        self.session = session
        self.canary = canary
        self.secrets = secrets

    @classmethod
    def bound(
        cls, session: Session, canary: Canary, handles: Iterable[tuple[KeyObject, Handle]]
    ) -> Self:
        """Return the objects of these handles, bound to ``session``."""
        keys = cls(session, canary)
        for key_object, handle in handles:
            if isinstance(handle, PublicHandle):
                keys.public = PublicObject(session, handle)
            elif key_object is PRIVATE:
                keys.private = Key(session, handle)
            else:
                keys.secrets += (Key(session, handle),)
        return keys

    @classmethod
    def pair(cls, canary: Canary, public: PublicObject, private: Key) -> Self:
        """Return the two objects of a pair."""
        keys = cls(public.lent, canary)
        keys.public, keys.private = public, private
        return keys
