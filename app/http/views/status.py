"""The page for operators."""

from typing import Final

from flask import make_response, render_template
from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.endpoint import Endpoint, Resource, Takes
from app.http.page_headers import protected
from app.http.request import service
from app.observability.kinds import Kind
from app.rights import Role

resource: Final = Resource("status", "How the service is.", takes=Takes.PASSWORDS)
resource.blueprint.after_request(protected(style_src="'self'", img_src="'self'"))


@resource.serves(Endpoint("GET", "/status", needs=(Role.AUDITOR,), kind=Kind.PAGE))
def show() -> ResponseReturnValue:
    """Show how the service is, to those who may read every key."""
    status = service().status
    status.require_reader(principal())
    response = make_response(render_template("status.html", **status.describe(), me=principal()))
    response.cache_control.no_store = True
    return response
