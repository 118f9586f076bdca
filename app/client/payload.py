"""The data that a JWS has signed, once the service has said that it is valid."""

import json
from collections.abc import Mapping
from typing import Any

from app.jose import encoding


def payload_of(jws: Mapping[str, Any]) -> bytes:
    """Return the data of a valid JWS; as it is where its header has ``b64`` false (RFC 7797)."""
    protected, payload = _parts(jws)
    header = json.loads(encoding.decode(protected)) if protected else {}
    return payload.encode() if header.get("b64") is False else encoding.decode(payload)


def _parts(jws: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return the header that says how the data is written, if there is one, and the data."""
    if jws.get("data") is not None:  # what is beside a message is in base64url always
        return None, jws["data"]
    if jws.get("jws") is not None:
        protected, payload, _signature = jws["jws"].split(".")
        return protected, payload
    # Of several signatures some may not have been looked at: their headers say nothing.
    return None if jws.get("signatures") else jws.get("protected"), jws["payload"]
