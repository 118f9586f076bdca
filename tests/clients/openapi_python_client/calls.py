"""Use the client that openapi-python-client makes: python calls.py URL."""

import sys

from client import Client
from client.api.encryption import decrypt, encrypt
from client.api.keys import create_key, destroy_key, get_key
from client.api.signing import sign, verify
from client.models import (
    CreateKeyRequest,
    DecryptRequest,
    EncryptRequest,
    SignRequest,
    VerifyRequest,
)

DATA = "SGVsbG8gdG9rZW4h"

with Client(base_url=sys.argv[1]) as client:
    body = CreateKeyRequest(kty="EC", crv="P-256", alg="ES256")
    pair = create_key.sync(client=client, body=body)
    signed = sign.sync(client=client, body=SignRequest(kid=pair.kid, alg=pair.alg, data=DATA))
    told = {"protected": signed.protected, "signature": signed.signature}
    verified = verify.sync(client=client, body=VerifyRequest(data=DATA, **told))
    assert verified.valid

    secret = create_key.sync(client=client, body=CreateKeyRequest(kty="oct", alg="A256GCM"))
    body = EncryptRequest(kid=secret.kid, alg="dir", enc=secret.alg, data=DATA)
    encrypted = encrypt.sync(client=client, body=body)
    body = DecryptRequest.from_dict(encrypted.to_dict())
    assert decrypt.sync(client=client, body=body).data == DATA

    for kid in (pair.kid, secret.kid):
        assert destroy_key.sync_detailed(kid, client=client).status_code == 204
    assert get_key.sync(pair.kid, client=client).error == "not_found"

print("all is well")
