"""Use the client that openapi-generator makes for Python: python calls.py URL."""

import sys

from client import (
    ApiClient,
    Configuration,
    CreateKeyRequest,
    DecryptRequest,
    EncryptionApi,
    EncryptRequest,
    KeysApi,
    SigningApi,
    SignRequest,
    VerifyRequest,
)
from client.exceptions import NotFoundException

DATA = "SGVsbG8gdG9rZW4h"

with ApiClient(Configuration(host=sys.argv[1])) as api:
    keys, signing, encryption = KeysApi(api), SigningApi(api), EncryptionApi(api)

    pair = keys.create_key(CreateKeyRequest(kty="EC", crv="P-256", alg="ES256"))
    signed = signing.sign(SignRequest(kid=pair.kid, alg=pair.alg, data=DATA))
    told = {"protected": signed.protected, "signature": signed.signature}
    assert signing.verify(VerifyRequest(data=DATA, **told)).valid

    secret = keys.create_key(CreateKeyRequest(kty="oct", alg="A256GCM"))
    encrypted = encryption.encrypt(
        EncryptRequest(kid=secret.kid, alg="dir", enc=secret.alg, data=DATA)
    )
    assert encryption.decrypt(DecryptRequest.from_dict(encrypted.to_dict())).data == DATA

    for kid in (pair.kid, secret.kid):
        keys.destroy_key(kid)
    try:
        keys.get_key(pair.kid)
    except NotFoundException as error:
        refusal = error.data
    assert refusal.error == "not_found"

print("all is well")
