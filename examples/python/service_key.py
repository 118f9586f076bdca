"""Private keys of cryptography whose signatures the service makes.

Install requests and cryptography (pip). Copy it beside your code and give its keys to a library
that signs JWS with keys of cryptography: sign_pyjwt.py and sign_joserfc.py do. It takes the right
sign on the key.
"""

import base64
import json
from typing import Any, NoReturn

import requests
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_public_key


def b64u(octets: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64u(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "==")


class ServiceKey:
    """What is the same for keys of every kind: a name, a public half, and no private one."""

    def __init__(self, kid: str, url: str, session: requests.Session, public: Any) -> None:
        self._kid, self._url, self._session, self._public = kid, url, session, public

    def signature(self, signing_input: bytes) -> bytes:
        """Return the signature over a JWS Signing Input (RFC 7515 §5.1), in the form that JWS has.

        The header in it is the library's and says which algorithm. The service sees to it that no
        other key is named there. Raises ``HTTPError`` if the service refuses.
        """
        head, _, payload = signing_input.partition(b".")
        protected = head.decode()
        is_encoded = json.loads(unb64u(protected)).get("b64", True)  # RFC 7797 §3
        data = payload.decode() if is_encoded else b64u(payload)
        body = {"kid": self._kid, "protected": protected, "data": data}
        response = self._session.post(f"{self._url}/v1/crypto/sign", json=body, timeout=30)
        response.raise_for_status()
        return unb64u(response.json()["signature"])

    def public_key(self) -> Any:
        """Return the public half, a key of ``cryptography``."""
        return self._public

    @property
    def key_size(self) -> int:
        """Its size in bits."""
        return int(self._public.key_size)

    def stays(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: the private half is in the token."""
        raise NotImplementedError("the private key does not leave the token")

    private_bytes = private_bytes_raw = private_numbers = exchange = decrypt = stays

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, _: Any) -> Any:
        return self


class RsaKey(ServiceKey, rsa.RSAPrivateKey):
    """For RS256, PS256 and the others of RSA; the header says which."""

    def sign(self, data: bytes, *_: Any) -> bytes:
        """Return the signature over ``data``, a JWS Signing Input."""
        return self.signature(data)


class EcKey(ServiceKey, ec.EllipticCurvePrivateKey):
    """For ES256, ES384, ES512 and ES256K."""

    @property
    def curve(self) -> ec.EllipticCurve:
        """Its curve."""
        curve: ec.EllipticCurve = self._public.curve
        return curve

    def sign(self, data: bytes, *_: Any) -> bytes:
        """Return the signature over ``data``, a JWS Signing Input, in DER."""
        signature = self.signature(data)
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
        return encode_dss_signature(r, s)


class Ed25519Key(ServiceKey, ed25519.Ed25519PrivateKey):
    """For EdDSA and Ed25519."""

    def sign(self, data: bytes) -> bytes:
        """Return the signature over ``data``, a JWS Signing Input."""
        return self.signature(data)


KINDS: dict[type, type[ServiceKey]] = {
    rsa.RSAPublicKey: RsaKey,
    ec.EllipticCurvePublicKey: EcKey,
    ed25519.Ed25519PublicKey: Ed25519Key,
}


def private_key(kid: str, url: str, session: requests.Session | None = None) -> Any:
    """Return the key ``kid`` of the service at ``url``.

    ``session`` says who you are, where the service asks.
    """
    session = session or requests.Session()
    response = session.get(f"{url}/v1/crypto/keys/{kid}/public.pem", timeout=30)
    response.raise_for_status()
    public = load_pem_public_key(response.content)
    kind = next(kind for each, kind in KINDS.items() if isinstance(public, each))
    return kind(kid, url, session, public)
