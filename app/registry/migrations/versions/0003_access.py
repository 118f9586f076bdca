"""Who may do what: grants, tags, API tokens, remembered requests, and what owners set of keys."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_INSTANTS = ("activated_at", "deactivated_at", "expires_at")
_FILTERS = ("owner", "kty", "alg", "state")


def upgrade() -> None:
    """Apply."""
    op.add_column("keys", sa.Column("name", sa.String(255)))
    for name in _INSTANTS:
        op.add_column("keys", sa.Column(name, sa.DateTime(timezone=True)))
    op.execute("UPDATE keys SET activated_at = created_at WHERE state <> 'pending'")
    for name in _FILTERS:
        op.create_index(f"keys_by_{name}", "keys", [name, "kid"])
    op.create_index("keys_by_expiry", "keys", ["expires_at"])
    op.create_table(
        "grants",
        sa.Column("kid", sa.String(36), primary_key=True),
        sa.Column("principal", sa.String(512), primary_key=True),
        sa.Column("operation", sa.String(16), primary_key=True),
    )
    op.create_index("grants_by_principal", "grants", ["principal", "operation", "kid"])
    op.create_table(
        "tags",
        sa.Column("kid", sa.String(36), primary_key=True),
        sa.Column("tag", sa.String(255), primary_key=True),
        sa.Column("tagged_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("tags_by_tag", "tags", ["tag", "kid"])
    op.create_index("tags_by_time", "tags", ["tag", "tagged_at", "kid"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255)),
        sa.Column("principal", sa.String(512), nullable=False),
        sa.Column("roles", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "repetitions",
        sa.Column("principal", sa.String(512), primary_key=True),
        sa.Column("request", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("kid", sa.String(36), nullable=False, index=True),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, index=True),
    )


def downgrade() -> None:
    """Undo."""
    for table in ("repetitions", "tokens", "tags", "grants"):
        op.drop_table(table)
    op.drop_index("keys_by_expiry", "keys")
    for name in _FILTERS:
        op.drop_index(f"keys_by_{name}", "keys")
    for name in ("name", *_INSTANTS):
        op.drop_column("keys", name)
