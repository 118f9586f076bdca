"""The public keys of the issuer of JWTs, as they are published."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from threading import Event, Lock
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from app.auth.jwks_source import mark_of, reader_of
from app.errors import IssuerUnavailable
from app.jose import strict_json

logger = logging.getLogger(__name__)

PublicKey = RSAKey | ECKey | OKPKey

_FRESH_SECONDS: Final = 300.0
_PAUSE_SECONDS: Final = 10.0
_PATIENCE_SECONDS: Final = 1.0
_LONGEST_KID: Final = 100
_LEAST_RSA_BITS: Final = 2048
"""For each algorithm (RFC 7518 §3.3, §3.5)."""
_UNREADABLE: Final = (ValueError, KeyError, TypeError, JoseError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """One state of the JWK set; another ``version`` has other keys."""

    version: int
    content: bytes
    keys: Sequence[PublicKey]


class IssuerKeys:
    """The keys as last read.

    The set is read again when it is old or lacks a key, and a file when it changes, never more
    often than every few seconds, and by one request while others go on. Who lacks a key waits for
    that one, but not for a slow issuer. What was read last is kept while the source is away, and
    believed for ``believed_seconds``.
    """

    def __init__(
        self,
        location: str,
        *,
        believed_seconds: float = 86400.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = reader_of(location)
        self._mark = mark_of(location)
        self._believed_seconds = believed_seconds
        self._fresh_seconds = min(_FRESH_SECONDS, believed_seconds / 2)
        self._pause_seconds = min(_PAUSE_SECONDS, self._fresh_seconds)
        self._now = now
        self._turn = Lock()
        self._has_ended = Event()
        self._has_ended.set()
        self._keys: Keys | None = None
        self._marked: object = None
        self._read_at = self._tried_at = float("-inf")

    def current(self) -> Keys:
        """Return the keys; raise ``IssuerUnavailable`` if there are none, or none to believe."""
        mark = self._mark()
        if mark != self._marked or self._age_seconds > self._fresh_seconds:
            self._refresh(mark, is_urgent=mark != self._marked, waits=self._keys is None)
        if self._keys is None or self._age_seconds > self._believed_seconds:
            raise IssuerUnavailable
        return self._keys

    def newer_than(self, keys: Keys) -> Keys:
        """Return what the source has now, if it may be asked again, or is being asked."""
        self._refresh(self._marked, is_urgent=False, waits=True)
        return self._keys or keys

    @property
    def _age_seconds(self) -> float:
        return self._now() - self._read_at

    def _refresh(self, mark: object, *, is_urgent: bool, waits: bool) -> None:
        """Read the set if it is time to; who ``waits`` does so a moment for who reads it."""
        now = self._now()
        with self._turn:
            is_due = is_urgent or now - self._tried_at >= self._pause_seconds
            reads = is_due and self._has_ended.is_set()
            if reads:
                self._has_ended.clear()
                self._tried_at = now
        if reads:
            self._load(mark)
        elif waits:
            self._has_ended.wait(max(0.0, self._tried_at + _PATIENCE_SECONDS - now))

    def _load(self, mark: object) -> None:
        try:
            content = self._read()
            before = self._keys
            if before is None or content != before.content:
                version = before.version + 1 if before else 0
                self._keys = Keys(version=version, content=content, keys=_parse(content))
            self._read_at = self._now()
        # A RuntimeError: no thread is to be had.
        except (OSError, HTTPException, RuntimeError, *_UNREADABLE) as error:
            logger.warning("the JWK set of the issuer cannot be read: %s", type(error).__name__)
        finally:
            self._marked = mark
            self._has_ended.set()


def _parse(content: bytes) -> Sequence[PublicKey]:
    """Return the keys that can be read of a set; raise one of ``_UNREADABLE`` if none can."""
    found = map(_imported, strict_json.loads(content)["keys"])
    keys = [key for key in found if key is not None]
    if not keys:
        raise ValueError("there is no key that can be read")
    return keys


def _imported(jwk: Any) -> PublicKey | None:
    """Return a key; ``None`` of one that is not for us, which spoils no other (RFC 7517 §5)."""
    try:
        key = JWKRegistry.import_key(jwk)
        if isinstance(key, RSAKey) and key.public_key.key_size < _LEAST_RSA_BITS:
            raise ValueError("too short")
    except (*_UNREADABLE, UnsupportedAlgorithm) as error:
        kid = str(jwk.get("kid"))[:_LONGEST_KID] if isinstance(jwk, dict) else None
        logger.warning("the key %r of the issuer is left out: %s", kid, type(error).__name__)
        return None
    key.ensure_kid()
    return key if isinstance(key, RSAKey | ECKey | OKPKey) else None
