"""Seals of keys that the registry keeps, anew where a restoration gives them to another owner."""

from base64 import b64encode

from app.operator.errors import BackupError
from app.registry.transfer import Row, key_of
from hsm import BrokenSeal, Hsm


def resealed(token: Hsm | None, before: Row, after: Row) -> Row:
    """Return ``after``, a row that was ``before`` in the backup, with a seal that covers it.

    A row whose seal was broken before is left as it is. Raises ``BackupError`` without a token.
    """
    old, new = key_of(before), key_of(after)
    if old.blob is None or old.sealed == new.sealed:
        return after
    if token is None:
        raise BackupError(
            f"the registry keeps key {old.kid}, which has another owner since: its seal takes the "
            "token"
        )
    try:
        seal = token.keeping.resealed(old.ref, new.sealed).seal
    except BrokenSeal:
        return after
    return after | {"seal": b64encode(seal).decode("ascii")}
