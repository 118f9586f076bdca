"""The current request as views see it: its body, its query, and who serves it."""

from functools import lru_cache
from typing import Any, Final

from flask import Response, current_app, g, request
from flask.typing import ResponseReturnValue
from marshmallow import Schema
from werkzeug.exceptions import UnsupportedMediaType
from werkzeug.http import parse_options_header

from app.auth import principal
from app.auth.asked import application, asked
from app.errors import NOT_AN_OBJECT, BadRequest
from app.http import request_body
from app.http.operations import MessageOperation
from app.idempotency import IdempotentRequest
from app.jose import strict_json
from app.keys.catalogue import Catalogue
from app.keys.keyring import Keyring
from app.keys.sets.catalogue import KeySetCatalogue
from app.schemas import loading
from app.schemas.fields import Offers
from app.schemas.schema import RequestSchema
from app.service import Service, service_of
from hsm import TokenUnavailable

_MOST_VALUES: Final = 50_000
_BEFORE_VALUES: Final = b"{[,"


def service() -> Service:
    """Return the service that serves the request."""
    return service_of(current_app)


def keyring() -> Keyring:
    """Return its keyring."""
    return service().keyring


def catalogue() -> Catalogue:
    """Return its catalogue."""
    return service().catalogue


def keysets() -> KeySetCatalogue:
    """Return its key sets."""
    return service().keysets


def perform(operation: MessageOperation) -> dict[str, Any]:
    """Answer a request for one operation on a message."""
    serving = service_of(application())
    body = operation.load(members(), _offers(serving))
    return operation.perform(serving.keyring.use, principal(), body)


def load(schema: RequestSchema) -> Any:
    """Return the body of the request, checked by ``schema``."""
    return loading.load(schema, members(), offers())


def members() -> dict[str, Any]:
    """Return the JSON object that is the body of the request."""
    request = asked()
    environ = request.environ
    if environ.get("HTTP_CONTENT_ENCODING") or not _is_json(environ.get("CONTENT_TYPE", "")):
        raise UnsupportedMediaType
    text = request_body.read(environ)
    if (key := environ.get("HTTP_IDEMPOTENCY_KEY")) is not None:
        g.idempotent = IdempotentRequest.of(principal(), key, request.path, text)
    _require_few_values(text)
    try:
        return strict_json.loads(text)
    except strict_json.TooDeep:
        raise BadRequest(f"The body is more than {strict_json.MOST_LEVELS} levels deep") from None
    except ValueError:
        raise BadRequest(NOT_AN_OBJECT) from None


def _require_few_values(text: bytes) -> None:
    """Refuse what takes long to parse and no request needs: nobody else computes meanwhile."""
    is_long = len(text) > _MOST_VALUES
    if is_long and strict_json.has_many(text, _BEFORE_VALUES, more_than=_MOST_VALUES):
        raise BadRequest(f"The body has more than {_MOST_VALUES} values")


@lru_cache(maxsize=64)
def _is_json(content_type: str) -> bool:
    mimetype, parameters = parse_options_header(content_type)
    charset = parameters.get("charset", "utf-8").lower()
    return mimetype.lower() == "application/json" and charset == "utf-8"


def load_query(schema: Schema) -> Any:
    """Return the query of the request, checked by ``schema``; of a name twice the first counts."""
    return schema.load(request.args.to_dict())


def conditional(response: Response) -> ResponseReturnValue:
    """Return ``response``, without its body if the client has it already (``If-None-Match``).

    ``If-Match`` is for changing what one has read, and for parts of it, and here is neither: 412
    would have to be an error, and a client that takes whatever there is misses nothing.
    """
    request.environ.pop("HTTP_IF_MATCH", None)
    return response.make_conditional(request)


def idempotent() -> IdempotentRequest | None:
    """Return what makes the loaded request one to be answered once, if the client wants that."""
    found: IdempotentRequest | None = g.get("idempotent")
    return found


def offers() -> Offers:
    """Return what the token offers; nothing is known while it is away."""
    return _offers(service())


def _offers(serving: Service) -> Offers:
    try:
        return serving.hsm.offers()
    except TokenUnavailable:
        return {}
