"""The API as a client sees it, over HTTP or in this process."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Self
from weakref import ReferenceType, ref

import requests

from scripts.tokens import IMPORTS
from tests.shared.waiting import LONGEST_ANSWER, until

PREFIX = "/v1/crypto"
NOT_AVAILABLE = re.compile("'([^' ]+)[^']*' is not available")
NOT_TAKEN = "The token does not accept this key"
OPENING = "Service unavailable: the token is being opened"
UNCONFIRMED = "Service unavailable: the token has not said yet whether the registry is its own"


def b64u(value: bytes | str) -> str:
    """Return base64url without padding; text is UTF-8."""
    octets = value.encode() if isinstance(value, str) else value
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64u(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def header(**members: Any) -> str:
    """Return a protected header with ``members`` in that order."""
    return b64u(json.dumps(members, separators=(",", ":")))


@dataclass(frozen=True)
class Answer:
    """A response: status, parsed body (``None`` if empty), headers, and the bytes."""

    status: int
    body: Any
    headers: Any
    content: bytes

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and error code."""
        return self.status, self.body["error"]


class NotOffered(AssertionError):
    """The token does not offer the algorithm ``name``, or not with one of these ``crvs``."""

    def __init__(self, name: str, crvs: Iterable[str], answer: object) -> None:
        super().__init__(answer)
        self.names = frozenset({name, *crvs})


def require_offered(answer: Answer, body: Any) -> None:
    """Raise ``NotOffered`` if ``answer`` says that the token lacks what ``body`` asks for."""
    if answer.status == 422 and answer.body["description"] == NOT_TAKEN:
        raise NotOffered(IMPORTS, (), answer)
    lacking = answer.status == 422 and NOT_AVAILABLE.match(answer.body["description"])
    if lacking:
        raise NotOffered(lacking[1], _crvs(body), answer)


def leave_out_if_lacking(lacks: frozenset[str], *names: str) -> None:
    """Have the test left out if the token is known to lack one of ``names``."""
    for name in lacks.intersection(names):
        raise NotOffered(name, (), "it is not asked for")


class Api:
    """Calls by path under /v1/crypto (or an absolute one); every non-2xx must be our JSON."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send
        self._shared: dict[str, Any] = {}

    @classmethod
    def over_http(cls, url: str, *, bearer: str | None = None, **options: Any) -> Self:
        """Call the service at ``url`` on connections that stay open, with a bearer token.

        ``options`` are those of a session of ``requests``: ``cert``, ``verify``.
        """
        session = requests.Session()
        session.trust_env = False
        _sessions_of(url).append(ref(session))
        for name, value in options.items():
            setattr(session, name, value)
        if bearer is not None:
            session.headers["Authorization"] = f"Bearer {bearer}"

        def send(method: str, path: str, **arguments: Any) -> requests.Response:
            return session.request(method, url + path, timeout=LONGEST_ANSWER.seconds, **arguments)

        return cls(send)

    def request(self, method: str, path: str, **arguments: Any) -> Answer:
        """Send a request as it is."""
        absolute = path if path.startswith(("/v1", "/.well-known")) else PREFIX + path
        response = self._send(method, absolute, **arguments)
        content = getattr(response, "content", None)
        if content is None:
            content = response.data
        answer = Answer(
            status=response.status_code,
            body=json.loads(content) if content and _is_json(response) else None,
            headers=response.headers,
            content=content,
        )
        if not 200 <= answer.status < 400:
            assert answer.headers["Content-Type"] == "application/json"
            assert set(answer.body) == {"error", "description"}, answer
        return answer

    def post(self, path: str, body: Any, **arguments: Any) -> Answer:
        """POST ``body`` as JSON."""
        return self.request("POST", path, json=body, **arguments)

    def get(self, path: str, **arguments: Any) -> Answer:
        """GET."""
        return self.request("GET", path, **arguments)

    def ok(self, path: str, body: Any) -> Any:
        """POST ``body``; return the body of the response, which must be 200.

        A service that has just begun says that it is opening its token, and is asked again. Raises
        ``NotOffered`` where that is why.
        """
        answer = until(lambda: _unless_opening(self.post(path, body)))
        require_offered(answer, body)
        assert answer.status == 200, answer
        return answer.body

    def delete(self, kid: str) -> Answer:
        """DELETE a key."""
        return self.request("DELETE", f"/keys/{kid}")

    def create(self, **members: Any) -> Any:
        """Create a key; return its description."""
        return self.ok("/keys", members)

    def shared(self, **members: Any) -> Any:
        """Return a key that all tests with the same ``members`` use, and none changes.

        It takes no time but for the first of them: an RSA key costs as much as a hundred requests.
        """
        name = json.dumps(members, sort_keys=True)
        if name not in self._shared:
            self._shared[name] = self.create(**members)
        return self._shared[name]


@cache
def _sessions_of(url: str) -> list[ReferenceType[requests.Session]]:
    return []


def hang_up(url: str) -> None:
    """Close the connections with the service at ``url`` that wait for a request.

    A service that stops waits for them, too: some seconds, in which a test would do nothing.
    """
    for reference in tuple(_sessions_of(url)):
        if session := reference():
            session.close()


def _crvs(body: Any) -> Iterator[str]:
    """The curves that a request names."""
    members = body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    if isinstance(body, dict) and isinstance(body.get("crv"), str):
        yield body["crv"]
    for member in members:
        yield from _crvs(member)


def _unless_opening(answer: Answer) -> Answer | None:
    is_opening = answer.status == 503 and answer.body["description"] in {OPENING, UNCONFIRMED}
    return None if is_opening else answer


def _is_json(response: Any) -> bool:
    media_type: str = response.headers.get("Content-Type", "")
    return media_type.split(";", maxsplit=1)[0].endswith("json")
