"""Requests that a client may send twice and wants to be answered once (Idempotency-Key)."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from app.errors import BadRequest

_LONGEST: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentRequest:
    """Who asked, a hash of the Idempotency-Key, and a fingerprint of what was asked.

    The body of an import holds a key. Its fingerprint is made under the Idempotency-Key, of which
    no more than a hash is kept: without it nobody can try out what the fingerprint was made of.
    """

    principal: str
    request: str
    fingerprint: str

    @classmethod
    def of(
        cls, principal: str, idempotency_key: str, path: str, body: bytes
    ) -> "IdempotentRequest":
        """Return what names the request; raise ``BadRequest`` for a key that is none."""
        is_text = idempotency_key.isascii() and idempotency_key.isprintable()
        if not (is_text and 0 < len(idempotency_key) <= _LONGEST):
            raise BadRequest(f"Header Idempotency-Key must be 1 to {_LONGEST} printable characters")
        key = idempotency_key.encode("ascii")
        what = path.encode("utf-8") + b"\0" + body
        return cls(
            principal=principal,
            request=hashlib.sha256(key).hexdigest(),
            fingerprint=hmac.new(key, what, hashlib.sha256).hexdigest(),
        )
