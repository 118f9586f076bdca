"""Errors get a status in one table, and one JSON body."""

import errno
import logging
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException

import hsm
from app import exchange

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 2
_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT})
NOT_AN_OBJECT: Final = "The body must be one JSON object, strictly (RFC 8259), in UTF-8"


class AppError(Exception):
    """Base of the errors of ``app``; ``code`` is that of the wire contract."""

    code: ClassVar[str]


class BadRequest(AppError):
    """The request is malformed; the text says which member, and never repeats its value."""

    code = "bad_request"


class Forbidden(AppError):
    """The key exists and the caller lacks the right."""

    code = "forbidden"

    def __init__(self) -> None:
        super().__init__("Access denied")


class Unauthorized(AppError):
    """No credentials, or bad ones: one text for all causes."""

    code = "unauthorized"

    def __init__(self) -> None:
        super().__init__("Authentication required")


class TooManyFailures(AppError):
    """Too many attempts to authenticate have failed; ``retry_after_seconds`` says how long."""

    code = "too_many_requests"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("Too many failed attempts to authenticate")
        self.retry_after_seconds = retry_after_seconds


class RequestReused(AppError):
    """An Idempotency-Key came again with another request."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("The Idempotency-Key has been used for another request")


class RequestInProgress(AppError):
    """A request with the same Idempotency-Key is being answered."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("The first request with this Idempotency-Key is not answered yet")


class IssuerUnavailable(AppError):
    """The keys of the issuer of JWTs have never been read."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("Service unavailable: the keys of the issuer cannot be read")


class RegistryUnavailable(AppError):
    """The database cannot answer now."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("Service unavailable: the registry does not answer")


class NotReady(AppError):
    """The service cannot serve now: where it is, a word for programs, and why."""

    code = "unavailable"

    def __init__(self, phase: str, cause: str | None, reason: str) -> None:
        super().__init__(f"{phase}: {cause}: {reason}")


class AuditUnavailable(AppError):
    """The audit log cannot be written, and nothing is done that is not in it."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("Service unavailable: the audit log cannot be written")


class HostExhausted(AppError):
    """The operating system gives no more of something just now, wherever that was noticed."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("Service unavailable: no file descriptors, memory or disk are left")


STATUS: Final[Mapping[type[Exception], HTTPStatus]] = MappingProxyType(
    {
        BadRequest: HTTPStatus.BAD_REQUEST,
        Unauthorized: HTTPStatus.UNAUTHORIZED,
        Forbidden: HTTPStatus.FORBIDDEN,
        TooManyFailures: HTTPStatus.TOO_MANY_REQUESTS,
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
        hsm.TokenUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
        hsm.WrongResult: HTTPStatus.INTERNAL_SERVER_ERROR,
        hsm.HsmError: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)

HTTP_ERRORS: Final[Mapping[int, tuple[str, str]]] = MappingProxyType(
    {
        400: ("bad_request", "Bad request"),
        404: ("not_found", "Key not found"),
        405: ("method_not_allowed", "Method not allowed"),
        413: ("payload_too_large", "The body is larger than 2097152 bytes"),
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


class Answer(NamedTuple):
    """What a caller is told: the status, and the body before it is JSON."""

    status: int
    body: dict[str, Any]


def answer(error: Exception) -> Answer:
    """Return the answer to ``error``; log those that are faults of ours, or of the host."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SCARCE):
        logger.error("the host is exhausted", exc_info=error)
        error = HostExhausted()
    match error:
        case AppError() | hsm.HsmError():
            status = STATUS[type(error)]
            code, description = error.code, str(error)
        case HTTPException():
            status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
            known = status if status in HTTP_ERRORS else HTTPStatus.BAD_REQUEST
            code, description = HTTP_ERRORS[known]
        case _:
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            code, description = HTTP_ERRORS[status]
    if status is HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, HTTPException):
        # The traceback has no locals, so it shows code and no data.
        logger.error("internal error", exc_info=error)
    exchange.fail(code)
    return Answer(int(status), {"error": code, "description": description})


def _respond(error: Exception) -> Response:
    status, body = answer(error)
    response = jsonify(body)
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
        case _ if status == HTTPStatus.SERVICE_UNAVAILABLE:
            yield "Retry-After", str(RETRY_AFTER_SECONDS)
