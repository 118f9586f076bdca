"""Bodies of signatures without a header (wire contract §14)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from marshmallow import fields, validates_schema

import hsm
from app.schemas.fields import SIGNATURE, AlgorithmName, Base64Url, require, require_one
from app.schemas.schema import Foreign, RequestSchema, ResponseSchema

_A_DIGEST: Final = "what is signed is 'data' itself; send a digest of it as 'digest'"


class RawSignRequest(RequestSchema):
    """POST /keys/{kid}/sign: data, or a digest of it."""

    foreign = MappingProxyType(
        {
            "message_type": Foreign(reason=_A_DIGEST, usual="RAW"),
            "prehashed": Foreign(reason=_A_DIGEST, usual=False),
        }
    )

    alg = AlgorithmName(SIGNATURE, required=True)
    data = Base64Url(load_default=None, allow_none=True)
    digest = Base64Url(load_default=None, allow_none=True)

    def refuse_foreign(self, members: Mapping[str, Any]) -> None:
        """See ``RequestSchema``; beside a digest they say what is so."""
        if members.get("digest") is None:
            super().refuse_foreign(members)

    @validates_schema
    def check_one(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse both, and neither."""
        require_one(body, "data", "digest")

    @validates_schema
    def check_length(self, body: dict[str, Any], **_kwargs: Any) -> None:
        """Refuse a digest that the hash of the algorithm does not make."""
        hashed, digest = hsm.SIGNATURES[body["alg"]].hash, body["digest"]
        if hashed is not None and digest is not None:
            size = hashed.digest_size
            require(len(digest) == size, "digest", f"must be {size} bytes long for {body['alg']}")


class RawSignResponse(ResponseSchema):
    """A signature that is no JWS."""

    kid = fields.String(required=True)
    alg = fields.String(required=True)
    signature = Base64Url(required=True)
