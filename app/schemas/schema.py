"""Bodies of requests and answers as marshmallow has them; all that reaches into it is here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple, NoReturn, cast

from marshmallow import EXCLUDE, Schema, ValidationError, missing
from marshmallow.decorators import POST_LOAD, VALIDATES_SCHEMA

from app.errors import BadRequest
from app.jose import encoding


class Foreign(NamedTuple):
    """A member of other services that says what is not so here, unless it is ``usual``."""

    reason: str
    usual: Any = None


_NONE: Final[Mapping[str, Foreign]] = MappingProxyType({})


class RequestSchema(Schema):
    """A body whose first failure is answered.

    First come members that are missing or of the wrong type, then the contents, both in the order
    of the fields. Content failures are raised as the errors that they are (``fail``), and
    marshmallow collects them beside its own messages. Members that are ``foreign`` would change the
    meaning of the others.
    """

    foreign: ClassVar[Mapping[str, Foreign]] = _NONE

    class Meta:
        """A JWK carries more than we know."""

        unknown = EXCLUDE

    def refuse_foreign(self, members: Mapping[str, Any]) -> None:
        """Raise ``BadRequest`` for a member that must not be ignored."""
        for name, member in self.foreign.items():
            value = members.get(name)
            if value is not None and value != member.usual:
                raise BadRequest(f"Field '{name}' is not taken: {member.reason}")

    def expand_compact(self, members: dict[str, Any]) -> dict[str, Any]:
        """Return the members that one in Compact Serialization stands for; others as they are."""
        return members

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Return the body, checked.

        A good one is read here, as marshmallow would at several times the cost, and a bad one by
        marshmallow, which collects all that is wrong.
        """
        body = self._good(data)
        return super().load(data, **kwargs) if body is None else body

    def load_member(self, name: str, value: Any) -> Any:
        """Return one member, checked as in a body; raise ``ValidationError``."""
        return self.load_fields[name]._deserialize(value, name, {})  # noqa: SLF001  # a field's own

    def _good(self, data: Any) -> Any:
        body: dict[str, Any] = {}
        try:
            for name, field in self.load_fields.items():
                key = field.data_key or name
                value = data.get(key, missing)
                if value is missing:
                    if field.required:
                        return None
                    if field.load_default is not missing:
                        body[name] = field.load_default
                else:
                    is_absent = value is None and field.allow_none
                    body[name] = None if is_absent else field._deserialize(value, key, data)  # noqa: SLF001  # a field's own
            for check, *_ in self._hooks[VALIDATES_SCHEMA]:
                getattr(self, check)(body)
        except ValidationError:
            return None
        for make, *_ in self._hooks[POST_LOAD]:
            body = getattr(self, make)(body)
        return body

    def handle_error(
        self, error: ValidationError, data: Any, *, many: bool, **_kwargs: Any
    ) -> NoReturn:
        """Raise the first failure."""
        failures = {name: messages[0] for name, messages in _messages(error).items()}
        order = [field.data_key or name for name, field in self.load_fields.items()]
        name = min(
            failures, key=lambda name: (isinstance(failures[name], Exception), order.index(name))
        )
        failure = failures[name]
        if isinstance(failure, Exception):
            raise failure from None
        raise BadRequest(f"Field '{name}' {failure}") from None


class ResponseSchema(Schema):
    """A body made from a dictionary; ``required`` are the members that there always are."""

    def dump(self, obj: Mapping[str, Any], **_kwargs: Any) -> dict[str, Any]:
        """Return the members that there are; marshmallow would look for attributes too."""
        body = {}
        for name, field in self.dump_fields.items():
            if name in obj:
                value = obj[name]
                kind = type(value)
                if kind is bytes:  # base64url, like each member that has some
                    value = encoding.encode(value)
                elif kind is not str:  # which is as it is
                    value = field._serialize(value, name, obj)  # noqa: SLF001  # a field's own
                body[name] = value
        return body


def _messages(error: ValidationError) -> dict[str, list[Any]]:
    return cast(dict[str, list[Any]], error.messages_dict)
