"""Many operations in one request."""

from collections import Counter
from typing import Final

from flask import request
from flask.typing import ResponseReturnValue

from app import current_request
from app.auth import principal
from app.http import batches
from app.http.endpoint import API, Endpoint, Resource
from app.http.request import load, offers, service
from app.schemas.batch import BatchRequest

resource: Final = Resource("batch", "Many operations in one request.", prefix=API)

_REQUESTS: Final = BatchRequest()


@resource.serves(
    Endpoint(
        "POST",
        "/batch",
        body=_REQUESTS,
        answers=("BatchResponse",),
        says="An answer to each request, in order",
        is_long=True,
    )
)
def answer() -> ResponseReturnValue:
    """Answer each request as if it had come alone.

    Each is answered in its place by the status and body that it would get alone. A malformed
    envelope is 400 for all, before anything is done; a malformed `body` is 400 for that request
    alone.
    """
    requests = load(_REQUESTS)["requests"]
    whole = current_request.current() or current_request.RequestRecord()
    serving = service()
    parts = batches.run(serving.keyring.use, principal(), requests, offers(), whole)
    serving.audit_hook.end_parts(request, parts)
    answered = Counter((part.endpoint, int(part.answer.status)) for part in parts)
    for (endpoint, status), number in answered.items():
        serving.metrics.answered_parts(endpoint, status, number)
    whole.gather(answered, (part.record for part in parts))
    return {"responses": [part.answer_body for part in parts]}
