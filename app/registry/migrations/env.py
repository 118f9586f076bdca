"""Runs the migrations on the database that ``registry.migrate`` names."""

from alembic import context
from sqlalchemy import text

from app.registry.databases.engines import engine_of
from app.registry.tables import metadata

engine = engine_of(context.config.attributes["url"], is_maintenance=True)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        if engine.dialect.name == "postgresql":  # many hosts may have one, and all begin with this
            own = connection.scalar(text("SELECT current_setting('lock_timeout')"))
            connection.execute(text("SET LOCAL lock_timeout = '10min'"))  # others migrate meanwhile
            connection.execute(text("SELECT pg_advisory_xact_lock(1785688933)"))
            connection.execute(text("SELECT set_config('lock_timeout', :own, true)"), {"own": own})
        context.run_migrations()
engine.dispose()
