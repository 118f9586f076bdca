"""Runs the migrations on the database that ``registry.migrate`` names."""

from alembic import context

from app.registry.registry import engine_of
from app.registry.tables import metadata

engine = engine_of(context.config.attributes["url"])
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
