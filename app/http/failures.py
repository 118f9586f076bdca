"""What can go wrong at endpoints, in groups: an example of each error, as a caller would get it."""

from typing import Final

from werkzeug.exceptions import (
    InternalServerError,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

import hsm
from app import errors

Failures = tuple[Exception, ...]

EVERYWHERE: Final[Failures] = (
    errors.ForeignOrigin(),
    RequestTimeout(),
    errors.MisdirectedRequest(),
    InternalServerError(),
    errors.HostExhausted(),
)
BODY: Final[Failures] = (
    errors.BadRequest("Field 'data' is not valid base64url"),
    RequestEntityTooLarge(),
    UnsupportedMediaType(),
)
QUERY: Final[Failures] = (errors.BadRequest("Field 'limit' must be between 1 and 200"),)
PATH: Final[Failures] = (
    errors.BadRequest("A grant is to a principal, like token:ci, or to '*' for everybody"),
)
REGISTRY: Final[Failures] = (errors.RegistryUnavailable(),)
CALLER: Final[Failures] = (
    errors.Unauthorized(),
    errors.TooManyFailures(retry_after_seconds=42),
    errors.TooManyAtOnce(),
    errors.IssuerUnavailable(),
    *REGISTRY,
)
ROLE: Final[Failures] = (errors.Forbidden(),)
KEY: Final[Failures] = (hsm.KeyNotFound(), errors.Forbidden())
AUDIT: Final[Failures] = (errors.AuditUnavailable(),)
TOKEN: Final[Failures] = (
    hsm.TokenUnavailable("the token is busy"),
    hsm.CryptoFailure("The key does not permit ES256"),
)
ALGORITHM: Final[Failures] = (
    hsm.UnsupportedAlgorithm("Field 'alg': 'none' is not a signature algorithm"),
)
STATE: Final[Failures] = (hsm.CryptoFailure("A compromised key cannot become active"),)
ALONE: Final[Failures] = (
    hsm.CryptoFailure("The key is a version of the key set invoices; change that"),
)
PUBLICATION: Final[Failures] = (hsm.CryptoFailure("50 keys may be published, and more would be"),)
PUBLIC_HALF: Final[Failures] = (hsm.CryptoFailure("The key has no public half"),)
AWAY: Final[Failures] = (hsm.TokenUnavailable("the token is being opened"),)
DECRYPTION: Final[Failures] = (hsm.DecryptionFailed(),)
WRAPPED: Final[Failures] = (hsm.WrappedKeyRefused(), hsm.KeyNotFound())
ONCE: Final[Failures] = (
    errors.RequestReused(),
    errors.RequestInProgress(),
    hsm.KeyNotFound(),
)
ALIAS: Final[Failures] = (errors.AliasTaken(),)
KEYSET: Final[Failures] = (errors.KeySetTaken(),)
QUOTA: Final[Failures] = (errors.TooManyKeys(1000),)
READINESS: Final[Failures] = (errors.NotReady("unavailable", "pin", "the token refuses the PIN"),)
