"""Many operations in one request: each is answered as it would be if it had come alone."""

import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from marshmallow import ValidationError

from app import current_request
from app.errors import NOT_AN_OBJECT, BadRequest
from app.http.answers import Answer, answer
from app.http.operations import OPERATIONS, Body, MessageOperation, kids_of
from app.keys.batch.one_at_a_time import ONE_AT_A_TIME
from app.keys.use import KeyUse
from app.kid import is_kid
from app.rights import Principal
from app.schemas.fields import Offers
from hsm import Cause, TokenUnavailable

LONGEST_SECONDS: Final = 30.0
"""After so long what has not begun is refused; a proxy may wait a minute for all."""

_OK: Final = HTTPStatus.OK
_KID: Final = "kid"
_DATA: Final = "data"

Request = Mapping[str, Any]


class Checked(NamedTuple):
    """A body that is good: what it has in common with others, and the kids that it names.

    ``names`` are what its record has for kid, alg and enc.
    """

    body: Body
    alike: Hashable | None
    kids: frozenset[str]
    names: tuple[str | None, ...]

    def __repr__(self) -> str:
        return "<Checked>"  # there may be plaintext in it


class Bodies:
    """Checks the bodies of one batch, for a token that makes ``offers``."""

    def __init__(self, offers: Offers) -> None:
        self._offers: Final = offers
        self._known: Final[dict[Hashable, Checked]] = {}

    def check(
        self,
        operation: MessageOperation,
        members: dict[str, Any],
        record: current_request.RequestRecord,
    ) -> Checked:
        """Return the body of a request; note what it names in ``record``, the current one.

        Of one that differs from a good one in its kid and its data alone, only those are checked.
        Raises what ``MessageOperation.load`` does.
        """
        others = dict(members)
        kid, data = others.pop(_KID, None), others.pop(_DATA, None)
        common = (operation.endpoint, *others.items()) if _are_texts(others) else None
        good = self._known.get(common)
        if good is not None and isinstance(kid, str) and is_kid(kid):
            try:
                return _like(good, operation, kid, data, record)
            except ValidationError:  # no ``suppress``, which costs as much as to look at the kid
                pass  # the whole of it is checked, for what is to be said
        body = operation.load(members, self._offers)
        names = (record.kid, record.alg, record.enc)
        checked = Checked(body, operation.alike(body), kids_of(body), names)
        if common and checked.alike and operation.differs_in_data:
            self._known[common] = checked._replace(body=dict(body))
        return checked


class Part:
    """One request of a batch: its operation, what logs know of it, and its answer."""

    def __init__(self, request: Request, whole: current_request.RequestRecord) -> None:
        self.operation = OPERATIONS[request["op"]]
        self.endpoint = self.operation.endpoint
        self.checked: Checked | None = None
        self._id = {"id": request["id"]} if request.get("id") is not None else {}
        self.record = whole.part()
        self.answer: Answer

    @property
    def kids(self) -> frozenset[str]:
        """The kids that it names, if it got as far as that."""
        return self.checked.kids if self.checked else frozenset()

    @property
    def alike(self) -> Hashable:
        """What other parts have, too, that can be performed in one series with it."""
        return (self.checked and self.checked.alike) or self

    @property
    def answer_body(self) -> dict[str, Any]:
        """What the answer to the batch has of it."""
        return {**self._id, "status": int(self.answer.status), "body": self.answer.body}

    @property
    def body(self) -> Body:
        """Its body, empty if it was refused."""
        return self.checked.body if self.checked else {}

    def load(self, members: Any, bodies: Bodies) -> None:
        """Check its body."""
        current_request.switch(self.record)
        try:
            _require_object(members)
            self.checked = bodies.check(self.operation, members, self.record)
        except Exception as error:  # noqa: BLE001  # as Flask does; none may touch another part
            self.answer = answer(error)

    def perform(self, keys: KeyUse, principal: Principal, deadline: float) -> None:
        """Perform its operation, unless it has been refused."""
        if self.checked is None:
            return
        current_request.switch(self.record)
        try:
            _require_time(deadline)
            self.answer = Answer(_OK, self.operation.perform(keys, principal, self.body))
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
    parts, bodies = [Part(request, whole) for request in requests], Bodies(offers)
    try:
        with ONE_AT_A_TIME.short():
            for part, request in zip(parts, requests, strict=True):
                part.load(request.get("body"), bodies)
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
            is_well = alike[0].answer.status == _OK
        alike = alike[done or 1 :]


def _perform_together(alike: Sequence[Part], keys: KeyUse, principal: Principal) -> int:
    """Perform the first of the parts, as far as all goes well; return how many that are.

    Whatever is wrong with the next one is not answered here: performed alone, it is tried again,
    and answered as if it had come alone.
    """
    answers: list[dict[str, Any]] = []
    with suppress(Exception):
        bodies = [part.body for part in alike]
        answers = alike[0].operation.perform_all(keys, principal, bodies)
    for part, body in zip(alike, answers, strict=False):
        part.answer = Answer(_OK, body)
    return len(answers)


def _are_texts(members: Mapping[str, Any]) -> bool:
    """Tell whether all are texts: of other values some are equal to Python, and not in JSON."""
    return set(map(type, members.values())) == {str}


def _like(
    good: Checked,
    operation: MessageOperation,
    kid: str,
    data: Any,
    record: current_request.RequestRecord,
) -> Checked:
    body = {**good.body, _KID: kid, _DATA: operation.request.load_member(_DATA, data)}
    if kid != good.body[_KID]:
        names = (kid, *good.names[1:])
        good = Checked(body, operation.alike(body), kids_of(body), names)
    record.kid, record.alg, record.enc = good.names
    return Checked(body, good.alike, good.kids, good.names)


def _require_object(members: Any) -> None:
    if not isinstance(members, dict):
        raise BadRequest(NOT_AN_OBJECT)


def _require_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TokenUnavailable("the batch takes too long", cause=Cause.BUSY)
