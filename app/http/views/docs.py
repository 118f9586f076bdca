"""The page on which the API can be read and tried, and what the pages are made of."""

from typing import Final

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app.http.page_headers import protected

blueprint: Final = Blueprint(
    "docs", __name__, url_prefix="/docs", static_folder="../../static", static_url_path=""
)
blueprint.after_request(
    # Swagger UI has its icons as data: URLs in its style sheet, and no other use of them.
    protected(script_src="'self'", style_src="'self'", img_src="'self' data:", connect_src="'self'")
)


@blueprint.get("")
def page() -> ResponseReturnValue:
    """Show the API."""
    return blueprint.send_static_file("docs.html")
