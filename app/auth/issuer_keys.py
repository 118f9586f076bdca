"""The public keys of the issuer of JWTs, from a file or a URL."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final
from urllib.request import HTTPRedirectHandler, build_opener

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from app.errors import IssuerUnavailable
from app.jose import strict_json

logger = logging.getLogger(__name__)

PublicKey = RSAKey | ECKey | OKPKey

_MAX_AGE_SECONDS: Final = 300.0
_PAUSE_SECONDS: Final = 10.0
_FETCH_SECONDS: Final = 3.0
_MOST_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """One state of the JWK set; another ``version`` has other keys."""

    version: int
    content: bytes
    keys: Sequence[PublicKey]


class IssuerKeys:
    """The keys as last read.

    A file is read again when it changes. A URL is fetched again when what is known is old or lacks
    a key, never more often than every few seconds, and by one request while others go on. What
    was read last is kept while the source is away.
    """

    def __init__(self, location: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._read = _reader_of(location)
        self._mark = _mark_of(location)
        self._now = now
        self._lock = Lock()
        self._keys: Keys | None = None
        self._marked: object = None
        self._read_at = self._tried_at = float("-inf")

    def current(self) -> Keys:
        """Return the keys; raise ``IssuerUnavailable`` if they have never been read."""
        mark = self._mark()
        is_old = self._now() - self._read_at > _MAX_AGE_SECONDS
        if self._keys is None or mark != self._marked or (mark is None and is_old):
            self._refresh(mark, is_urgent=mark != self._marked)
        if self._keys is None:
            raise IssuerUnavailable
        return self._keys

    def newer_than(self, keys: Keys) -> Keys:
        """Return what the source has now, if it may be asked again."""
        self._refresh(self._marked, is_urgent=False)
        return self._keys or keys

    def _refresh(self, mark: object, *, is_urgent: bool) -> None:
        # Who has keys does not wait for those who fetch.
        if not self._lock.acquire(blocking=self._keys is None):
            return
        try:
            if is_urgent or self._now() - self._tried_at >= _PAUSE_SECONDS:
                self._tried_at = self._now()
                self._load()
                self._read_at = self._now()
                self._marked = mark
        except (OSError, ValueError, KeyError, TypeError, JoseError) as error:
            self._marked = mark
            logger.warning("the JWK set of the issuer cannot be read: %s", type(error).__name__)
        finally:
            self._lock.release()

    def _load(self) -> None:
        content = self._read()
        before = self._keys
        if before is None or content != before.content:
            version = before.version + 1 if before else 0
            self._keys = Keys(version=version, content=content, keys=_parse(content))


def _parse(content: bytes) -> Sequence[PublicKey]:
    members: Any = strict_json.loads(content)
    keys = KeySet.import_key_set(members)
    return [key for key in keys if isinstance(key, RSAKey | ECKey | OKPKey)]


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:
        """Follow nothing: the configured URL is the one that is trusted."""


def _is_url(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _reader_of(location: str) -> Callable[[], bytes]:
    if not _is_url(location):
        return Path(location).read_bytes
    opener = build_opener(_NoRedirects)

    def fetch() -> bytes:
        with opener.open(location, timeout=_FETCH_SECONDS) as response:
            content: bytes = response.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError("too long")
        return content

    return fetch


def _mark_of(location: str) -> Callable[[], object]:
    """Return what tells, without reading, whether a file has changed; nothing does for a URL."""
    if _is_url(location):
        return lambda: None

    def mark() -> object:
        try:
            found = Path(location).stat()
        except OSError:
            return "away"
        return found.st_mtime_ns, found.st_size, found.st_ino

    return mark
