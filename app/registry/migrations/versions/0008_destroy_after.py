"""Keys that can be had back for a time after they were deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("keys", sa.Column("destroy_after", sa.BigInteger()))
    op.add_column("keys", sa.Column("destroy_at", sa.DateTime(timezone=True)))
    op.add_column("keys", sa.Column("state_before", sa.String(16)))
    op.create_index("keys_by_destruction", "keys", ["destroy_at"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("keys_by_destruction", "keys")
    for name in ("destroy_after", "destroy_at", "state_before"):
        op.drop_column("keys", name)
