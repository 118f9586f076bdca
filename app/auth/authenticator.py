"""Every request has one principal, or it is refused before anything else is looked at."""

import logging
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final

from flask import Flask, Request, Response

from app import current_request
from app.auth import ANONYMOUS
from app.auth.api_tokens import TokenWay
from app.auth.asked import asked
from app.auth.attempts import Attempts
from app.auth.certificates import CertificateWay, Proxy, of_connection
from app.auth.client_address import ClientAddress
from app.auth.issuer_keys import IssuerKeys
from app.auth.jwt import JwtWay
from app.auth.schemes import Audience, Claim, Refused, Roles, Way
from app.auth.sessions import Sessions
from app.config import Config
from app.errors import Unauthorized
from app.registry import Credentials
from app.rights import Principal

logger = logging.getLogger(__name__)

_UNAUTHORIZED: Final = HTTPStatus.UNAUTHORIZED
_REALM: Final = 'realm="jose-hsm"'


class Authenticator:
    """Knows the principal of a request in the configured ways, the first that applies.

    Failures are counted for the address alone: whom a request merely claims to come from is for
    anybody to choose. They are answered with 429 when they are too many, and a good credential is
    accepted all the same, so that nobody locks out whoever shares his address.
    """

    def __init__(
        self,
        config: Config,
        credentials: Credentials,
        proxy: Proxy | None,
        address: ClientAddress,
        audience: Audience,
    ) -> None:
        self._roles = Roles.of(config)
        self._anonymous = self._roles.principal(ANONYMOUS)
        self._proxy = proxy
        self._address = address
        self._audience = audience
        self._attempts = Attempts(config.auth_failures)
        self._tokens = TokenWay(credentials, self._roles, audience)
        self._sessions = Sessions(self._tokens, audience)
        self._ways = self._ways_of(config)
        self._takes_tokens = bool({"token", "jwt"} & set(config.auth))

    def register(self, app: Flask) -> None:
        """Authenticate every request of ``app``, apart from those that serve everybody."""
        app.before_request(self._authenticate)
        app.after_request(self._challenge)

    def _authenticate(self) -> None:
        request = asked()
        if request.endpoint not in self._audience.everybody:
            current_request.authenticated_as(self.principal(request))

    def _challenge(self, response: Response) -> Response:
        if response.status_code == _UNAUTHORIZED:
            for challenge in self.challenges(asked()):
                response.headers.add("WWW-Authenticate", challenge)
        return response

    def _ways_of(self, config: Config) -> Sequence[Way]:
        ways: list[Way] = []
        if "token" in config.auth:
            ways += [self._tokens, self._sessions]
        if "jwt" in config.auth:
            keys = IssuerKeys(str(config.jwt_jwks), believed_seconds=config.jwt_jwks_seconds)
            ways.append(JwtWay(config, keys, self._roles, self._audience))
        if "mtls" in config.auth:
            find = self._proxy.certificate if self._proxy else of_connection
            ways.append(CertificateWay(find, self._roles))
        return ways

    def principal(self, request: Request) -> Principal:
        """Return who is calling; raise ``Unauthorized`` or ``TooManyFailures``."""
        if not self._ways:
            return self._anonymous
        for way in self._ways:
            claim = way.claim(request)
            if claim is not None:
                return self._proven(claim, request)
        logger.warning("refused a request from %s: no credentials", self._address.of(request))
        raise Unauthorized

    def sign_in(self, token: str, request: Request) -> str:
        """Return a cookie for the API token that somebody has typed in, once it is proven.

        Raises ``Unauthorized`` or ``TooManyFailures``, as of a request that bears it.
        """
        if self._tokens not in self._ways:
            raise Unauthorized
        self._proven(self._tokens.claim_by(token), request)
        return self._sessions.cookie_for(token)

    def challenges(self, request: Request) -> Iterator[str]:
        """Give the schemes by which ``request`` may come again (RFC 9110 §11.6.1)."""
        yield f"{'Bearer' if self._takes_tokens else 'ClientCertificate'} {_REALM}"
        if self._takes_tokens and request.endpoint in self._audience.browsers:
            yield f'Basic {_REALM}, charset="UTF-8"'

    def _proven(self, claim: Claim, request: Request) -> Principal:
        try:
            return claim.prove()
        except Refused as refused:
            address = self._address.of(request)
            self._attempts.fail(address)
            logger.warning("refused %r from %s: %s", claim.principal, address, refused)
            raise Unauthorized from None
