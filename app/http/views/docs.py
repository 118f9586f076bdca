"""The page on which the API can be read and tried, and what the pages are made of."""

from pathlib import Path
from typing import Final

from flask import send_from_directory
from flask.typing import ResponseReturnValue

from app.http.endpoint import Endpoint, Resource
from app.http.page_headers import protected
from app.http.request import conditional
from app.observability.kinds import Kind

_FILES: Final = Path(__file__).parents[2] / "static"

resource: Final = Resource("docs", "The API, to read and to try.", is_public=True)
resource.blueprint.after_request(
    # Swagger UI has its icons as data: URLs in its style sheet, and no other use of them.
    protected(script_src="'self'", style_src="'self'", img_src="'self' data:", connect_src="'self'")
)


def _file(name: str) -> ResponseReturnValue:
    """Return a file, always whole: to answer a range is an option (RFC 9110 §14.2)."""
    response = send_from_directory(_FILES, name, conditional=False)
    response.headers["Accept-Ranges"] = "none"
    return conditional(response)


@resource.serves(Endpoint("GET", "/docs", kind=Kind.PAGE))
def page() -> ResponseReturnValue:
    """Show the API."""
    return _file("docs.html")


@resource.serves(Endpoint("GET", "/docs/<path:filename>", kind=Kind.PAGE))
def static(filename: str) -> ResponseReturnValue:
    """Return a file that a page is made of."""
    return _file(filename)
