"""Many operations in one request."""

from collections import Counter
from typing import Final, cast

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue

from app import current_request
from app.auth import principal
from app.http import batches
from app.http.audit_hook import AuditHook
from app.http.request import keyring, load, offers
from app.observability import Metrics
from app.schemas.batch import BatchRequest

blueprint: Final = Blueprint("batch", __name__)

_REQUESTS: Final = BatchRequest()


@blueprint.post("/batch")
def answer() -> ResponseReturnValue:
    """Answer each request as if it had come alone."""
    requests = load(_REQUESTS)["requests"]
    whole = current_request.current() or current_request.RequestRecord()
    parts = batches.run(keyring(), principal(), requests, offers(), whole)
    cast(AuditHook, current_app.extensions["audit_hook"]).end_parts(request, parts)
    metrics = cast(Metrics, current_app.extensions["metrics"])
    answered = Counter((part.endpoint, int(part.answer.status)) for part in parts)
    for (endpoint, status), number in answered.items():
        metrics.answered_parts(endpoint, status, number)
    whole.gather(answered, (part.exchange for part in parts))
    return {"responses": [part.told for part in parts]}
