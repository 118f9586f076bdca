"""JWE: encrypt and decrypt."""

from typing import Final

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app.http.operations import OPERATIONS
from app.http.request import perform

blueprint: Final = Blueprint("encryption", __name__)


@blueprint.post("/encrypt")
def encrypt() -> ResponseReturnValue:
    """Return a JWE of the caller's data."""
    return perform(OPERATIONS["encrypt"])


@blueprint.post("/decrypt")
def decrypt() -> ResponseReturnValue:
    """Return the plaintext of a JWE."""
    return perform(OPERATIONS["decrypt"])
