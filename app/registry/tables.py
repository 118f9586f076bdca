"""The schema, as the migrations leave it."""

from typing import Final

from sqlalchemy import JSON, BigInteger, Column, DateTime, Integer, MetaData, String, Table

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
    Column("origin", String(16), nullable=False),
    Column("residency", String(16), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("public_jwk", JSON),
    Column("encryptions", BigInteger, nullable=False, server_default="0"),
    Column("host", String(255), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)
