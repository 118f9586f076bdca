"""JWTs of one issuer (RFC 7519, RFC 8725)."""

import hashlib
import time
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final, NamedTuple

from cachetools import LRUCache
from flask import Request
from joserfc.errors import JoseError
from joserfc.jwt import JWTClaimsRegistry

from app.auth.issuer_keys import IssuerKeys, Keys, PublicKey
from app.auth.jwt_algorithms import is_meant, verifies
from app.auth.schemes import Audience, Claim, Refused, Roles, bearer, refusing, roles_of
from app.config import Config
from app.jose import encoding, strict_json
from app.rights import Principal, is_name

KIND: Final = "jwt:"

_LEEWAY_SECONDS: Final = 60
_MOST_PROVEN: Final = 4096
_LONGEST: Final = 500
_UNKNOWN: Final = f"{KIND}?"
# Each demands an understanding. What only names keys (jku, jwk, x5c, x5u) is ignored like all else
# that is not known: keys come from the issuer alone.
_REFUSED_MEMBERS: Final = ("crit", "b64")


class _Jwt(NamedTuple):
    """A token, read strictly and not yet believed."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signing_input: bytes
    signature: bytes

    @classmethod
    def of(cls, token: str) -> "_Jwt":
        """Return ``token`` in its parts (RFC 7515 §7.1); raise ``ValueError``."""
        header, claims, signature = (encoding.decode(part) for part in token.split("."))
        signing_input = token.rpartition(".")[0].encode("ascii")
        return cls(strict_json.loads(header), strict_json.loads(claims), signing_input, signature)


class _Proven(NamedTuple):
    principal: Principal
    version: int
    until: float


class JwtWay:
    """Proves ``jwt:SUBJECT``. A JWT is verified once for each state of the issuer's keys."""

    def __init__(self, config: Config, keys: IssuerKeys, roles: Roles, audience: Audience) -> None:
        self._config = config
        self._keys = keys
        self._roles = roles
        self._audience = audience
        self._lock = Lock()
        self._proven: LRUCache[bytes, _Proven] = LRUCache(_MOST_PROVEN)
        self._claims = JWTClaimsRegistry(
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": config.jwt_issuer or ""},
            aud={"essential": True, "value": config.jwt_audience or ""},
            exp={"essential": True},
        )

    def claim(self, request: Request) -> Claim | None:
        """Return whose JWT the request bears, if it is one."""
        token = bearer(request, self._audience)
        if token is None:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        proven = self._remembered(digest)
        if proven is not None:
            return Claim(principal=proven, prove=lambda: proven)
        try:
            jwt = _Jwt.of(token)
        except ValueError:
            return Claim(principal=_UNKNOWN, prove=refusing("not a JWT"))
        name = _found(jwt.claims, self._config.jwt_principal_claim)
        return Claim(principal=f"{KIND}{name}"[:_LONGEST], prove=lambda: self._prove(jwt, digest))

    def _remembered(self, digest: bytes) -> Principal | None:
        with self._lock:
            proven = self._proven.get(digest)
        if proven is None or proven.until <= time.time():
            return None
        return proven.principal if proven.version == self._keys.current().version else None

    def _remember(self, digest: bytes, proven: _Proven) -> None:
        with self._lock:
            self._proven[digest] = proven

    def _prove(self, jwt: _Jwt, digest: bytes) -> Principal:
        self._require_header(jwt.header)
        keys, key = self._key(jwt.header)
        try:
            if not verifies(key, jwt.header["alg"], jwt.signing_input, jwt.signature):
                raise Refused("JWT: the signature is none of the issuer")
            self._claims.validate(jwt.claims)
            self._require_lifetime(jwt.claims)
        except (JoseError, ValueError, TypeError, OverflowError) as error:
            raise Refused(f"JWT: {error}") from None
        principal = self._principal(jwt.claims)
        until = jwt.claims["exp"] + _LEEWAY_SECONDS
        self._remember(digest, _Proven(principal, keys.version, until))
        return principal

    def _require_header(self, header: Mapping[str, Any]) -> None:
        if header.get("alg") not in self._config.jwt_algorithms:
            raise Refused("JWT: alg is not allowed")
        for name in _REFUSED_MEMBERS:
            if name in header:
                raise Refused(f"JWT: header member {name}")
        typ = self._config.jwt_typ
        if typ is not None and _media_type(header.get("typ")) != _media_type(typ):
            raise Refused("JWT: typ is another one")

    def _key(self, header: Mapping[str, Any]) -> tuple[Keys, PublicKey]:
        """Return the one key that the header means, after another look if there is none."""
        keys = self._keys.current()
        for known in (keys, None):
            keys = known or self._keys.newer_than(keys)
            found = [key for key in keys.keys if is_meant(key, header)]
            if len(found) == 1:
                return keys, found[0]
        raise Refused("JWT: no key, or more than one, is the one that is meant")

    def _require_lifetime(self, claims: Mapping[str, Any]) -> None:
        longest = self._config.jwt_lifetime_seconds
        now = time.time()
        begin = int(min(claims.get("iat", now), now))
        if claims["exp"] - begin > longest + (0 if "iat" in claims else _LEEWAY_SECONDS):
            raise Refused("JWT: lifetime is too long")

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        name = _found(claims, self._config.jwt_principal_claim)
        if not (isinstance(name, str) and len(name) <= _LONGEST and is_name(name)):
            raise Refused("JWT: the claim of the principal is not a name")
        roles = _found(claims, self._config.jwt_roles_claim)
        listed = roles.split() if isinstance(roles, str) else roles
        return self._roles.principal(
            f"{KIND}{name}", roles_of(listed if isinstance(listed, list) else [])
        )


def _found(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim ``name``, or the one that its parts between dots lead to, if any."""
    found: Any = claims
    for part in (name,) if name in claims else name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _media_type(typ: object) -> str:
    return str(typ).lower().removeprefix("application/")
