"""Random numbers of the token."""

from typing import Final

from flask.typing import ResponseReturnValue

from app.http.endpoint import API, Endpoint, Resource
from app.http.failures import AWAY
from app.http.request import load, service
from app.schemas.random import RandomRequest, RandomResponse

resource: Final = Resource("random", "Random numbers of the token.", prefix=API)

_SIZE: Final = RandomRequest()
_BYTES: Final = RandomResponse()


@resource.serves(
    Endpoint("POST", "/random", body=_SIZE, answers=(_BYTES,), says="Random bytes", failures=AWAY)
)
def generate() -> ResponseReturnValue:
    """Return random bytes of the token."""
    return _BYTES.dump({"data": service().hsm.random(load(_SIZE)["bytes"])})
