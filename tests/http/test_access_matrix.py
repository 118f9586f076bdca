"""Everybody by everything: who calls, what is called, with which key, and what is answered."""

import json
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from app.auth.api_tokens import _hash
from app.config import Config
from app.http.endpoint import Endpoint
from app.http.router import ENDPOINTS
from app.registry import Registry
from app.rights import GRANTABLE, Right, Role
from tests.shared.api import PREFIX, Api, header
from tests.shared.authority import Certificates
from tests.shared.callers import token_for
from tests.shared.chains import chain_for, public_key, x5c
from tests.shared.issuer import BAD, Issuer
from tests.shared.waiting import ANSWER

CREATE, MANAGE, TAG, CERTIFY = "create", "manage", "tag", "certify"
EVERY_KEY = "read every key"
UNKNOWN_KID = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"
NOT_CONNECTED = "not connected"
ERRORS = {401: "unauthorized", 403: "forbidden", 404: "not_found"}

# --- What is called ---

Body = Callable[[Mapping[str, Any], str], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request to an endpoint, about ``key``; the rights that it takes are declared there."""

    endpoint: Endpoint
    path: str
    method: str
    key: str | None = None
    body: Body | None = None
    is_final: bool = False

    @property
    def name(self) -> str:
        return f"{self.method} {self.path} {self.key}"

    @property
    def is_form(self) -> bool:
        return self.endpoint.path.startswith("/admin")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(NEEDS.get(need, str(need)) for need in self.endpoint.needs)


NEEDS: dict[Right | Role, str] = {Role.CREATOR: CREATE, Role.AUDITOR: EVERY_KEY}


def call(name: str, method: str | None = None, *, query: str = "", **members: Any) -> Call:
    """A request to the endpoint ``name``, which has one method or this one."""
    (endpoint,) = (one for one in ENDPOINTS if one.name == name and method in {None, one.method})
    path = (
        PATHS.get(
            endpoint.path, endpoint.path.replace("<kid>", "{kid}").replace("<keyset>", "{kid}")
        )
        + query
    )
    return Call(endpoint=endpoint, path=path, method=endpoint.method, **members)


PATHS = {
    f"{PREFIX}/keys/<kid>/grants/<name:grantee>": f"{PREFIX}/keys/{{kid}}/grants/token:somebody",
    f"{PREFIX}/keysets/<keyset>/grants/<name:grantee>": (
        f"{PREFIX}/keysets/{{kid}}/grants/token:somebody"
    ),
    "/docs/<path:filename>": "/docs/docs.js",
}


def use(endpoint: str, key: str, **members: Any) -> Call:
    """A call that names the key in its body."""
    return call(endpoint, key=key, body=lambda _made, kid: {"kid": kid, "data": "AAAA"} | members)


def message(endpoint: str, key: str, **names: str) -> Call:
    """A call that names the key in the protected header of a message made before."""

    def body(made: Mapping[str, Any], kid: str) -> dict[str, Any]:
        return made[f"message for {key}"] | {"protected": header(**names, kid=kid)}

    return call(endpoint, key=key, body=body)


def _mac(made: Mapping[str, Any], kid: str) -> dict[str, Any]:
    return {"kid": kid, "alg": "HS256", "data": "AAAA", "mac": "AAAA"}


def _batch(made: Mapping[str, Any], _kid: str) -> dict[str, Any]:
    """Each request of a batch needs its own right; the batch itself none."""
    return {"requests": [{"op": "mac", "body": _mac(made, made["HMAC"])}]}


def _rewrapped(made: Mapping[str, Any], kid: str) -> dict[str, Any]:
    """A message for a key, to be for the same key: it takes the rights on both."""
    named = {"protected": header(**OAEP, kid=kid)}
    return made["message for RSA"] | named | {"to": {"kid": kid, "alg": OAEP["alg"]}}


def _new(**members: str) -> Body:
    return lambda _made, _kid: {"kty": "oct", "alg": "A128GCM"} | members


def _just(**members: Any) -> Body:
    return lambda _made, _kid: members


AES = {"alg": "dir", "enc": "A128GCM"}
OAEP = {"alg": "RSA-OAEP", "enc": "A128GCM"}
CALLS = [
    call("keys.create", body=_new()),
    replace(call("keys.create", body=_new(k="A" * 22)), key="an import"),
    call("keys.wrapping_key", body=_just()),
    call("keys.page"),
    call("keys.page", query="?owner=token:owner"),
    call("keys.read", key="EC"),
    call("keys.read", key="EC public"),
    call("keys.read", key="AES"),
    call("keys.public_pem", key="EC"),
    call("keys.change", key="EC", body=_just(name="x")),
    call("keys.change", key="AES", body=_just(owner="token:owner")),
    call(
        "keys.change", key="EC public", body=_just(state="active", expires="2099-12-31T00:00:00Z")
    ),
    call("keys.destroy", key="final", is_final=True),
    call("keys.restore", key="deleted", is_final=True),
    call("keys.tags", key="EC"),
    call("keys.change_tags", "POST", key="EC", body=_just(tags=["x"])),
    call("keys.change_tags", "DELETE", key="EC", body=_just(tags=["x"])),
    call("certificates.csr", key="EC", body=_just(subject={"CN": "x"})),
    call("certificates.certify", key="EC", body=lambda made, _kid: {"x5c": made["chain"]}),
    call("certificates.uncertify", key="EC"),
    call("grants.grants", key="EC"),
    call("grants.grant", key="EC", body=_just(operations=["read"])),
    call("grants.revoke", key="EC"),
    use("encryption.encrypt", "AES", **AES),
    use("encryption.encrypt", "RSA public", **OAEP),
    message("encryption.decrypt", "AES", **AES),
    message("encryption.decrypt", "RSA", **OAEP),
    call("encryption.rewrap", key="RSA", body=_rewrapped),
    message("keys.unwrap", "RSA", **OAEP),
    use("signing.sign", "EC", alg="ES256"),
    call("signing.sign_raw", key="EC", body=_just(alg="ES256", data="AAAA")),
    message("signing.verify", "EC public", alg="ES256"),
    use("signing.mac", "HMAC", alg="HS256"),
    call("signing.mac", key="HMAC", body=_mac),
    replace(call("keysets.put", body=_new()), path=f"{PREFIX}/keysets/{{new}}"),
    call("keysets.page"),
    call("keysets.read", key="set"),
    call("keysets.grants", key="set"),
    call("keysets.grant", key="set", body=_just(operations=["read"])),
    call("keysets.ungrant", key="set"),
    call("keysets.destroy", key="final set", is_final=True),
    call("versions.rotate", key="set", body=_just()),
    call("versions.revoke", key="set", body=lambda made, _kid: {"kid": made["retired"]}),
    call("versions.csr", key="set", body=_just(subject={"CN": "x"})),
    call("random.generate", body=_just(bytes=16)),
    call("capabilities.show"),
    call("batch.answer", body=_batch),
    *(
        call(name)
        for name in (
            *("status.show", "jwks.jwks", "health.live", "health.ready", "health.metrics"),
            *("docs.page", "docs.static", "openapi.document", "openapi.strict"),
            "index.index",
            *("admin_entrance.ask", "admin_keys.page", "admin_keys.ask"),
            *("admin_overviews.page", "admin_overviews.audit", "admin_overviews.tokens"),
        )
    ),
    call("admin_entrance.sign_in", body=lambda made, _kid: {"token": made["token"]}),
    call("admin_entrance.sign_out", body=_just()),
    call("admin_keys.read", key="EC"),
    call("admin_actions.create", body=_just(purpose="HS256 · oct")),
    call("admin_actions.change_state", key="EC", body=_just(state="active")),
    call(
        "admin_actions.grant",
        key="EC",
        body=_just(principal="token:somebody", operations=["read"]),
    ),
    call(
        "admin_actions.destroy", key="final", body=lambda _made, kid: {"typed": kid}, is_final=True
    ),
    call("admin_actions.restore", key="deleted", body=_just(), is_final=True),
    call("admin_overviews.read", key="set"),
]
CALLS += [replace(call, method="HEAD") for call in CALLS if call.method == "GET"]


# --- Who calls, and the rights that each has to the keys of ``token:owner`` ---

EVERYTHING = frozenset({*GRANTABLE, CREATE, MANAGE, TAG, CERTIFY})
TRUSTED: dict[str, frozenset[str]] = {
    "the owner": EVERYTHING,
    **{f"granted {operation}": frozenset({operation}) for operation in GRANTABLE},
    "granted all": frozenset(GRANTABLE),
    "granted all, creator": frozenset({*GRANTABLE, CREATE}),
    "another": frozenset(),
    "admin": frozenset({CREATE, "read", "destroy", MANAGE, EVERY_KEY}),
    "auditor": frozenset({"read", EVERY_KEY}),
    "creator": frozenset({CREATE}),
    "JWT of the same name": frozenset(),
    "JWT of an admin": frozenset({CREATE, "read", "destroy", MANAGE, EVERY_KEY}),
    "unrelated certificate": frozenset(),
}
SETS = ("set", "final set")
UNTRUSTED = ["anonymous", "expired token", "revoked token", "unknown token"]
BAD_JWTS = [f"JWT: {name}" for name in BAD]
STRANGERS = ["rogue", "expired"]
PRINCIPALS = [*TRUSTED, *UNTRUSTED, *BAD_JWTS, *STRANGERS]


def expected(who: str, call: Call, *, is_known: bool = True) -> int | str:
    """Return the answer to ``call``: the whole rule."""
    if who in STRANGERS:
        return NOT_CONNECTED
    if call.endpoint.is_public:
        return call.endpoint.status
    if who not in TRUSTED:
        return 401
    is_shown = call.key not in SETS or not TRUSTED[who].isdisjoint({*GRANTABLE, MANAGE})
    if not (is_known and is_shown):  # nobody has been told of a name that he can guess
        return 404
    return call.endpoint.status if call.needs <= TRUSTED[who] else 403


# --- The service, its keys, and its callers ---


@dataclass(frozen=True)
class Site:
    url: str
    environment: Mapping[str, str]
    issuer: Issuer
    certificates: Certificates
    owner: Api
    made: dict[str, Any] = field(default_factory=dict)

    def create(self, **members: str) -> dict[str, Any]:
        """Make a key of the owner's, with the grants that the principals have."""
        key: dict[str, Any] = self.owner.create(**members)
        self.grant(f"/keys/{key['kid']}")
        return key

    def create_set(self, **members: str) -> dict[str, Any]:
        """Make a key set of the owner's, with the same grants."""
        path = f"/keysets/set-{uuid4().hex}"
        made = self.owner.request("PUT", path, json=members)
        assert made.status == 200
        self.grant(path)
        return dict(made.body)

    def grant(self, path: str) -> None:
        """Grant what the principals have."""
        for who, rights in TRUSTED.items():
            if who.startswith("granted "):
                body = {"operations": sorted(rights - {CREATE})}
                granted = self.owner.request("PUT", f"{path}/grants/token:{who}", json=body)
                assert granted.status == 200

    def prepare(self) -> None:
        """Make the keys, and messages for those that are named in headers."""
        ec = self.create(kty="EC", crv="P-256", alg="ES256")
        rsa = self.create(kty="RSA", alg="RSA-OAEP")
        self.made.update(
            {
                "EC": ec["kid"],
                "EC public": ec["kid_public"],
                "RSA": rsa["kid"],
                "RSA public": rsa["kid_public"],
                "AES": self.create(kty="oct", alg="A128GCM")["kid"],
                "HMAC": self.create(kty="oct", alg="HS256")["kid"],
                **{key: self.anew(key) for key in ("final", "deleted", "final set")},
            }
        )
        first = self.create_set(kty="EC", crv="P-256", alg="ES256")
        self.made.update({"set": first["name"], "retired": first["current"]})
        self.made["token"] = self._token("owner", Role.CREATOR)
        self.owner.ok(f"/keysets/{first['name']}/revoke", {"kid": first["current"]})
        ok, made = self.owner.ok, self.made
        made["chain"] = x5c(chain_for(public_key(self.owner, ec["kid"])))
        signed = ok("/sign", {"kid": made["EC"], "alg": "ES256", "data": "AAAA"})
        made["message for EC public"] = signed | {"data": "AAAA"}
        for key, names in (("AES", AES), ("RSA", OAEP)):
            made[f"message for {key}"] = ok("/encrypt", {"kid": made[key], "data": "AAAA"} | names)

    def anew(self, key: str) -> str:
        """Return the kid of a key to be destroyed, or of one that is to be restored."""
        if key in SETS:
            return str(self.create_set(kty="oct", alg="HS256")["name"])
        kid: str = self.create(kty="oct", alg="HS256", destroy_after="P1D")["kid"]
        if key == "deleted":
            assert self.owner.delete(kid).status == 204
        return kid

    def client(self, who: str) -> "Client":
        """Return a client that comes as ``who``."""
        context = ssl.create_default_context(cafile=str(self.certificates.authority.path))
        headers = {}
        if who in STRANGERS:
            context.load_cert_chain(*getattr(self.certificates, who))
        elif who == "unrelated certificate":
            context.load_cert_chain(*self.certificates.bob)
        elif who != "anonymous":
            headers["Authorization"] = f"Bearer {self._bearer(who)}"
        address = self.url.removeprefix("https://")
        connection = HTTPSConnection(address, context=context, timeout=ANSWER.seconds)
        return Client(connection, headers)

    def _bearer(self, who: str) -> str:
        """Return the credentials of ``who``; not before they are needed, as some are soon late."""
        if who.startswith("JWT: "):
            return BAD[who.removeprefix("JWT: ")](self.issuer)
        special: dict[str, Callable[[], str]] = {
            "the owner": lambda: self._token("owner", Role.CREATOR),
            "JWT of the same name": lambda: self.issuer.token("token:owner"),
            "JWT of an admin": lambda: self.issuer.token("chief", roles=["admin"]),
            "unknown token": lambda: "jh_" + "A" * 43,
            "expired token": lambda: self._token("owner", age=timedelta(seconds=1)),
            "revoked token": self._revoked,
        }
        named = [role for role in Role if role in who]
        return special.get(who, lambda: self._token(who, *named))()

    def _token(self, name: str, *roles: Role, age: timedelta | None = None) -> str:
        return token_for(self.environment, f"token:{name}", roles=roles, age=age)

    def _revoked(self) -> str:
        token = self._token("owner", Role.ADMIN)
        registry = Registry(Config.from_env(self.environment).registry_url, host="test")
        assert registry.credentials.revoke(_hash(token)[:16])
        return token

    def ask(self, client: "Client", call: Call, *, is_known: bool) -> int | str:
        """Return the status of the answer, or that there is no connection."""
        kid = self.made.get(call.key or "", "") if is_known else UNKNOWN_KID
        path = call.path.replace("{kid}", kid).replace("{new}", f"set-{uuid4().hex}")
        body, headers = self._sent(call, kid)
        try:
            client.connection.request(call.method, path, body, client.headers | headers)
            answer = client.connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException):
            client.connection.close()
            return NOT_CONNECTED
        if answer.status in ERRORS and call.method != "HEAD":
            assert _error_of(content, is_page=call.is_form) == ERRORS[answer.status]
        assert ("WWW-Authenticate" in answer.headers) is (answer.status == 401)
        return answer.status

    def _sent(self, call: Call, kid: str) -> tuple[str | None, dict[str, str]]:
        """Return the body of a request, and its headers: those of a browser where it is a form."""
        if call.body is None:
            return None, {}
        members = call.body(self.made, kid)
        if call.is_form:
            media = "application/x-www-form-urlencoded"
            return urlencode(members, doseq=True), {"Content-Type": media, "Origin": self.url}
        return json.dumps(members), {"Content-Type": "application/json"}


def _error_of(content: bytes, *, is_page: bool) -> str:
    if not is_page:
        return str(json.loads(content)["error"])
    found = re.search(r'<code id="error">([a-z_]+)</code>', content.decode("utf-8"))
    assert found, content
    return found[1]


class Client(NamedTuple):
    """A connection that stays open, and what each of its requests bears."""

    connection: HTTPSConnection
    headers: dict[str, str]


@pytest.fixture(scope="module")
def site(environment: Any, serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory: Path = tmp_path_factory.mktemp("matrix")
    issuer, certificates = Issuer(), Certificates(directory / "certificates")
    jwks = directory / "jwks.json"
    jwks.write_text(issuer.jwks)
    settings = {
        **environment,
        **certificates.settings,
        **issuer.settings(jwks),
        "JOSE_HSM_AUTH": "token,jwt,mtls",
        "JOSE_HSM_EVERYBODY_CREATES": "0",
    }
    bearer = token_for(environment, "token:owner", roles=[Role.CREATOR])
    with serve(settings, workers=2) as http:
        url = http.replace("http://", "https://")
        owner = Api.over_http(url, bearer=bearer, verify=str(certificates.authority.path))
        site = Site(url, environment, issuer, certificates, owner)
        site.prepare()
        yield site


def calls(site: Site, *, is_whole: bool) -> Iterator[tuple[Call, bool]]:
    """Give the calls, and whether their keys are known; those of a bad token are alike."""
    for call in CALLS:
        if is_whole or call.method != "HEAD":
            yield call, True
            if is_whole and call.key in site.made:
                yield call, False


WHOLE = [who for who in PRINCIPALS if who not in BAD_JWTS]
ROWS = [
    *(pytest.param(who, True, id=who) for who in WHOLE),
    *(pytest.param(who, False, id=who) for who in BAD_JWTS),
    *(pytest.param(who, True, id=f"{who}, all", marks=pytest.mark.long) for who in BAD_JWTS),
]


@pytest.mark.parametrize(("who", "is_whole"), ROWS)
def test_everybody_gets_the_answer_that_the_rule_gives(site, who, is_whole):
    wrong = []
    client = site.client(who)
    with closing(client.connection):
        for call, is_known in calls(site, is_whole=is_whole):
            rule = expected(who, call, is_known=is_known)
            answer = site.ask(client, call, is_known=is_known)
            if call.is_final and answer == call.endpoint.status:
                site.made[call.key] = site.anew(call.key)
            if answer != rule:
                wrong.append((call.name, is_known, answer, rule))
    assert not wrong


def test_no_endpoint_no_operation_and_no_bad_token_is_missing(application):
    served = {
        (rule.endpoint, method)
        for rule in application.url_map.iter_rules()
        for method in rule.methods
    }
    assert {(call.endpoint.name, call.method) for call in CALLS} == served
    assert {right for call in CALLS for right in call.needs} == EVERYTHING | {EVERY_KEY}
    assert len(BAD_JWTS) >= 15
