"""Runs the migrations on the database that ``registry.migrate`` names, all of them or none."""

from alembic import context
from sqlalchemy import Connection, text

from app.registry.databases.engines import engine_of
from app.registry.tables import metadata


def wait_for_others(connection: Connection) -> None:
    """Have nobody else migrate, or write to a file, until the transaction ends."""
    if connection.dialect.name == "sqlite":  # its driver begins nothing before a change of schema
        connection.exec_driver_sql("PRAGMA busy_timeout = 600000")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        own = connection.scalar(text("SELECT current_setting('lock_timeout')"))
        connection.execute(text("SET LOCAL lock_timeout = '10min'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(1785688933)"))
        connection.execute(text("SELECT set_config('lock_timeout', :own, true)"), {"own": own})


engine = engine_of(context.config.attributes["url"], is_maintenance=True)
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        transactional_ddl=True,  # of SQLite, too, whatever Alembic thinks of it
    )
    with context.begin_transaction():
        wait_for_others(connection)  # many hosts may have one, and all begin with this
        context.run_migrations()
engine.dispose()
