"""Keys that sign digests which others have taken."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    column: sa.Column[bool] = sa.Column(
        "signs_digests", sa.Boolean(), nullable=False, server_default=sa.false()
    )
    op.add_column("keys", column)


def downgrade() -> None:
    """Undo."""
    op.drop_column("keys", "signs_digests")
