"""The day on which each key was used last."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply; nobody knows when the keys were used that are there, so it may have been today."""
    uses = op.create_table(
        "uses",
        sa.Column("kid", sa.String(36), primary_key=True),
        sa.Column("day", sa.Date(), nullable=False),
    )
    today = sa.literal(datetime.now(UTC).date(), sa.Date())
    kid: sa.ColumnClause[str] = sa.column("kid")
    kids = sa.select(kid, today).select_from(sa.table("keys"))
    op.execute(sa.insert(uses).from_select(["kid", "day"], kids))


def downgrade() -> None:
    """Undo."""
    op.drop_table("uses")
