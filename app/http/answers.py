"""The answers to errors: a status for each in one table, and one JSON body."""

import errno
import logging
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException

import hsm
from app import current_request
from app.auth.asked import asked
from app.config import MAX_BODY_BYTES
from app.errors import (
    AliasTaken,
    AppError,
    AuditUnavailable,
    BadRequest,
    Forbidden,
    ForeignForm,
    ForeignOrigin,
    ForeignPage,
    HostExhausted,
    IssuerUnavailable,
    KeySetTaken,
    MisdirectedRequest,
    NotReady,
    RegistryUnavailable,
    RequestInProgress,
    RequestReused,
    TooManyAtOnce,
    TooManyFailures,
    TooManyKeys,
    Unauthorized,
)

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 2
_CACHED: Final = ("GET", "HEAD")
_NO_CONTENT: Final = HTTPStatus.NO_CONTENT
_COME_AGAIN: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_SCARCE: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT}
)

STATUS: Final[Mapping[type[Exception], HTTPStatus]] = MappingProxyType(
    {
        BadRequest: HTTPStatus.BAD_REQUEST,
        Unauthorized: HTTPStatus.UNAUTHORIZED,
        Forbidden: HTTPStatus.FORBIDDEN,
        ForeignOrigin: HTTPStatus.FORBIDDEN,
        ForeignPage: HTTPStatus.FORBIDDEN,
        ForeignForm: HTTPStatus.FORBIDDEN,
        MisdirectedRequest: HTTPStatus.MISDIRECTED_REQUEST,
        TooManyAtOnce: HTTPStatus.TOO_MANY_REQUESTS,
        TooManyFailures: HTTPStatus.TOO_MANY_REQUESTS,
        AliasTaken: HTTPStatus.CONFLICT,
        KeySetTaken: HTTPStatus.CONFLICT,
        TooManyKeys: HTTPStatus.UNPROCESSABLE_ENTITY,
        RequestReused: HTTPStatus.UNPROCESSABLE_ENTITY,
        RequestInProgress: HTTPStatus.SERVICE_UNAVAILABLE,
        IssuerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        RegistryUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
        AuditUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        HostExhausted: HTTPStatus.SERVICE_UNAVAILABLE,
        hsm.KeyNotFound: HTTPStatus.NOT_FOUND,
        hsm.UnsupportedAlgorithm: HTTPStatus.UNPROCESSABLE_ENTITY,
        hsm.CryptoFailure: HTTPStatus.UNPROCESSABLE_ENTITY,
        hsm.DecryptionFailed: HTTPStatus.UNPROCESSABLE_ENTITY,
        hsm.WrappedKeyRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
        hsm.TokenUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        hsm.KeyUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        hsm.BrokenSeal: HTTPStatus.SERVICE_UNAVAILABLE,
        hsm.WrongResult: HTTPStatus.INTERNAL_SERVER_ERROR,
        hsm.HsmError: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)

HTTP_ERRORS: Final[Mapping[int, tuple[str, str]]] = MappingProxyType(
    {
        400: ("bad_request", "Bad request"),
        404: ("not_found", "No such path"),
        405: ("method_not_allowed", "Method not allowed"),
        408: ("request_timeout", "The request did not come in time"),
        413: ("payload_too_large", f"The body is larger than {MAX_BODY_BYTES} bytes"),
        415: (
            "unsupported_media_type",
            "Send Content-Type: application/json, in UTF-8, without Content-Encoding",
        ),
        429: ("too_many_requests", "Too many requests"),
        500: ("internal_error", "Internal server error"),
    }
)


def register(app: Flask) -> None:
    """Answer every error of ``app`` in JSON."""
    app.register_error_handler(HTTPException, _respond)
    app.register_error_handler(Exception, _respond)
    app.after_request(_describe_no_content)
    app.after_request(_keep_from_caches)


class Answer(NamedTuple):
    """An answer: the status, and the body before it is JSON."""

    status: int
    body: dict[str, Any]


def status_of(error: Exception) -> int:
    """Return the status of the answer to ``error``."""
    if isinstance(error, HTTPException):
        return error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    return STATUS.get(type(error), HTTPStatus.INTERNAL_SERVER_ERROR)


def answer(error: Exception) -> Answer:
    """Return the answer to ``error``; log it if it is a fault of ours, or of the host."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SCARCE):
        logger.error("the host is exhausted", exc_info=error)
        error = HostExhausted()
    status = status_of(error)
    match error:
        case AppError() | hsm.HsmError():
            code, description = error.code, str(error)
        case _:
            known = status if status in HTTP_ERRORS else HTTPStatus.BAD_REQUEST
            code, description = HTTP_ERRORS[known]
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, HTTPException):
        # The traceback has no locals, so it shows code and no data.
        logger.error("internal error", exc_info=error)
    current_request.fail(code)
    return Answer(status, {"error": code, "description": description})


def _describe_no_content(response: Response) -> Response:
    """Leave out the type of a body that there is not (RFC 9110 §15.3.5)."""
    if response.status_code == _NO_CONTENT:
        response.headers.pop("Content-Type", None)
    return response


def _keep_from_caches(response: Response) -> Response:
    """Have no cache keep an answer unasked (RFC 9111 §4.2.2), if the view says nothing of it.

    It may not know who is calling: a certificate is in no header that it sees.
    """
    if asked().method in _CACHED:
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _respond(error: Exception) -> Response:
    status, body = answer(error)
    return completed(jsonify(body), error, status)


def completed(response: Response, error: Exception, status: int) -> Response:
    """Return ``response`` with the status, and the headers, of an answer to ``error``."""
    response.status_code = status
    for name, value in _headers(error, status):
        response.headers[name] = value
    return response


def _headers(error: Exception, status: int) -> Iterator[tuple[str, str]]:
    match error:
        case HTTPException():
            allowed = ("Allow", "Retry-After")
            yield from ((name, value) for name, value in error.get_headers() if name in allowed)
        case TooManyFailures():
            yield "Retry-After", str(error.retry_after_seconds)
        case _ if status in _COME_AGAIN:
            yield "Retry-After", str(RETRY_AFTER_SECONDS)
