"""Header members that change what the others mean (RFC 7515 §4.1.11, RFC 7516 §4.1.3, RFC 7797)."""

from collections.abc import Mapping
from typing import Any, Final

from app.errors import BadRequest
from app.schemas.fields import fail

_SUPPORTED: Final = ["b64"]


def refuse_extensions(header: Mapping[str, Any]) -> bool:
    """Refuse each of them: no JWE has any. What is left is true: all is encoded."""
    if "crit" in header:
        fail(BadRequest("Header member 'crit' is not supported: no extension is"))
    _refuse_compression(header)
    if header.get("b64", True) is not True:
        fail(BadRequest("Header member 'b64' must be true (RFC 7797 is not supported)"))
    return True


def is_payload_encoded(header: Mapping[str, Any]) -> bool:
    """Tell whether a JWS is over its payload in base64url, or over the bytes of it (RFC 7797 §3).

    Refuses every other extension, and ``crit`` without the extension that it names.
    """
    if "crit" in header:
        if header["crit"] != _SUPPORTED:
            fail(BadRequest("Header member 'crit' must be [\"b64\"]: no other extension is known"))
        if "b64" not in header:
            fail(BadRequest("Header member 'b64' is required, as 'crit' names it"))
    _refuse_compression(header)
    is_encoded = header.get("b64", True)
    if not isinstance(is_encoded, bool):
        fail(BadRequest("Header member 'b64' must be true or false"))
    if not is_encoded and "crit" not in header:
        fail(BadRequest("Header member 'crit' must name 'b64', which is false (RFC 7797 §6)"))
    return is_encoded


def _refuse_compression(header: Mapping[str, Any]) -> None:
    if "zip" in header:
        fail(BadRequest("Header member 'zip' is not supported"))
