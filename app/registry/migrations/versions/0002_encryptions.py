"""Encryptions under each key."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "keys", sa.Column("encryptions", sa.BigInteger, nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Undo."""
    op.drop_column("keys", "encryptions")
