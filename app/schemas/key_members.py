"""What all answers say of a key."""

from marshmallow import fields

from app.schemas.schema import ResponseSchema


class KeyMembers(ResponseSchema):
    """What a key is; ``kid_public`` is null for imported pairs and absent for ``oct``."""

    kid = fields.UUID(required=True)
    kid_public = fields.UUID(allow_none=True)
    kty = fields.String(required=True)
    alg = fields.String()
    crv = fields.String()
    key_ops = fields.List(fields.String(), required=True)
