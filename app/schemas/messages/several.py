"""Arrays of what a message has several of: recipients, signatures, signers."""

from collections.abc import Mapping
from typing import Any, Final

from app.errors import BadRequest
from app.schemas.fields import Member, fail
from hsm import HsmError

MOST: Final = 20
"""How many recipients or signatures a message may have."""


class SeveralField(Member):
    """An array of objects."""

    default_error_messages = {"invalid": "must be an array of objects"}  # noqa: RUF012  # marshmallow's name

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, *_args: Any, **_kwargs: Any
    ) -> list[Any]:
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.make_error("invalid")
        if not 1 <= len(value) <= MOST:
            fail(BadRequest(f"Field '{attr}' must hold 1 to {MOST} objects"))
        try:
            return [self._read(one, data) for one in value]
        except (BadRequest, HsmError) as error:
            fail(error)

    def _read(self, one: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
        """Return one of them; raise what it is refused with."""
        raise NotImplementedError
