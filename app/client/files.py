"""What files hold: JSON objects, and messages in Compact Serialization or as JSON."""

import json
from typing import IO, Any

from app.jose import encoding
from app.terminal.failure import CommandFailed


def encoded(file: IO[bytes]) -> str:
    """Return all that ``file`` holds, in base64url."""
    return encoding.encode(file.read())


def message(file: IO[bytes], member: str) -> dict[str, Any]:
    """Return the members of the message in ``file``, that of a compact one being ``member``.

    Raises ``CommandFailed``.
    """
    octets = file.read().strip()
    if is_json(octets):
        return json_object(octets, name=file.name)
    try:
        return {member: octets.decode("ascii")}
    except UnicodeDecodeError:
        raise CommandFailed(f"{file.name} is no {member.upper()}") from None


def is_json(octets: bytes) -> bool:
    """Tell whether a file can be a JSON object, and nothing else that commands read."""
    return octets.lstrip().startswith(b"{")


def json_object(octets: bytes, *, name: str) -> dict[str, Any]:
    """Return the JSON object of the file ``name``; raise ``CommandFailed`` if it holds none."""
    try:
        value = json.loads(octets)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CommandFailed(f"{name} holds no JSON object")
    return value
