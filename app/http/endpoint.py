"""The one declaration of an endpoint, from which everything else that is known of it is made.

That is the router, the OpenAPI document, who may ask without credentials, what is audited, what
metrics count together, what ``restore`` lists as changed, and the matrix of access in the tests.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

from flask import Blueprint
from marshmallow import Schema

from app.http import failures
from app.http.failures import Failures
from app.observability.kinds import Kind
from app.rights import Right, Role

API: Final = "/v1/crypto"
JSON: Final = "application/json"

View = TypeVar("View", bound=Callable[..., Any])


class Takes(StrEnum):
    """What a request may say who it comes from by, beside a certificate."""

    TOKENS = "tokens"
    """A bearer token."""
    PASSWORDS = "passwords"
    """That as a password: a browser can ask people for one, and not for a bearer token."""
    FORMS = "forms"
    """A cookie of somebody who has signed in, too: for pages whose forms no other page fills in."""


class Audit(StrEnum):
    """Whether requests have a line in the audit log, if they got as far as a key."""

    NONE = "none"
    USE = "use"
    CHANGE = "change"
    """A line that is on the disk before the answer; a request that got 503 has one, too."""


@dataclass(frozen=True)
class Endpoint:
    """One method of one path, and what a caller may rely on there.

    ``body`` and ``query`` are what is taken. ``answers`` are what one of is given with ``status``,
    each a schema, or the name of a body that has none; ``says`` is that in words. ``needs`` are
    the rights on the key and the roles that the caller must have. ``failures`` are those that do
    not follow from the rest. ``more`` is the description, by default that of the view.
    """

    method: str
    path: str
    _: KW_ONLY
    body: Schema | None = None
    query: Schema | None = None
    answers: tuple[Schema | str, ...] = ()
    says: str = "Success"
    status: int = 200
    media_types: tuple[str, ...] = (JSON,)
    needs: tuple[Right | Role, ...] = ()
    kind: Kind = Kind.OTHER
    audit: Audit = Audit.NONE
    failures: Failures = ()
    is_idempotent: bool = False
    """Whether an ``Idempotency-Key`` has a repeated request answered once."""
    is_conditional: bool = False
    """Whether the answer has an ``ETag``, and 304 is one to ``If-None-Match``."""
    is_cross_origin: bool = False
    """Whether pages of any origin may ask."""
    is_long: bool = False
    """Whether a request does the work of many, so that few of one caller have a turn at a time."""
    more: str = ""

    # What the resource and the view say:
    name: str = ""
    summary: str = ""
    is_public: bool = False
    takes: Takes = Takes.TOKENS

    @property
    def all_failures(self) -> Failures:
        """All that can go wrong."""
        return (
            *failures.EVERYWHERE,
            *(() if self.is_public else failures.CALLER),
            *(failures.BODY if self.body else ()),
            *(failures.QUERY if self.query else ()),
            *self._refusals(),
            *self.failures,
            *(failures.ONCE if self.is_idempotent else ()),
            *(failures.AUDIT if self.audit is not Audit.NONE else ()),
        )

    def _refusals(self) -> Failures:
        if any(isinstance(need, Right) for need in self.needs):
            return failures.KEY
        return failures.ROLE if self.needs else ()


class Resource:
    """Endpoints that belong together: what is ``name`` in logs and metrics, and a tag for readers.

    ``is_public`` endpoints serve everybody.
    """

    def __init__(
        self,
        name: str,
        about: str,
        *,
        prefix: str = "",
        is_public: bool = False,
        takes: Takes = Takes.TOKENS,
    ) -> None:
        self.name = name
        self.about = about
        self.blueprint = Blueprint(name, __name__)
        self.endpoints: list[Endpoint] = []
        self._prefix = prefix
        self._is_public = is_public
        self._takes = takes

    def serves(self, endpoint: Endpoint) -> Callable[[View], View]:
        """Have the decorated view answer ``endpoint``, which is named after it."""

        def register(view: View) -> View:
            declared = self._completed(endpoint, view)
            self.endpoints.append(declared)
            self.blueprint.add_url_rule(declared.path, view_func=view, methods=[declared.method])
            return view

        return register

    def _completed(self, endpoint: Endpoint, view: Callable[..., Any]) -> Endpoint:
        """Return ``endpoint`` with what the resource and the view say of it."""
        summary, _, more = str(view.__doc__).partition("\n")
        return replace(
            endpoint,
            path=self._prefix + endpoint.path,
            more=endpoint.more or " ".join(more.split()),
            name=f"{self.name}.{view.__name__}",
            summary=summary.rstrip("."),
            is_public=self._is_public,
            takes=self._takes,
        )
