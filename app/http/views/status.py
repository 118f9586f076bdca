"""The page for operators."""

from typing import Final

from flask import Blueprint, make_response, render_template
from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.page_headers import protected
from app.http.request import service

blueprint: Final = Blueprint("status", __name__)
blueprint.after_request(protected(style_src="'self'", img_src="'self'"))


@blueprint.get("/status")
def show() -> ResponseReturnValue:
    """Show how the service is, to those who may read every key."""
    status = service().status
    status.require_reader(principal())
    response = make_response(render_template("status.html", **status.describe(), me=principal()))
    response.cache_control.no_store = True
    return response
