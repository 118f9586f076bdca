"""Many operations in one request: each is answered as it would be if it had come alone."""

import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from app import current_request
from app.errors import NOT_AN_OBJECT, BadRequest
from app.http.answers import Answer, answer
from app.http.operations import OPERATIONS, kids_of
from app.keys.use import KeyUse
from app.rights import Principal
from app.schemas.fields import Offers
from hsm import Cause, TokenUnavailable

LONGEST_SECONDS: Final = 30.0
"""After so long what has not begun is refused; a proxy may wait a minute for all."""

Request = Mapping[str, Any]


class Part:
    """One request of a batch: its operation, what logs know of it, and its answer."""

    def __init__(self, request: Request, whole: current_request.RequestRecord) -> None:
        self._operation = OPERATIONS[request["op"]]
        self._body: dict[str, Any] | None = None
        self._id = {"id": request["id"]} if request.get("id") is not None else {}
        self.record = whole.part()
        self.answer: Answer

    @property
    def endpoint(self) -> str:
        """What would have answered it alone."""
        return self._operation.endpoint

    @property
    def kids(self) -> frozenset[str]:
        """The kids that it names, if it got as far as that."""
        return kids_of(self._body) if self._body else frozenset()

    @property
    def answer_body(self) -> dict[str, Any]:
        """What the answer to the batch has of it."""
        return {**self._id, "status": int(self.answer.status), "body": self.answer.body}

    def load(self, members: Any, offers: Offers) -> None:
        """Check its body."""
        current_request.switch(self.record)
        try:
            _require_object(members)
            self._body = self._operation.load(members, offers)
        except Exception as error:  # noqa: BLE001  # as Flask does; none may touch another part
            self.answer = answer(error)

    def perform(self, keys: KeyUse, principal: Principal, deadline: float) -> None:
        """Perform its operation, unless it has been refused."""
        body, self._body = self._body, None
        if body is None:
            return
        current_request.switch(self.record)
        try:
            _require_time(deadline)
            self.answer = Answer(HTTPStatus.OK, self._operation.perform(keys, principal, body))
        except Exception as error:  # noqa: BLE001  # as above
            self.answer = answer(error)

    def fail(self, error: Exception) -> None:
        """Answer ``error`` instead."""
        self.answer = answer(error)
        self.record.error = self.answer.body["error"]


def run(
    keys: KeyUse,
    principal: Principal,
    requests: Sequence[Request],
    offers: Offers,
    whole: current_request.RequestRecord,
) -> list[Part]:
    """Answer all ``requests``, in order."""
    deadline = time.monotonic() + LONGEST_SECONDS
    parts = [Part(request, whole) for request in requests]
    try:
        for part, request in zip(parts, requests, strict=True):
            part.load(request.get("body"), offers)
        with keys.together(principal, set().union(*(part.kids for part in parts))) as batch_keys:
            for part in parts:
                part.perform(batch_keys, principal, deadline)
    finally:
        current_request.switch(whole)
    return parts


def _require_object(members: Any) -> None:
    if not isinstance(members, dict):
        raise BadRequest(NOT_AN_OBJECT)


def _require_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TokenUnavailable("the batch takes too long", cause=Cause.BUSY)
