"""Keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "keys",
        sa.Column("kid", sa.String(36), primary_key=True),
        sa.Column("kid_public", sa.String(36), unique=True),
        sa.Column("owner", sa.String(512), nullable=False),
        sa.Column("kty", sa.String(8), nullable=False),
        sa.Column("alg", sa.String(32)),
        sa.Column("crv", sa.String(16)),
        sa.Column("bits", sa.Integer),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("residency", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("public_jwk", sa.JSON),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("keys")
