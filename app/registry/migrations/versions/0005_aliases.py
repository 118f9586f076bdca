"""Names of keys that callers choose."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("keys", sa.Column("alias", sa.String(128)))
    op.create_index("keys_by_alias", "keys", ["alias"], unique=True)


def downgrade() -> None:
    """Undo."""
    op.drop_index("keys_by_alias", "keys")
    op.drop_column("keys", "alias")
