"""The data that a JWS has signed, once the service has said that it is valid."""

import json
from collections.abc import Mapping
from typing import Any

from app.jose import encoding


def payload_of(jws: Mapping[str, Any]) -> bytes:
    """Return the data of a valid JWS; as it is where its header has ``b64`` false (RFC 7797)."""
    if "data" in jws:  # what is beside the message is in base64url always
        return encoding.decode(jws["data"])
    protected, payload = _parts(jws)
    header = json.loads(encoding.decode(protected)) if protected else {}
    return encoding.decode(payload) if header.get("b64", True) else payload.encode()


def _parts(jws: Mapping[str, Any]) -> tuple[str, str]:
    if "jws" in jws:
        protected, payload, _signature = jws["jws"].split(".")
        return protected, payload
    signature = jws["signatures"][0] if "signatures" in jws else jws
    return signature.get("protected", ""), jws["payload"]
