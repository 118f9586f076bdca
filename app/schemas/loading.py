"""Checking a body with its schema, and noting for the logs what it names."""

from collections.abc import Mapping
from typing import Any, Final

from app import current_request
from app.errors import BadRequest
from app.schemas.fields import OFFERS, Offers
from app.schemas.messages.header_parts import names_in
from app.schemas.messages.received_header import Header
from app.schemas.messages.serializations import COMPACT_MEMBERS
from app.schemas.schema import RequestSchema
from hsm import UnsupportedAlgorithm

_NAMES: Final = ("kid", "alg", "enc")


def load(schema: RequestSchema, members: dict[str, Any], offers: Offers) -> Any:
    """Return ``members`` as ``schema`` makes them; raise the first failure.

    What a protected header names is noted also if it is refused.
    """
    schema.refuse_foreign(members)
    sent, members = members, schema.expand_compact(members)
    current_request.name(**{name: members.get(name) for name in _NAMES if name in schema.fields})
    outer = OFFERS.set(offers)
    try:
        loaded = schema.load(members)
    except UnsupportedAlgorithm:
        if "protected" in schema.fields:
            refused = names_in(members.get("protected"))
            current_request.name(**{name: refused.get(name) for name in _NAMES})
        raise
    except BadRequest as error:
        raise _as_sent(error, sent, members) from None
    finally:
        OFFERS.reset(outer)
    if isinstance(loaded, dict) and isinstance(header := loaded.get("protected"), Header):
        current_request.name(kid=header.kid, alg=header.alg, enc=header.enc)
    return loaded


def _as_sent(error: BadRequest, sent: Mapping[str, Any], members: Mapping[str, Any]) -> BadRequest:
    """Return ``error`` in terms of what was ``sent``: of a compact message its caller knows one."""
    for compact in COMPACT_MEMBERS & sent.keys():
        for part in members.keys() - sent.keys():
            found, prefix, rest = str(error).partition(f"Field '{part}'")
            if prefix and not found:
                return BadRequest(f"Field '{compact}', part '{part}'{rest}")
    return error
