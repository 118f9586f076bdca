"""The envelope of a batch; what is in it is checked like requests that come alone."""

from typing import Any, Final

from app.errors import BadRequest
from app.schemas.fields import Member, fail
from app.schemas.schema import RequestSchema

MOST_REQUESTS: Final = 1000
OPERATIONS: Final = ("encrypt", "decrypt", "sign", "verify", "mac")


class RequestsField(Member):
    """An array of objects, each with the name of an operation, and perhaps an id."""

    default_error_messages = {"invalid": "must be an array"}  # noqa: RUF012  # marshmallow's name

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        if len(value) > MOST_REQUESTS:
            fail(BadRequest(f"Field 'requests' must hold at most {MOST_REQUESTS} requests"))
        for number, request in enumerate(value):
            if (problem := _problem(request)) is not None:
                fail(BadRequest(f"Field 'requests': {problem} (request {number}, counted from 0)"))
        return value


class BatchRequest(RequestSchema):
    """POST /batch."""

    requests = RequestsField(required=True)


def _problem(request: Any) -> str | None:
    if not isinstance(request, dict):
        return "each must be an object"
    if request.get("op") not in OPERATIONS:
        return f"'op' must be one of: {', '.join(OPERATIONS)}"
    if type(request.get("id")) not in {type(None), str, int}:
        return "'id' must be a string or an integer"
    return None
