"""The schema, as the migrations leave it."""

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    false,
)

metadata: Final = MetaData()

keys: Final = Table(
    "keys",
    metadata,
    Column("kid", String(36), primary_key=True),
    Column("kid_public", String(36), unique=True),
    Column("owner", String(512), nullable=False),
    Column("kty", String(8), nullable=False),
    Column("alg", String(32)),
    Column("crv", String(16)),
    Column("bits", Integer),
    Column("signs_digests", Boolean, nullable=False, server_default=false()),
    Column("origin", String(16), nullable=False),
    Column("residency", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("public_jwk", JSON),
    Column("certificates", JSON),
    Column("encryptions", BigInteger, nullable=False, server_default="0"),
    Column("host", String(255), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    Column("name", String(255)),
    Column("activated_at", DateTime(timezone=True)),
    Column("deactivated_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    Column("alias", String(128)),
    Column("destroy_after", BigInteger),
    Column("destroy_at", DateTime(timezone=True)),
    Column("state_before", String(16)),
    Column("storage", String(16), nullable=False, server_default="token"),
    Column("kek", String(36)),
    Column("blob", LargeBinary),
    Column("seal", LargeBinary),
    Index("keys_by_owner", "owner", "kid"),
    Index("keys_by_kty", "kty", "kid"),
    Index("keys_by_alg", "alg", "kid"),
    Index("keys_by_state", "state", "kid"),
    Index("keys_by_expiry", "expires_at"),
    Index("keys_by_alias", "alias", unique=True),
    Index("keys_by_destruction", "destroy_at"),
    Index("keys_by_kek", "kek", "kid"),
    Index("keys_by_kind", "kty", "crv", "bits", "state", "kid"),
    Index("keys_by_change", "changed_at"),
)

SPEC: Final = (
    *(keys.c.kid, keys.c.kty, keys.c.alg, keys.c.crv, keys.c.bits),
    *(keys.c.signs_digests, keys.c.storage),
)
"""What kind of key a row is, and where the key is kept."""

tallies: Final = Table(
    "tallies",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("kty", String(8), nullable=False),
    Column("crv", String(16)),
    Column("bits", Integer),
    Column("state", String(16), nullable=False),
    Column("kek", String(36)),
    Column("number", BigInteger, nullable=False),
)
"""By how many the keys of a kind became more or fewer: triggers write it; the sum counts."""

grants: Final = Table(
    "grants",
    metadata,
    Column("kid", String(36), primary_key=True),
    Column("principal", String(512), primary_key=True),
    Column("operation", String(16), primary_key=True),
    Index("grants_by_principal", "principal", "operation", "kid"),
)

tags: Final = Table(
    "tags",
    metadata,
    Column("kid", String(36), primary_key=True),
    Column("tag", String(255), primary_key=True),
    Column("tagged_at", DateTime(timezone=True), nullable=False),
    Index("tags_by_tag", "tag", "kid"),
    Index("tags_by_time", "tag", "tagged_at", "kid"),
)

uses: Final = Table(
    "uses",
    metadata,
    Column("kid", String(36), primary_key=True),
    Column("day", Date, nullable=False),
)
"""The day of the last use of each key that has been used: a row of ``keys`` is larger to write."""

keysets: Final = Table(
    "keysets",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("owner", String(512), nullable=False, index=True),
    Column("kty", String(8), nullable=False),
    Column("alg", String(32)),
    Column("crv", String(16)),
    Column("bits", Integer),
    Column("signs_digests", Boolean, nullable=False, server_default=false()),
    Column("destroy_after", BigInteger),
    Column("is_published", Boolean, nullable=False),
    Column("every", BigInteger),
    Column("publish_ahead", BigInteger),
    Column("retain", BigInteger),
    Column("current_kid", String(36), nullable=False, unique=True),
    Column("next_kid", String(36)),
    Column("rotates_at", DateTime(timezone=True)),
    Column("due_at", DateTime(timezone=True), index=True),
    Column("step", Integer, nullable=False, server_default="0"),
    Column("unaudited", JSON(none_as_null=True)),
    Column("host", String(255), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)

versions: Final = Table(
    "versions",
    metadata,
    Column("kid", String(36), primary_key=True),
    Column("keyset", String(36), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("published_at", DateTime(timezone=True)),
    Column("current_at", DateTime(timezone=True)),
    Column("retires_at", DateTime(timezone=True), index=True),
    Index("versions_by_set", "keyset", "number", unique=True),
)

tokens: Final = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("hash", String(64), nullable=False),
    Column("name", String(255)),
    Column("principal", String(512), nullable=False),
    Column("roles", String(64), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("used_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
)

identity: Final = Table(
    "identity",
    metadata,
    Column("id", String(36), primary_key=True),
)

idempotency: Final = Table(
    "repetitions",
    metadata,
    Column("principal", String(512), primary_key=True),
    Column("request", String(64), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("kid", String(36), nullable=False, index=True),
    Column("answer", JSON, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, index=True),
)
