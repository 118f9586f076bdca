"""A service at its address, and one request after the other.

``http.client`` of the standard library is all that is needed: nothing is redirected, and no proxy
is looked for, so that a token goes to whom it is for and to nobody else.
"""

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from app import compact_json
from app.client.failures import Unavailable, no_answer, printable, refusal
from app.client.token_file import read_token
from app.settings import is_loopback
from app.terminal.failure import CommandFailed

API: Final = "/v1/crypto"
MOST_LISTED: Final = 200
_PATIENCE_SECONDS: Final = 120.0  # longer than the service takes over anything


class Answer(dict[str, Any]):
    """An object of JSON. One without a member that is looked for is no answer of a service."""

    def __missing__(self, member: str) -> Any:
        """Raise ``Unavailable``."""
        raise no_answer()


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service, and as whom it is called: without a token as nobody."""

    url: SplitResult
    token: str | None = field(default=None, repr=False)

    @classmethod
    def at(cls, url: str | None, token_file: Path | None) -> Self:
        """Return the service at ``url``; raise ``CommandFailed`` for what is no safe address."""
        if not url:
            raise CommandFailed("which service? Say --url URL, or set JOSE_HSM_URL")
        return cls(url=_checked(url), token=read_token(token_file) if token_file else None)

    def get(self, *path: str, **query: str | None) -> Any:
        """Return the answer to GET."""
        return self.ask("GET", with_query(path_of(*path), query))

    def post(self, *path: str, body: Any, once: str | None = None) -> Any:
        """Return the answer to POST, which makes nothing anew that ``once`` names already."""
        return self.ask("POST", path_of(*path), body, {"Idempotency-Key": once} if once else {})

    def put(self, *path: str, body: Any) -> Any:
        """Return the answer to PUT."""
        return self.ask("PUT", path_of(*path), body)

    def delete(self, *path: str, body: Any = None) -> Any:
        """Return the answer to DELETE, which is empty if nothing is left to be told of."""
        if body is not None:
            return self.ask("DELETE", path_of(*path), body)
        if self.call("DELETE", path_of(*path)) is not None:
            raise no_answer()
        return None

    def listed(self, name: str, **filters: str | None) -> Iterator[dict[str, Any]]:
        """Give each item of a list, page after page; raise ``Unavailable`` for what is none."""
        after: str | None = None
        asked = set[str]()
        while True:
            page = self.get(name, limit=str(MOST_LISTED), after=after, **filters)
            items, after = page[name], page["after"]
            if not (isinstance(items, list) and all(isinstance(each, Answer) for each in items)):
                raise no_answer()
            yield from items
            if after is None:
                return
            if not isinstance(after, str) or after in asked:  # the same pages would come for ever
                raise no_answer()
            asked.add(after)

    def ask(self, *request: Any) -> Any:
        """Return the answer to a ``call`` that has one: an object.

        Others than a jose-hsm may answer anything. Raises ``Refused`` and ``Unavailable``.
        """
        answer = self.call(*request)
        if not isinstance(answer, Answer):
            raise no_answer()
        return answer

    def call(
        self, method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Return the answer: parsed if it is JSON, else bytes, and ``None`` if it is empty.

        Raises ``Refused`` and ``Unavailable``.
        """
        connection = self._connection()
        try:
            content = None if body is None else compact_json.dumps(body).encode()
            sent = self._headers(content) | {**(headers or {})}
            connection.request(method, self.url.path.rstrip("/") + target, content, sent)
            response = connection.getresponse()
            return _answer(response, response.read())
        except (OSError, HTTPException) as error:
            reason = printable(str(error) or type(error).__name__)
            raise Unavailable(f"no answer from {self.url.netloc}: {reason}") from error
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        host, port = self.url.hostname or "", self.url.port
        if self.url.scheme == "http":
            return HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
        context = ssl.create_default_context()
        return HTTPSConnection(host, port, timeout=_PATIENCE_SECONDS, context=context)

    def _headers(self, content: bytes | None) -> dict[str, str]:
        media_type = {} if content is None else {"Content-Type": "application/json"}
        return media_type | ({"Authorization": f"Bearer {self.token}"} if self.token else {})


def path_of(*parts: str) -> str:
    """Return a path of the API; a name may hold any character."""
    return "/".join((API, *(quote(part, safe="", errors="surrogateescape") for part in parts)))


def with_query(path: str, query: Mapping[str, str | None]) -> str:
    """Return the target of a request that asks for those that are given."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, errors='surrogateescape')}" if given else path


def _answer(response: HTTPResponse, content: bytes) -> Any:
    if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        raise refusal(response.status, response.headers, content)
    if not response.headers.get_content_type().endswith("json"):
        return content or None
    try:
        answer = json.loads(content, object_hook=Answer)
    except (ValueError, RecursionError):
        raise no_answer() from None
    if not isinstance(answer, Answer):
        raise no_answer()
    return answer


def _checked(text: str) -> SplitResult:
    url = _split(text)
    if url.username is not None or url.query or url.fragment:
        raise CommandFailed("--url holds more than an address; an API token is in --token-file")
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise CommandFailed("http is for this machine only, as others can read it: use https")
    return url


def _split(text: str) -> SplitResult:
    with suppress(ValueError):
        url = urlsplit(text)
        is_typed = text.isascii() and text.isprintable() and " " not in text
        if is_typed and url.scheme in {"http", "https"} and url.hostname and url.port != 0:
            url.hostname.encode("idna")  # ValueError: a part between dots is empty, or too long
            return url
    raise CommandFailed("--url must be like https://keys.example")
