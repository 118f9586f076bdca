"""Signing in to the admin page with an API token, and out."""

from http import HTTPStatus
from typing import Final

from flask import request
from flask.typing import ResponseReturnValue

from app.auth.sessions import COOKIE, SESSION_SECONDS
from app.http.endpoint import Endpoint
from app.http.failures import BODY, CALLER
from app.http.origin import origin_of
from app.http.request import service
from app.http.views.admin.page import form, go_to, part, render
from app.observability.kinds import Kind

resource: Final = part("admin_entrance", "Sign in, and out.", is_public=True)


@resource.serves(Endpoint("GET", "/admin/sign-in", kind=Kind.PAGE))
def ask() -> ResponseReturnValue:
    """Ask for an API token."""
    return render("sign_in.html")


@resource.serves(
    Endpoint(
        "POST",
        "/admin/sign-in",
        status=HTTPStatus.SEE_OTHER,
        kind=Kind.PAGE,
        failures=(*BODY, *CALLER),
    )
)
def sign_in() -> ResponseReturnValue:
    """Give the browser a cookie that stands for the API token for an hour.

    No script sees it, and it is sent with requests of this page alone. Over TLS it is never sent
    without; that there is TLS, in front of a proxy too, the browser says in ``Origin``.
    """
    cookie = service().authenticator.sign_in(form().one("token"), request)
    response = go_to("")
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_SECONDS,
        path=None,  # that of this page, wherever a proxy has it
        secure=origin_of(request).scheme == "https",
        httponly=True,
        samesite="Strict",
    )
    return response


@resource.serves(Endpoint("POST", "/admin/sign-out", status=HTTPStatus.SEE_OTHER, kind=Kind.PAGE))
def sign_out() -> ResponseReturnValue:
    """Have the browser forget the cookie."""
    response = go_to("/sign-in")
    response.delete_cookie(COOKIE, path=None, httponly=True, samesite="Strict")
    return response
