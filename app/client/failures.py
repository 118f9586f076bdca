"""What a service or the way to it answers in place of what was asked for."""

import json
from http import HTTPStatus
from http.client import HTTPMessage
from typing import Any

from app.terminal.failure import CommandFailed


class Refused(CommandFailed):
    """The service does not do it, however often it is asked."""

    exit_code = 3


class Unavailable(CommandFailed):
    """The service cannot do it now, or nobody answers for it."""

    exit_code = 4


def refusal(status: int, headers: HTTPMessage, content: bytes) -> CommandFailed:
    """Return what an answer other than 2xx says, in one line with the name of the request."""
    is_passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
    text = f"{_reason(status, headers, content)}{_named(headers)}"
    return (Unavailable if is_passing else Refused)(printable(text))


def no_answer() -> CommandFailed:
    """Return what an answer says that is 2xx, and not one of a service."""
    return refusal(HTTPStatus.BAD_GATEWAY, HTTPMessage(), b"")


def printable(text: str) -> str:
    """Return ``text`` without what would tell a terminal to do something."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _reason(status: int, headers: HTTPMessage, content: bytes) -> str:
    try:
        body: Any = json.loads(content)
        return f"{body['error']}: {body['description']}"
    except (ValueError, RecursionError, TypeError, KeyError):
        place = headers.get("Location")
        led = f"leads to {place}, where no token is sent"
        return f"{status} {led if place else 'is no answer of a jose-hsm'}"


def _named(headers: HTTPMessage) -> str:
    after, request = headers.get("Retry-After"), headers.get("X-Request-Id")
    parts = [f"again in {after} s" if after else "", f"request {request}" if request else ""]
    named = ", ".join(filter(None, parts))
    return f" ({named})" if named else ""
