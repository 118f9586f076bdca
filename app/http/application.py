"""Flask, without what it finds out anew for each request, and with JSON that is written faster."""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import orjson
from flask import Flask, Request, Response
from flask.globals import _cv_app, _cv_request
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter, Rule

from app.auth.asked import asked

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_MATCHED: Final = (
    *("HTTP_HOST", "wsgi.url_scheme", "SCRIPT_NAME", "PATH_INFO", "REQUEST_METHOD"),
    *("HTTP_CONNECTION", "HTTP_UPGRADE"),
)
"""What Werkzeug matches by, and takes the name of the host from."""
_SAME: Final = ("method", "scheme", "server", "root_path", "path", "shallow", "json_module")
"""What Werkzeug has found out of that for the request itself."""
_MOST_KNOWN: Final = 256
_BARE: Final = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)

Before = Callable[[], Any]
After = Callable[[Response], Response]


_EMPTY: Final = Response()


class JsonResponse(Response):
    """An answer whose headers are whole as soon as it is made, and so is its ``body``."""

    def __init__(self, body: bytes) -> None:
        """Make it with 200; Werkzeug would find out what is known already."""
        self.__dict__.update(vars(_EMPTY), response=[body], headers=Headers(), _on_close=[])
        self.headers.add("Content-Type", "application/json")
        self.headers.add("Content-Length", str(len(body)))

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer; Werkzeug would look for a length to add and a location to complete."""
        if self.status_code in _BARE or environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start_response)
        start_response(self.status, self.headers.to_wsgi_list())
        return cast("list[bytes]", self.response)


class Responses(DefaultJSONProvider):
    """Writes the bodies of answers: in UTF-8, with the members in the order of the views.

    Flask's own takes longer over the base64url of a long text than the token over the text.
    """

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Return ``obj`` in JSON, without white space."""
        try:
            return orjson.dumps(obj).decode("utf-8")
        except orjson.JSONEncodeError:  # an ``id`` that does not fit into 64 bits
            return super().dumps(obj, **kwargs)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return an answer with one value as its body."""
        if len(args) != 1 or kwargs:
            return cast(Response, super().response(*args, **kwargs))
        try:
            return JsonResponse(orjson.dumps(args[0], option=orjson.OPT_APPEND_NEWLINE))
        except orjson.JSONEncodeError:  # an ``id`` that does not fit into 64 bits
            return JsonResponse(b"%b\n" % super().dumps(args[0]).encode("utf-8"))


class NoSessions(SessionInterface):
    """All requests have the same session, in which nothing can be kept."""

    def __init__(self) -> None:
        self._none = self.null_session_class()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        """Return it: Flask would look for a key and a cookie, and make one each time."""
        return self._none


class KnownRequest(Request):
    """A request like one before, but for its headers, its body and who sends it."""

    endpoint: str | None = None
    """Of the rule, for which Flask would look each time."""

    def __init__(self, environ: "WSGIEnvironment", same: Mapping[str, Any]) -> None:
        """Make it of the environment, and of what is the ``same`` in both."""
        self.__dict__.update(same)
        self.environ = environ
        self.headers = EnvironHeaders(environ)
        self.remote_addr = environ.get("REMOTE_ADDR")
        self.query_string = environ.get("QUERY_STRING", "").encode("latin-1")


class _Known(NamedTuple):
    """What Werkzeug has found for a path without arguments."""

    host: str
    rule: Rule
    same: Mapping[str, Any]

    def match(self, **_return_rule: bool) -> tuple[Rule, dict[str, Any]]:
        """Return the rule, as Flask wants it, and no arguments."""
        return self.rule, {}


class _Hooks(NamedTuple):
    """What is called before and after a view, in this order."""

    before: tuple[Before, ...]
    after: tuple[After, ...]


def _first(hooks: Iterable[Before]) -> Any:
    for hook in hooks:
        if (answer := hook()) is not None:
            return answer
    return None


def _in_turn(hooks: Iterable[After], response: Response) -> Response:
    for hook in hooks:
        response = hook(response)
    return response


class Contexts:
    """Both contexts of Flask while one request is answered, without what nobody asks them.

    Flask takes longer to make its own, and to forget them, than to call a view.
    """

    __slots__ = ("_g", "app", "request")

    def __init__(self, app: Flask, request: Request) -> None:
        self.app = app
        self.request = request
        self._g: Any = None

    @property
    def g(self) -> Any:
        """What is kept for the time of the request."""
        self._g = self._g or self.app.app_ctx_globals_class()
        return self._g


class Path(Rule):
    """A rule for matching: what builds URLs by it is compiled only when one is built.

    We build none, and to compile that is nearly all that a rule costs at the start of a worker.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compiled = super()._compile_builder

        def build(rule: Rule, **values: Any) -> tuple[str, str]:
            return compiled(append_unknown)(rule, **values)

        return build


class Application(Flask):
    """An application whose paths without arguments, and whose hooks, are looked up once.

    It has no ``async`` views, no sessions, no preprocessors of URLs, and nothing that is called
    when a request is torn down, or by a signal. Views of ``direct`` endpoints ask Flask for nothing
    but the request, the application and ``g``.
    """

    url_rule_class = Path

    def __init__(self, name: str, direct: Collection[str] = ()) -> None:
        super().__init__(name, static_folder=None)
        self._direct: Final = frozenset(direct)
        self.session_interface = NoSessions()
        self._known: dict[tuple[Any, ...], _Known] = {}
        self._hooks: dict[str | None, _Hooks] = {}

    def wsgi_app(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request; of a direct endpoint, once it is known, in ``Contexts``."""
        known = self._known.get(tuple(map(environ.get, _MATCHED)))
        if known is None or known.rule.endpoint not in self._direct:
            # The path of http://host is empty (RFC 9110 §4.2.3).
            environ["PATH_INFO"] = environ.get("PATH_INFO") or "/"
            return super().wsgi_app(environ, start_response)
        contexts: Any = Contexts(self, KnownRequest(environ, known.same))
        outer, outer_request = _cv_app.set(contexts), _cv_request.set(contexts)
        try:
            return self._answer(known.rule.endpoint)(environ, start_response)
        finally:
            _cv_request.reset(outer_request)
            _cv_app.reset(outer)

    def _answer(self, endpoint: str) -> Response:
        """Do what ``Flask.full_dispatch_request`` does, and ``handle_exception`` around it."""
        hooks = self._own_hooks()
        try:
            try:
                answer = _first(hooks.before)
                if answer is None:
                    answer = self.view_functions[endpoint]()
            except Exception as error:  # noqa: BLE001  # all have handlers
                answer = self.handle_user_exception(error)
            return _in_turn(hooks.after, self.make_response(answer))
        except Exception as error:  # noqa: BLE001  # of a hook after the view, or of a handler
            return self.handle_exception(error)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``func``: Flask would look each time whether it is ``async``."""
        return func

    def preprocess_request(self) -> Any:
        """Return what the first hook answers that does, instead of the view."""
        return _first(self._own_hooks().before)

    def make_response(self, rv: Any) -> Response:
        """Return the answer that ``rv`` stands for, which is the body of one for most views."""
        if type(rv) is dict:
            return cast(Response, self.json.response(rv))
        return super().make_response(rv)

    def process_response(self, response: Response) -> Response:
        """Return what the hooks make of ``response``."""
        return _in_turn(self._own_hooks().after, response)

    def do_teardown_request(self, exc: BaseException | None = None) -> None:
        """Do nothing: Flask would look for what to call, and for listeners."""

    def do_teardown_appcontext(self, exc: BaseException | None = None) -> None:
        """Do nothing, as above."""

    def _own_hooks(self) -> _Hooks:
        """Return the hooks of the current request, those of its blueprint with those of all."""
        request = asked()
        endpoint = request.endpoint
        hooks = self._hooks.get(endpoint)
        if hooks is None:
            hooks = self._hooks[endpoint] = self._hooks_of(request.blueprint)
        return hooks

    def _hooks_of(self, blueprint: str | None) -> _Hooks:
        names = (None,) if blueprint is None else (None, blueprint)
        before, after = self.before_request_funcs, self.after_request_funcs
        return _Hooks(
            tuple(hook for name in names for hook in before.get(name, ())),
            tuple(hook for name in reversed(names) for hook in reversed(after.get(name, ()))),
        )

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what Flask matches the path with."""
        if request is None or "HTTP_HOST" not in request.environ:
            return super().create_url_adapter(request)
        asked = tuple(map(request.environ.get, _MATCHED))
        known = self._known.get(asked)
        if known is None:
            adapter = super().create_url_adapter(request)
            self._learn(asked, request, cast(MapAdapter, adapter))
            return adapter
        request.host = known.host
        return cast(MapAdapter, known)  # as far as Flask asks it

    def _learn(self, asked: tuple[Any, ...], request: Request, adapter: MapAdapter) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known = {}
        with suppress(HTTPException):  # which Flask meets, too
            rule, arguments = adapter.match(return_rule=True)
            if not arguments:
                same = {name: value for name, value in vars(request).items() if name in _SAME}
                found = {"url_rule": rule, "endpoint": rule.endpoint, "view_args": {}}
                same |= {**found, "host": request.host}
                self._known[asked] = _Known(request.host, rule, same)
