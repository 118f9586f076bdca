"""Key sets, the end of the audit log, and API tokens that end soon, on the admin page."""

from datetime import UTC, datetime, timedelta
from typing import Final

from flask.typing import ResponseReturnValue

from app.auth import principal
from app.errors import AuditUnavailable
from app.http.endpoint import Endpoint
from app.http.failures import AUDIT, QUERY
from app.http.request import keysets, service
from app.http.views.admin.page import part, query, render
from app.http.views.admin.timeline import Timeline
from app.observability.kinds import Kind
from app.rights import Right, Role
from app.schemas.keysets import KeySetsQuery

resource: Final = part("admin_overviews", "Key sets, the audit log, API tokens.")

_QUERY: Final = KeySetsQuery()
_LINES: Final = 100
_SOON: Final = timedelta(days=30)


@resource.serves(Endpoint("GET", "/admin/keysets", kind=Kind.PAGE, failures=QUERY))
def page() -> ResponseReturnValue:
    """List the key sets that the caller may read."""
    found = keysets().page(principal(), **_QUERY.load(query()))
    return render("keysets.html", keysets=found.keysets, after=found.after)


@resource.serves(Endpoint("GET", "/admin/keysets/<keyset>", needs=(Right.READ,), kind=Kind.PAGE))
def read(keyset: str) -> ResponseReturnValue:
    """Show a key set, its versions in time."""
    found = keysets().read(principal(), keyset)
    return render("keyset.html", keyset=found, timeline=Timeline(found))


@resource.serves(
    Endpoint("GET", "/admin/audit", needs=(Role.AUDITOR,), kind=Kind.PAGE, failures=AUDIT)
)
def audit() -> ResponseReturnValue:
    """Show the last lines of the audit log of this host."""
    service().status.require_reader(principal())
    log = service().audit_log
    try:
        lines = log and log.last(_LINES)
    except OSError as error:
        raise AuditUnavailable from error
    return render("audit.html", lines=lines)


@resource.serves(Endpoint("GET", "/admin/tokens", needs=(Role.AUDITOR,), kind=Kind.PAGE))
def tokens() -> ResponseReturnValue:
    """Show the API tokens that end soon, the first one first."""
    service().status.require_reader(principal())
    now = datetime.now(UTC)
    valid = [token for token in service().registry.credentials.all() if token.refusal is None]
    ending = [token for token in valid if token.expires_at and token.expires_at < now + _SOON]
    return render(
        "tokens.html",
        tokens=sorted(ending, key=lambda token: token.expires_at or now),
        number=len(valid),
        days=_SOON.days,
        now=now,
    )
