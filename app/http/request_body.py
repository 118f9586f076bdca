"""Request bodies as the server hands them over: whole, or with the reason why they are not."""

from typing import TYPE_CHECKING, Final, NoReturn

from werkzeug.exceptions import RequestEntityTooLarge

from app.config import MAX_BODY_BYTES

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class BodyWanted(BaseException):
    """The application would read a body that its client has not sent yet.

    No ``Exception``: no handler of errors may answer it. Who expects ``100 Continue`` gets the
    final answer instead if there is one before anybody reads (RFC 9110 §10.1.1).
    """


class Unreadable:
    """Stands for a body that has not come as it should."""

    def __init__(self, error: BaseException) -> None:
        self._error: Final = error

    def read(self, _size: int = -1) -> NoReturn:
        """Raise the reason."""
        raise self._error


def read(environ: "WSGIEnvironment") -> bytes:
    """Return the body of the request, however it was framed.

    Raises ``RequestEntityTooLarge`` above the limit and ``BadRequest`` if it is broken off.
    """
    # The server has made sure that it is a number; nothing is said of a chunked body.
    if int(environ.get("CONTENT_LENGTH") or 0) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    body: bytes = environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    return body
