"""How many keys there are, counted as rows change, and what samples of them are read from.

The triggers are on ``keys``: a later migration that makes that table anew on SQLite, as Alembic's
batches do, has to make them anew.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_KIND: Final = ("kty", "crv", "bits", "state", "kek")
_NAMES: Final = ", ".join(_KIND)
_EVENTS: Final = {
    "INSERT": {"NEW": 1},
    f"UPDATE OF {_NAMES}": {"OLD": -1, "NEW": 1},
    "DELETE": {"OLD": -1},
}


def upgrade() -> None:
    """Apply; on PostgreSQL the triggers keep others from writing until all rows are counted."""
    op.create_table(
        "tallies",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("kty", sa.String(8), nullable=False),
        sa.Column("crv", sa.String(16)),
        sa.Column("bits", sa.Integer()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("kek", sa.String(36)),
        sa.Column("number", sa.BigInteger(), nullable=False),
    )
    for event, changes in _EVENTS.items():
        name = f"keys_tally_{event.split()[0].lower()}"
        body = "".join(_count(row, number) for row, number in changes.items())
        _trigger(name, event, body)
    op.execute(
        f"INSERT INTO tallies ({_NAMES}, number)"  # noqa: S608  # of names that stand above
        f" SELECT {_NAMES}, count(*) FROM keys GROUP BY {_NAMES}"
    )
    op.create_index("keys_by_kind", "keys", ["kty", "crv", "bits", "state", "kid"])
    op.create_index("keys_by_change", "keys", ["changed_at"])
    op.drop_index("ix_keys_state", "keys")  # keys_by_state begins with it


def _count(row: str, number: int) -> str:
    values = ", ".join(f"{row}.{name}" for name in _KIND)
    into = f"INSERT INTO tallies ({_NAMES}, number)"
    return f"{into} VALUES ({values}, {number}); "


def _trigger(name: str, event: str, body: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"CREATE TRIGGER {name} AFTER {event} ON keys BEGIN {body}END")
        return
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql"
        f" AS $$ BEGIN {body}RETURN NULL; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {name} AFTER {event} ON keys FOR EACH ROW EXECUTE PROCEDURE {name}()"
    )


def downgrade() -> None:
    """Undo."""
    op.create_index("ix_keys_state", "keys", ["state"])
    op.drop_index("keys_by_change", "keys")
    op.drop_index("keys_by_kind", "keys")
    for event in _EVENTS:
        name = f"keys_tally_{event.split()[0].lower()}"
        if op.get_bind().dialect.name == "sqlite":
            op.execute(f"DROP TRIGGER {name}")
        else:
            op.execute(f"DROP FUNCTION {name}() CASCADE")
    op.drop_table("tallies")
