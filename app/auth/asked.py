"""The request of Flask that this thread answers, itself and not its proxy."""

from flask import Flask, Request
from flask.globals import _cv_app, _cv_request


def asked() -> Request:
    """Return it, for more than one look: each through the proxy costs a microsecond.

    Raises ``LookupError`` where no request is answered.
    """
    return _cv_request.get().request


def application() -> Flask:
    """Return the application that answers it."""
    return _cv_app.get().app
