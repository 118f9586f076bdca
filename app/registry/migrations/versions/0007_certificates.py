"""Certificates of keys."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("keys", sa.Column("certificates", sa.JSON()))


def downgrade() -> None:
    """Undo."""
    op.drop_column("keys", "certificates")
