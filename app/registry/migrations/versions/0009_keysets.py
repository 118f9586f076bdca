"""Key sets, and the keys that are their versions."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "keysets",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("id", sa.String(36), nullable=False, unique=True),
        sa.Column("owner", sa.String(512), nullable=False),
        sa.Column("kty", sa.String(8), nullable=False),
        sa.Column("alg", sa.String(32)),
        sa.Column("crv", sa.String(16)),
        sa.Column("bits", sa.Integer()),
        sa.Column("signs_digests", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("destroy_after", sa.BigInteger()),
        sa.Column("is_published", sa.Boolean(), nullable=False),
        sa.Column("every", sa.BigInteger()),
        sa.Column("publish_ahead", sa.BigInteger()),
        sa.Column("retain", sa.BigInteger()),
        sa.Column("current_kid", sa.String(36), nullable=False, unique=True),
        sa.Column("next_kid", sa.String(36)),
        sa.Column("rotates_at", sa.DateTime(timezone=True)),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("step", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("unaudited", sa.JSON()),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_keysets_owner", "keysets", ["owner"])
    op.create_index("ix_keysets_due_at", "keysets", ["due_at"])
    op.create_table(
        "versions",
        sa.Column("kid", sa.String(36), primary_key=True),
        sa.Column("keyset", sa.String(36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column("current_at", sa.DateTime(timezone=True)),
        sa.Column("retires_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_versions_retires_at", "versions", ["retires_at"])
    op.create_index("versions_by_set", "versions", ["keyset", "number"], unique=True)


def downgrade() -> None:
    """Undo."""
    op.drop_table("versions")
    op.drop_table("keysets")
