"""JOSE in bytes: base64url, headers, what is signed, what is authenticated."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import pybase64

from app import compact_json

_URL: Final = b"-_"
_PADDING: Final = ("", "===", "==", "=")


def encode(value: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return pybase64.b64encode_as_string(value, altchars=_URL).rstrip("=")


def decode(text: str) -> bytes:
    """Return the bytes of base64url ``text``; raise ``ValueError`` unless it is the canonical form.

    The library takes padding, warns of ``+`` and ``/``, and ignores the bits of the last character
    that stand for nothing; they are 0 in what encoding the last byte or two again gives.
    """
    if "+" in text or "/" in text or "=" in text:
        raise ValueError("not the alphabet of base64url")
    rest = len(text) % 4
    value = pybase64.b64decode(text + _PADDING[rest], altchars=_URL, validate=True)
    if rest and encode(value[1 - rest :]) != text[-rest:]:
        raise ValueError("not canonical base64url")
    return value


def protected_header(**members: Any) -> str:
    """Return a protected header with ``members`` in that order."""
    return encode(compact_json.dumps(members).encode("ascii"))


@lru_cache(maxsize=1024)
def plain_header(**names: str) -> str:
    """Return the protected header of short ``names`` alone; many messages have the same."""
    return protected_header(**names)


def header(others: Mapping[str, Any], **names: str) -> str:
    """Return the protected header of short ``names``, and of ``others`` after them."""
    return protected_header(**names, **others) if others else plain_header(**names)


def signing_input(protected: str, data: str, *, is_encoded: bool = True) -> bytes:
    """Return the JWS Signing Input of two encoded strings (RFC 7515 §5.1 step 5).

    Unless ``is_encoded`` it is over the bytes that ``data`` stands for (RFC 7797 §3).
    """
    if is_encoded:
        return f"{protected}.{data}".encode("ascii")
    return f"{protected}.".encode("ascii") + decode(data)


def compact(*parts: str | bytes) -> str:
    """Return the Compact Serialization (RFC 7515 §7.1, RFC 7516 §7.1); bytes are encoded."""
    return ".".join(part if isinstance(part, str) else encode(part) for part in parts)


def additional_data(protected: str, aad: str | None) -> bytes:
    """Return the AAD of encoded strings, as received (RFC 7516 §5.1 step 14)."""
    return (protected if aad is None else f"{protected}.{aad}").encode("ascii")
