"""Which requests are audited: those that name or make a key, once the answer is known."""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from flask import Request, Response, current_app

from app.audit.log import AuditLog
from app.auth.client_address import ClientAddress
from app.current_request import RequestRecord
from app.errors import AuditUnavailable, RegistryUnavailable
from app.http.batches import Part
from app.http.endpoint import Audit
from app.observability import Metrics
from hsm import HsmError

logger = logging.getLogger(__name__)

_CLIENT_ERRORS: Final = 400
_SERVER_ERRORS: Final = 500
_UNAVAILABLE: Final = HTTPStatus.SERVICE_UNAVAILABLE
_REFUSED: Final = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)


class AuditHook:
    """Writes the line before the answer leaves: without a line there is no answer.

    ``take_back`` is called with the kid of a key that was made and has no line. ``audits`` says of
    each endpoint what has a line.
    """

    def __init__(
        self,
        log: AuditLog | None,
        metrics: Metrics,
        address: ClientAddress,
        take_back: Callable[[UUID], None],
        audits: Mapping[str, Audit],
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._address = address
        self._take_back = take_back
        self._audits = audits

    def end(self, request: Request, current: RequestRecord, response: Response) -> Response:
        """Return ``response``, or 503 if its line cannot be written."""
        status = response.status_code
        audit = self._audits.get(request.endpoint or "", Audit.NONE)
        if self._log is None or not _has_line(audit, status):
            _act_on(current)
            return response
        is_change = audit is Audit.CHANGE and status not in _REFUSED
        try:
            self._log.record(
                is_synced=is_change,
                **self._of_request(request, current),
                **_of_use(request.endpoint, current, status),
            )
        except OSError:
            self._failed()
            self._undo(current)
            return current_app.make_response(
                current_app.handle_user_exception(AuditUnavailable())  # as every error
            )
        self._metrics.audited("written")
        _act_on(current)
        return response

    def end_parts(self, request: Request, parts: Iterable[Part]) -> None:
        """Write the lines of the parts of a batch, or answer 503 where the line is missing."""
        audited = [
            (number, part)
            for number, part in enumerate(parts)
            if _has_line(self._audits[part.endpoint], part.answer.status)
        ]
        if self._log is None or not audited:
            return
        of_all = self._of_request(request, audited[0][1].record)
        uses: dict[Hashable, dict[str, Any]] = {}
        entries = [(_shared(uses, part, of_all), number) for number, part in audited]
        try:
            self._log.record_all(entries)
        except OSError:
            self._failed()
            for _, part in audited:
                part.fail(AuditUnavailable())
        else:
            self._metrics.audited("written", len(audited))

    def _of_request(self, request: Request, current: RequestRecord) -> dict[str, Any]:
        """Return what all lines of a request begin with."""
        return {
            **current.ids(),
            "principal": current.principal,
            "address": self._address.of(request),
        }

    def _undo(self, current: RequestRecord) -> None:
        """Undo the keys that the request made: its caller never learns of them."""
        for kid in current.new_kids:
            with suppress(HsmError, RegistryUnavailable):  # then it stays, and nobody can name it
                self._take_back(UUID(kid))

    def _failed(self) -> None:
        self._metrics.audited("failed")
        logger.exception("the audit log cannot be written")


def _act_on(current: RequestRecord) -> None:
    """Do what had to wait for the line; the janitor does what cannot be done now."""
    if current.when_audited is not None:
        with suppress(RegistryUnavailable):
            current.when_audited()


def _of_use(endpoint: str | None, current: RequestRecord, status: int) -> dict[str, Any]:
    """Return what was used, and how that ended."""
    return {
        "endpoint": endpoint,
        "kid": current.kid,
        "new_kid": current.new_kid,
        "alg": current.alg,
        "enc": current.enc,
        **({"kids": current.kids} if current.kids else {}),
        **({"new_kids": current.new_kids} if len(current.new_kids) > 1 else {}),
        **current.change,
        "status": status,
        "error": current.error,
    }


def _shared(
    uses: dict[Hashable, dict[str, Any]], part: Part, of_all: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return what the line of ``part`` has; parts that were used alike have the same one."""
    record, status = part.record, part.answer.status
    names = (part.endpoint, record.kid, *record.kids, record.alg, record.enc, status, record.error)
    if names not in uses:
        uses[names] = {**of_all, **_of_use(part.endpoint, record, status)}
    return uses[names]


def _has_line(audit: Audit, status: int) -> bool:
    """Tell whether a key was used, made, changed or refused, or may have been.

    A malformed request (4xx but for the refusals) touches none; nor does a use that found the
    token away. A destruction may have begun before that, so it is audited all the same.
    """
    if audit is Audit.NONE:
        return False
    if status == _UNAVAILABLE:
        return audit is Audit.CHANGE
    return status in _REFUSED or not _CLIENT_ERRORS <= status < _SERVER_ERRORS
