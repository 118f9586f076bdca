"""What goes wrong in ``app``, with the code of the wire contract; its status is in ``http``."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Final

NOT_AN_OBJECT: Final = "The body must be one JSON object, strictly (RFC 8259), in UTF-8"


class AppError(Exception):
    """Base of the errors of ``app``; see ``HsmError`` for ``code`` and ``template``."""

    code: ClassVar[str]
    template: ClassVar[str] = "{}"

    def __init__(self, subject: object = "") -> None:
        super().__init__(self.template.format(subject))


class BadRequest(AppError):
    """The request is malformed; the text says which member, and never repeats its value."""

    code = "bad_request"


class Forbidden(AppError):
    """The key exists and the caller lacks the right."""

    code = "forbidden"
    template = "Access denied"


class ForeignOrigin(AppError):
    """A page of somebody else asks, and there is no authentication."""

    code = "forbidden"
    template = "Without authentication no pages of other origins are served"


class ForeignPage(AppError):
    """A page of somebody else asks, and the browser has added the certificate of who reads it."""

    code = "forbidden"
    template = "A page of another origin must send Content-Type: application/json"


class ForeignForm(AppError):
    """A form of the admin page that is not on a page of this service, or that nobody says is."""

    code = "forbidden"
    template = "The form must be sent by a browser from a page of this service"


class MisdirectedRequest(AppError):
    """The name that was asked for, or who asks, is not of this machine, without authentication."""

    code = "misdirected_request"
    template = "Without authentication only this machine is served, by a loopback name"


class Unauthorized(AppError):
    """No credentials, or bad ones: one text for all causes."""

    code = "unauthorized"
    template = "Authentication required"


class TooManyFailures(AppError):
    """Too many attempts to authenticate have failed; ``retry_after_seconds`` says how long."""

    code = "too_many_requests"
    template = "Too many failed attempts to authenticate"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__()
        self.retry_after_seconds = retry_after_seconds


class TooManyAtOnce(AppError):
    """Requests of the same principal have kept this one waiting for too long."""

    code = "too_many_requests"
    template = "Too many requests of this principal are being answered"


class AliasTaken(AppError):
    """Another key has the alias, whoever may know that key."""

    code = "conflict"
    template = "Field 'alias' is that of another key"


class KeySetTaken(AppError):
    """There is a key set of that name already, of other keys or of somebody else."""

    code = "conflict"
    template = "There is another key set of that name"


class TooManyKeys(AppError):
    """The owner of keys to be would have more than one may have."""

    code = "too_many_keys"
    template = "The owner may have {} keys, and would have more"


class RequestReused(AppError):
    """An Idempotency-Key came again with another request."""

    code = "idempotency_key_reused"
    template = "The Idempotency-Key has been used for another request"


class RequestInProgress(AppError):
    """A request with the same Idempotency-Key is being answered."""

    code = "unavailable"
    template = "The first request with this Idempotency-Key is not answered yet"


class IssuerUnavailable(AppError):
    """The keys of the issuer of JWTs have never been read."""

    code = "unavailable"
    template = "Service unavailable: the keys of the issuer cannot be read"


class RegistryCause(StrEnum):
    """Why the registry cannot answer: a word for programs."""

    STARTING = "starting"
    REGISTRY = "registry"
    MISSING = "missing"
    PERMISSION = "permission"
    SCHEMA = "schema"
    ANOTHER = "another_registry"
    UNCONFIRMED = "unconfirmed"


REASONS: Final[Mapping[RegistryCause, str]] = MappingProxyType(
    {
        RegistryCause.STARTING: "the registry has not been asked yet",
        RegistryCause.REGISTRY: "the registry does not answer",
        RegistryCause.MISSING: "there is no registry where it should be",
        RegistryCause.PERMISSION: "the registry may not be read and written by this user",
        RegistryCause.SCHEMA: (
            "the registry has no schema, or one that is too old: run `jose-hsm migrate`"
        ),
        RegistryCause.ANOTHER: "another registry than that of the token",
        RegistryCause.UNCONFIRMED: "the token has not said yet whether the registry is its own",
    }
)
"""The same for people."""


class RegistryUnavailable(AppError):
    """The registry cannot answer now, for a ``cause``."""

    code = "unavailable"
    template = "Service unavailable: {}"

    def __init__(self, cause: RegistryCause = RegistryCause.REGISTRY) -> None:
        super().__init__(REASONS[cause])
        self.cause = cause


class NotReady(AppError):
    """The service cannot serve now: where it is, a word for programs, and why."""

    code = "unavailable"

    def __init__(self, phase: str, cause: str | None, reason: str) -> None:
        super().__init__(f"{phase}: {cause}: {reason}")


class AuditUnavailable(AppError):
    """The audit log cannot be written, and nothing is done that is not in it."""

    code = "unavailable"
    template = "Service unavailable: the audit log cannot be written"


class HostExhausted(AppError):
    """The operating system gives no more of something just now, wherever that was noticed."""

    code = "unavailable"
    template = "Service unavailable: no file descriptors, memory or disk are left"
