"""Keys that the registry keeps, encrypted by the token."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    storage: sa.Column[str] = sa.Column(
        "storage", sa.String(16), nullable=False, server_default="token"
    )
    op.add_column("keys", storage)
    op.add_column("keys", sa.Column("kek", sa.String(36)))
    op.add_column("keys", sa.Column("blob", sa.LargeBinary()))
    op.add_column("keys", sa.Column("seal", sa.LargeBinary()))
    op.create_index("keys_by_kek", "keys", ["kek", "kid"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("keys_by_kek", "keys")
    for name in ("storage", "kek", "blob", "seal"):
        op.drop_column("keys", name)
