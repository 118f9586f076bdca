"""jose-hsm: the REST Native Crypto API on keys that stay in an HSM."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> "Flask":
    """Build the service of the settings in the environment; what gunicorn is told to call."""
    # Flask, SQLAlchemy and all: whoever imports a part of ``app`` need not wait for the whole.
    from app.factory import create_app as create  # noqa: PLC0415  # see above

    return create()
