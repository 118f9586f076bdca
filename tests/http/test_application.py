"""What is done once, or left out, ends as Flask ends it each time."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, jsonify, request, session
from werkzeug.exceptions import HTTPException

from app.http.application import _MOST_KNOWN, Application, JsonResponse, Responses
from app.http.router import ENDPOINTS, route

HOSTS = (
    "localhost",
    "localhost:8000",
    "127.0.0.1",
    "EXAMPLE.org:80",
    "[::1]:443",
    "a..b",
    "ä",
    "/",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X")
KID = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
PATHS = (
    *sorted({endpoint.path for endpoint in ENDPOINTS if "<" not in endpoint.path}),
    *(f"/v1/crypto/keys/{KID}", "/v1/crypto/keys/", "//v1/crypto/mac", "/v1/crypto/MAC", "/none"),
    *("/v1/crypto/mac/", "", "/v1/crypto/../crypto/mac"),
)
WEBSOCKET = {"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"}


def routed(app: Flask) -> Flask:
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    route(app, pages=True)
    return app


@pytest.fixture(scope="module")
def flask() -> Flask:
    return routed(Flask("app", static_folder=None))


@pytest.fixture
def ours() -> Application:
    app = Application("app")
    routed(app)
    return app


def met(app: Flask, environ: dict[str, str]) -> Any:
    """Return what a request meets: its endpoint and arguments, or what it is answered."""
    with app.test_request_context("/", environ_overrides=environ):
        error = request.routing_exception
        answer = error and error.get_response(request.environ)
        return (
            request.endpoint,
            request.view_args,
            request.host,
            request.url,
            answer and (answer.status, list(answer.headers), answer.get_data()),
        )


def environs() -> Iterator[dict[str, str]]:
    for path in PATHS:
        for method in METHODS:
            yield {"PATH_INFO": path, "REQUEST_METHOD": method, "HTTP_HOST": "localhost"}
    for host in HOSTS:
        yield {"PATH_INFO": "/v1/crypto/mac", "REQUEST_METHOD": "POST", "HTTP_HOST": host}
    for more in (WEBSOCKET, {"SCRIPT_NAME": "/x"}, {"wsgi.url_scheme": "https"}):
        yield {"PATH_INFO": "/v1/crypto/mac", "REQUEST_METHOD": "POST", **more}
    yield {"PATH_INFO": "/v1/crypto/mac", "REQUEST_METHOD": "POST", "QUERY_STRING": "a=b"}


def test_every_request_is_matched_as_flask_does_the_first_time_and_the_next(flask, ours):
    for environ in environs():
        expected = met(flask, environ)
        assert [met(ours, environ) for _ in range(2)] == [expected, expected], environ


def test_a_request_without_host_is_matched(flask, ours):
    for app in (flask, ours):
        with app.test_request_context("/v1/crypto/mac", method="POST") as context:
            del context.request.environ["HTTP_HOST"]
            adapter = app.create_url_adapter(context.request)
            assert adapter
            assert adapter.match()[0] == "signing.mac"


def test_what_is_matched_once_is_known(ours, monkeypatch):
    environ = {"PATH_INFO": "/v1/crypto/mac", "REQUEST_METHOD": "POST"}
    expected = met(ours, environ)
    monkeypatch.setattr(type(ours.url_map), "bind_to_environ", None)
    assert met(ours, environ) == expected


def test_paths_with_arguments_and_refusals_are_matched_each_time(ours):
    for method, path in (("GET", f"/v1/crypto/keys/{KID}"), ("GET", "/none"), ("PUT", "/")):
        met(ours, {"PATH_INFO": path, "REQUEST_METHOD": method})
    assert ours._known == {}


def test_no_more_is_known_than_there_is_room_for(ours):
    for number in range(2 * _MOST_KNOWN + 1):
        met(ours, {"PATH_INFO": "/", "HTTP_HOST": f"host{number}"})
        assert len(ours._known) <= _MOST_KNOWN


def arguments(app: Flask) -> Iterator[tuple[str, dict[str, str]]]:
    """Each endpoint, with its arguments and one more."""
    for rule in app.url_map.iter_rules():
        yield rule.endpoint, {**dict.fromkeys(rule.arguments, "ä/1"), "more": "a b"}


def test_urls_are_built_as_flask_builds_them(flask, ours):
    for endpoint, values in arguments(flask):
        for unknown in (True, False):
            built = [
                app.url_map.bind("localhost").build(endpoint, values, append_unknown=unknown)
                for app in (flask, ours)
            ]
            assert built[0] == built[1]


def functions(app: Flask) -> Iterator[Callable[..., Any]]:
    """Everything that Flask calls for a request, by ``ensure_sync``."""
    yield from app.view_functions.values()
    for hooks in (app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs):
        for some in hooks.values():
            yield from some
    yield from app.teardown_appcontext_funcs
    for by_code in app.error_handler_spec.values():
        for by_class in by_code.values():
            yield from by_class.values()


def test_nothing_that_flask_calls_is_async(application):
    called = list(functions(application))
    assert len(called) > 30
    assert not any(map(inspect.iscoroutinefunction, called))


def test_flask_raises_what_has_no_route(ours):
    with ours.test_request_context("/none"):
        assert isinstance(request.routing_exception, HTTPException)


def answered(application: Any, environ: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a server is told by WSGI: the status, the headers and the body."""
    told: list[Any] = []
    body = b"".join(application(environ, lambda status, headers: told.extend((status, headers))))
    return (*told, body)


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 404, 422, 429, 503])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_headers_of_json_are_those_that_werkzeug_finds(ours, method, status):
    ours.json = Responses(ours)
    with ours.test_request_context(method=method):
        response = jsonify({"text": "ä", "list": [1]})
        response.status_code = status
        response.headers.add("Retry-After", "2")
        environ = request.environ
        assert isinstance(response, JsonResponse)
        assert answered(response, environ) == answered(
            partial(Response.__call__, response), environ
        )
        assert response.get_data() == '{"text":"ä","list":[1]}\n'.encode()


def test_json_of_other_than_one_value_is_as_with_flask(ours):
    ours.json = Responses(ours)
    with ours.test_request_context():
        assert jsonify(a=1).get_data() == b'{"a":1}\n'
        assert jsonify(1, 2).get_data() == b"[1,2]\n"
        assert jsonify().get_data() == b"null\n"


HOOKED = ("/pages/one", "/pages/other", "/bare", "/none", "/pages/refused", "/stopped")


def hooked(app: Flask) -> tuple[Flask, list[str]]:
    """Return ``app`` with hooks of its own and of a blueprint, and what was called."""
    called: list[str] = []

    def hook(name: str, answer: Any = None) -> Callable[..., Any]:
        def act(response: Any = answer) -> Any:
            called.append(name)
            return response

        return act

    def refuse() -> Any:
        abort(403)

    pages = Blueprint("pages", __name__)
    for name in ("first", "second"):
        app.before_request(hook(f"{name} before"))
        app.after_request(hook(f"{name} after"))
        pages.before_request(hook(f"{name} before pages"))
        pages.after_request(hook(f"{name} after pages"))
    app.before_request(lambda: "stopped" if request.path == "/stopped" else None)
    for path in ("/one", "/other"):
        pages.add_url_rule(path, path[1:], hook(path, {"path": path}))
    pages.add_url_rule("/refused", "refused", refuse)
    app.register_blueprint(pages, url_prefix="/pages")
    for path in ("/bare", "/stopped"):
        app.add_url_rule(path, path[1:], hook(path, {"path": path}))
    return app, called


def test_hooks_are_called_as_flask_calls_them_the_first_time_and_the_next():
    (flask, expected), (ours, called) = hooked(Flask("app")), hooked(Application("app"))
    for path in HOOKED * 2:
        answers = [app.test_client().get(path) for app in (flask, ours)]
        assert answers[0].status == answers[1].status
        assert answers[0].get_data() == answers[1].get_data()
        assert called == expected, path
    assert {"first before pages", "/one", "second after"} <= set(called)


def test_the_service_has_nothing_that_is_left_out(application):
    assert not application.url_value_preprocessors
    assert not application.teardown_request_funcs
    assert not application.teardown_appcontext_funcs
    assert not any("." in name for name in application.blueprints)  # none is inside another


def test_no_session_keeps_anything(ours):
    with ours.test_request_context():
        with pytest.raises(RuntimeError):
            session["name"] = "value"
        assert not session
        answer = ours.process_response(Response())
    assert "Set-Cookie" not in answer.headers
