"""Many operations in one request: each is answered as it would be if it had come alone."""

import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
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
        self.operation = OPERATIONS[request["op"]]
        self.body: dict[str, Any] | None = None
        self._id = {"id": request["id"]} if request.get("id") is not None else {}
        self.record = whole.part()
        self.answer: Answer

    @property
    def endpoint(self) -> str:
        """What would have answered it alone."""
        return self.operation.endpoint

    @property
    def kids(self) -> frozenset[str]:
        """The kids that it names, if it got as far as that."""
        return kids_of(self.body) if self.body else frozenset()

    @property
    def alike(self) -> Hashable:
        """What other parts have, too, that can be performed in one series with it."""
        alike = self.operation.alike(self.body) if self.body else None
        return alike or self

    @property
    def answer_body(self) -> dict[str, Any]:
        """What the answer to the batch has of it."""
        return {**self._id, "status": int(self.answer.status), "body": self.answer.body}

    def load(self, members: Any, offers: Offers) -> None:
        """Check its body."""
        current_request.switch(self.record)
        try:
            _require_object(members)
            self.body = self.operation.load(members, offers)
        except Exception as error:  # noqa: BLE001  # as Flask does; none may touch another part
            self.answer = answer(error)

    def perform(self, keys: KeyUse, principal: Principal, deadline: float) -> None:
        """Perform its operation, unless it has been refused."""
        body, self.body = self.body, None
        if body is None:
            return
        current_request.switch(self.record)
        try:
            _require_time(deadline)
            self.answer = Answer(HTTPStatus.OK, self.operation.perform(keys, principal, body))
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
            for alike in _by_likeness(parts):
                _perform(alike, batch_keys, principal, deadline, whole)
    finally:
        current_request.switch(whole)
    return parts


def _by_likeness(parts: Iterable[Part]) -> Iterable[list[Part]]:
    """Return the parts that can be performed together, in the order of the first of each."""
    found: dict[Hashable, list[Part]] = {}
    for part in parts:
        found.setdefault(part.alike, []).append(part)
    return found.values()


def _perform(
    alike: Sequence[Part],
    keys: KeyUse,
    principal: Principal,
    deadline: float,
    whole: current_request.RequestRecord,
) -> None:
    """Perform parts that are alike: many at a time, and alone while it does not go well.

    After each turn of a session the key is looked at again, and with it the right to use it.
    """
    is_well = len(alike) > 1
    while alike:
        current_request.switch(whole)
        is_in_time = time.monotonic() <= deadline
        done = _perform_together(alike, keys, principal) if is_well and is_in_time else 0
        if not done:
            alike[0].perform(keys, principal, deadline)
            is_well = alike[0].answer.status == HTTPStatus.OK
        alike = alike[done or 1 :]


def _perform_together(alike: Sequence[Part], keys: KeyUse, principal: Principal) -> int:
    """Perform the first of the parts, as far as all goes well; return how many that are.

    Whatever is wrong with the next one is not answered here: performed alone, it is tried again,
    and answered as if it had come alone.
    """
    answers: list[dict[str, Any]] = []
    with suppress(Exception):
        bodies = [part.body or {} for part in alike]
        answers = alike[0].operation.perform_all(keys, principal, bodies)
    for part, body in zip(alike, answers, strict=False):
        part.answer = Answer(HTTPStatus.OK, body)
    return len(answers)


def _require_object(members: Any) -> None:
    if not isinstance(members, dict):
        raise BadRequest(NOT_AN_OBJECT)


def _require_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TokenUnavailable("the batch takes too long", cause=Cause.BUSY)
