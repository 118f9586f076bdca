"""What this service can do."""

from typing import Final

from flask.typing import ResponseReturnValue

from app.http.endpoint import API, Endpoint, Resource
from app.http.failures import AWAY
from app.http.request import service
from app.keys.wrapped.offered import wrapped_imports

resource: Final = Resource("capabilities", "What is offered.", prefix=API)


@resource.serves(
    Endpoint(
        "GET",
        "/capabilities",
        answers=("Capabilities",),
        says="What is offered",
        failures=AWAY,
    )
)
def show() -> ResponseReturnValue:
    """Return what is offered, and where the limits are."""
    told, token = service().capabilities, service().hsm
    described = told.describe(token.offers(), token.keeping.keepable())
    return described | {"wrapped_imports": wrapped_imports(token)}
