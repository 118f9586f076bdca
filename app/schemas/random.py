"""Bodies of random numbers."""

from typing import Any, Final

from app.errors import BadRequest
from app.schemas.fields import Base64Url, WholeNumber, fail
from app.schemas.schema import RequestSchema, ResponseSchema

MOST_BYTES: Final = 1024


class Size(WholeNumber):
    """How many bytes are asked for."""

    def _deserialize(self, value: Any, attr: str | None, *_args: Any, **_kwargs: Any) -> int:
        size = super()._deserialize(value)
        if not 1 <= size <= MOST_BYTES:
            fail(BadRequest(f"Field '{attr}' must be between 1 and {MOST_BYTES}"))
        return size


class RandomRequest(RequestSchema):
    """POST /random."""

    bytes = Size(required=True)


class RandomResponse(ResponseSchema):
    """Random bytes of the token."""

    data = Base64Url(required=True)
