"""What the forms of the admin page do with keys: each does what one request to the API does."""

from http import HTTPStatus
from typing import Final

from flask.typing import ResponseReturnValue

from app.auth import principal
from app.errors import BadRequest
from app.http.endpoint import Audit, Endpoint
from app.http.failures import ALGORITHM, ALIAS, ALONE, AWAY, BODY, QUOTA, STATE, TOKEN
from app.http.request import catalogue, keyring, offers, service
from app.http.views.admin.page import Form, form, go_to, part
from app.http.views.admin.purposes import groups
from app.observability.kinds import Kind
from app.rights import Right, Role
from app.schemas import loading
from app.schemas.catalogue import ChangeRequest, GrantRequest
from app.schemas.keys import CreateKeyRequest

resource: Final = part("admin_actions", "What forms do with keys.")

_CREATE: Final = CreateKeyRequest()
_CHANGE: Final = ChangeRequest()
_GRANT: Final = GrantRequest()


@resource.serves(
    Endpoint(
        "POST",
        "/admin/create",
        status=HTTPStatus.SEE_OTHER,
        needs=(Role.CREATOR,),
        kind=Kind.MAKE,
        audit=Audit.CHANGE,
        failures=(*BODY, *ALGORITHM, *TOKEN, *QUOTA, *ALIAS),
    )
)
def create() -> ResponseReturnValue:
    """Generate a key and show it."""
    body = loading.load(_CREATE, _members(form()), offers())
    return go_to(f"/keys/{keyring().imports.create(principal(), body, None)['kid']}")


@resource.serves(
    Endpoint(
        "POST",
        "/admin/keys/<kid>/state",
        status=HTTPStatus.SEE_OTHER,
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=(*BODY, *STATE, *ALONE, *AWAY),
    )
)
def change_state(kid: str) -> ResponseReturnValue:
    """Deactivate a key, make it active again, or say that others may have it."""
    body = loading.load(_CHANGE, {"state": form().one("state")}, offers())
    catalogue().change(principal(), kid, body)
    return go_to(f"/keys/{kid}")


@resource.serves(
    Endpoint(
        "POST",
        "/admin/keys/<kid>/grants",
        status=HTTPStatus.SEE_OTHER,
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=(*BODY, *ALONE),
    )
)
def grant(kid: str) -> ResponseReturnValue:
    """Let a principal do what is ticked with a key, and nothing else: nothing if nothing is."""
    fields = form()
    operations = fields.get("operations")
    granted = loading.load(_GRANT, {"operations": operations}, offers()) if operations else ()
    catalogue().grant(principal(), kid, fields.one("principal"), granted)
    return go_to(f"/keys/{kid}")


@resource.serves(
    Endpoint(
        "POST",
        "/admin/keys/<kid>/destroy",
        status=HTTPStatus.SEE_OTHER,
        needs=(Right.DESTROY,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=(*BODY, *TOKEN),
    )
)
def destroy(kid: str) -> ResponseReturnValue:
    """Destroy a key whose kid was typed in."""
    if form().one("typed") != kid:
        raise BadRequest("The kid that was typed in is not that of the key: nothing was done")
    keyring().creation.destroy(principal(), kid)
    return go_to("")


@resource.serves(
    Endpoint(
        "POST",
        "/admin/keys/<kid>/restore",
        status=HTTPStatus.SEE_OTHER,
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=STATE,
    )
)
def restore(kid: str) -> ResponseReturnValue:
    """Bring back a key that is to be destroyed."""
    catalogue().restore(principal(), kid)
    return go_to(f"/keys/{kid}")


def _members(fields: Form) -> dict[str, object]:
    """Return the members of a request for the key that was asked for."""
    tags, day = fields.one("tags").split(), fields.one("expires")
    return {
        **_chosen(fields.one("purpose")),
        **fields.only("name", "alias", "destroy_after"),
        **({"tags": tags} if tags else {}),
        **({"expires": f"{day}T00:00:00Z"} if day else {}),
    }


def _chosen(title: str) -> dict[str, object]:
    """Return what a key is that is for the purpose ``title``; raise ``BadRequest``."""
    capabilities = service().capabilities.describe(service().hsm.offers())
    offered = (purpose for group in groups(capabilities) for purpose in group.purposes)
    members = next((purpose.members for purpose in offered if purpose.title == title), None)
    if members is None:
        raise BadRequest("Choose one of the purposes of a key that are offered")
    return members
