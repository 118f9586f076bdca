"""What all parts of the admin page have in common: how they look, and whose forms they take."""

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

from flask import Response, make_response, redirect, render_template, request

from app import auth
from app.auth.sessions import COOKIE
from app.errors import BadRequest, ForeignForm, TooManyFailures, Unauthorized
from app.http import request_body
from app.http.answers import answer, completed
from app.http.endpoint import Resource, Takes
from app.http.origin import is_own_page
from app.http.page_headers import protected
from app.http.request import service
from app.rights import Right

_FORM: Final = "application/x-www-form-urlencoded"
_MOST_FIELDS: Final = 100


class Form(dict[str, list[str]]):
    """What was filled in, by the name of its field; what was left empty is not there."""

    def one(self, name: str) -> str:
        """Return what is in a field, without the blanks at its edges; nothing is empty."""
        return self.get(name, [""])[0].strip()

    def only(self, *names: str) -> dict[str, str]:
        """Return those of the fields that were filled in."""
        return {name: text for name in names if (text := self.one(name))}


def part(name: str, about: str, *, is_public: bool = False) -> Resource:
    """Return a part of the page: nothing of others is in it, and nobody else's form is taken."""
    takes = Takes.TOKENS if is_public else Takes.FORMS
    resource = Resource(name, about, is_public=is_public, takes=takes)
    blueprint = resource.blueprint
    blueprint.before_request(_require_own_form)
    blueprint.after_request(_closed)
    blueprint.register_error_handler(Exception, _show_error)
    return resource


def render(template: str, **members: Any) -> Response:
    """Return the page that ``template`` makes of ``members``."""
    me = auth.caller()
    text = render_template(
        f"admin/{template}",
        root=_root(),
        me=me,
        is_signed_in=COOKIE in request.cookies,
        reads_all=me is not None and service().status.is_reader(me),
        **members,
    )
    response = make_response(text)
    response.cache_control.no_store = True
    return response


def go_to(path: str) -> Response:
    """Have the browser ask for another part of the page, wherever a proxy has the page."""
    return make_response(redirect(f"{_root()}admin{path}", HTTPStatus.SEE_OTHER))


def form() -> Form:
    """Return what was filled in."""
    if request.mimetype != _FORM:
        raise BadRequest("The body must be a form")
    try:
        text = request_body.read(request.environ).decode("ascii")
        return Form(parse_qs(text, errors="strict", max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise BadRequest("The body must be a form, in UTF-8, of few fields") from None


def query() -> dict[str, str]:
    """Return what the address asks for; what was left empty in a form is not there."""
    return {name: value for name, value in request.args.items() if value}


def _root() -> str:
    """Return where the service begins, seen from the page that was asked for."""
    return "../" * (request.path.count("/") - 1)


def _require_own_form() -> None:
    """Raise ``ForeignForm`` unless the browser says that a page of this service was filled in."""
    if request.method == "POST" and not is_own_page(request):
        raise ForeignForm


def _show_error(error: Exception) -> Response:
    """Show an error; who is not known can sign in, however many others could not."""
    status, body = answer(error)
    is_unknown = isinstance(error, Unauthorized | TooManyFailures)
    template = "sign_in.html" if is_unknown else "error.html"
    return completed(render(template, error=body["error"], why=body["description"]), error, status)


_FORBIDDEN: Final = protected(style_src="'self'", img_src="'self'", form_action="'self'")


def _closed(response: Response) -> Response:
    """Forbid all but our own style, pictures and forms.

    The browser says to ourselves, and nobody else, where it comes from: without a referrer it
    would not say whose page a form is on, either.
    """
    response = _FORBIDDEN(response)
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def rights_on(owner: str) -> frozenset[Right]:
    """Return what the caller may do with keys of ``owner``, whatever is granted on one of them."""
    me = auth.principal()
    return frozenset(one for one in Right if me.may(one, owner=owner, is_granted=False))
