"""What each error means for a caller: its cause and its cure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from werkzeug.exceptions import MethodNotAllowed, NotFound

from app.http import answers
from app.http.failures import Failures

ROUTING: Final[Failures] = (NotFound(), MethodNotAllowed())
"""Of what is no operation at all."""


class Advice(NamedTuple):
    """Why a caller gets a code, and what to do about it."""

    cause: str
    cure: str


CODES: Final[Mapping[str, Advice]] = MappingProxyType(
    {
        "bad_request": Advice(
            "The request is malformed: no strict JSON, a member missing, of the wrong type, length "
            "or form, members that do not go together, bad key material, a bad query.",
            "Read `description`: it names the member and what it must be. The same request never "
            "succeeds.",
        ),
        "unauthorized": Advice(
            "No credentials, or bad ones; the answer is the same whatever is wrong with them, and "
            "the cause is in the log of the service.",
            "Send `Authorization: Bearer …` with an API token or a JWT, or come with a client "
            "certificate, as `JOSE_HSM_AUTH` demands. A token may be expired or revoked: make a "
            "new one with `jose-hsm token create`.",
        ),
        "forbidden": Advice(
            "The key exists and the caller lacks the right, or may not make keys.",
            "Ask the owner of the key for a grant (`PUT /v1/crypto/keys/{kid}/grants/{grantee}`), "
            "or the operator for the role `creator`.",
        ),
        "not_found": Advice(
            "No key has this kid, or it has been destroyed; or the path is none of the service.",
            "Look the kid up with `GET /v1/crypto/keys`. A kid is exact: lower case, with hyphens. "
            "What was destroyed does not come back.",
        ),
        "method_not_allowed": Advice(
            "The path exists and not with this method.",
            "Use one of the methods in the header `Allow`.",
        ),
        "request_timeout": Advice(
            "The request did not come whole in time, or a part of it in time; the connection ends.",
            "Send it again, whole. `JOSE_HSM_REQUEST_SECONDS` and `JOSE_HSM_HEADER_SECONDS` say "
            "how long the service waits.",
        ),
        "payload_too_large": Advice(
            "The body is larger than 2 MiB (2 097 152 bytes).",
            "Send less: split a batch, or sign a digest of the data that your protocol defines.",
        ),
        "unsupported_media_type": Advice(
            "The body is not announced as JSON in UTF-8, or it is compressed.",
            "Send `Content-Type: application/json` and no `Content-Encoding`.",
        ),
        "idempotency_key_reused": Advice(
            "The `Idempotency-Key` came before with another path or body.",
            "Take a new key for a new request, and the old body for a repetition.",
        ),
        "unsupported_algorithm": Advice(
            "`alg` or `enc` is unknown, not for this operation, or not offered by this token or "
            "its settings.",
            "Choose one that `GET /v1/crypto/capabilities` offers for the operation; it also says "
            "why others are not.",
        ),
        "crypto_failure": Advice(
            "The type, size, curve, algorithm or state of the key does not permit the operation; "
            "or an unwrapped key is not of the size that `enc` has.",
            "Read the key (`GET /v1/crypto/keys/{kid}`): its `alg`, `crv` and `state` say what it "
            "does. A key made with an `alg` does nothing else.",
        ),
        "decryption_failed": Advice(
            "The message is not one for this key, or it was changed: one answer for all causes "
            "(RFC 7516 §11.5).",
            "Make sure that the key, `aad` and every part of the message are those of the sender.",
        ),
        "too_many_requests": Advice(
            "Too many attempts to authenticate from this address have failed, or a proxy limits "
            "the rate.",
            "Wait as many seconds as `Retry-After` says, and mend the credentials first.",
        ),
        "internal_error": Advice(
            "A fault of the service, never the answer to bad input.",
            "Tell the operator the `X-Request-Id` of the answer: the log has the cause under it.",
        ),
        "unavailable": Advice(
            "The token, the registry, the audit log or the issuer of JWTs cannot answer now, the "
            "host has run out of something, or too much is asked at once; `description` says "
            "which.",
            "Send the same request again after `Retry-After` seconds, with an `Idempotency-Key` if "
            "it makes a key. If it lasts, see the words of `/health/ready` below.",
        ),
    }
)

CAUSES: Final[Mapping[str, Advice]] = MappingProxyType(
    {
        "starting": Advice(
            "The worker has just begun and is opening the token.",
            "Wait some seconds; longer than `JOSE_HSM_GENERATION_SECONDS` it does not take.",
        ),
        "module": Advice(
            "The PKCS#11 library cannot be loaded or does not initialise.",
            "Set `JOSE_HSM_PKCS11_MODULE` to the path of the vendor's library; see that the user "
            "of the service may read it and what it needs, and its own settings (`SOFTHSM2_CONF`).",
        ),
        "token": Advice(
            "The token is not there, or not the only one of its name, or answers with an error, "
            "which the reason names; or `JOSE_HSM_STATE_DIR` cannot be used.",
            "Compare `JOSE_HSM_TOKEN_LABEL`, `JOSE_HSM_TOKEN_SERIAL` or `JOSE_HSM_TOKEN_URI` with "
            "what the vendor's tools list; look at the device and its network. The service tries "
            "again by itself.",
        ),
        "pin": Advice(
            "The PIN file is empty or cannot be read, or the token refuses the PIN; a refused PIN "
            "is never tried again.",
            "Put the right PIN into `JOSE_HSM_PIN_FILE`. If it was right and the token has been "
            "unlocked, remove `pin.latch` in `JOSE_HSM_STATE_DIR`.",
        ),
        "busy": Advice(
            "All sessions of the token are in use by others.",
            "Wait; if it lasts, see how many sessions the token has, and lower "
            "`JOSE_HSM_SESSIONS` or the number of workers.",
        ),
        "canary": Advice(
            "The token is open and does not show or use the service's own key.",
            "See whether the partition was changed or restored. The service tries again by itself.",
        ),
        "lost": Advice(
            "The token was open and has stopped answering.",
            "Look at the device and its network. The service opens it again by itself.",
        ),
        "registry": Advice(
            "The database does not answer.",
            "Look at the disk of `JOSE_HSM_STATE_DIR`, or at the database of "
            "`JOSE_HSM_DATABASE_URL`; the log has the error.",
        ),
        "internal": Advice(
            "An unexpected error while the token was opened.",
            "Send the log, which has the place, to whoever maintains the service.",
        ),
    }
)
"""By the word that ``/health/ready`` gives for programs."""


def statuses() -> Mapping[str, int]:
    """Return the one status of each code."""
    told = {error.code: int(status) for error, status in answers.STATUS.items()}  # type: ignore[attr-defined]  # each has one
    return told | {code: status for status, (code, _) in answers.HTTP_ERRORS.items()}
