#!/bin/bash
# Make a key with OpenSSL, wrap it for the token, and have it imported: the service never sees it.
# Install curl, jq and OpenSSL 3. Run: bash wrap.sh [http://127.0.0.1:8000]
set -euo pipefail

service=${1:-http://127.0.0.1:8000}
api=$service/v1/crypto
# Where the service asks who you are, add --header "Authorization: Bearer $TOKEN".
call() { curl --silent --show-error --fail-with-body --header 'Content-Type: application/json' "$@"; }
base64url() { base64 -w0 | tr '+/' '-_' | tr -d '='; }
hex() { od -An -v -tx1 | tr -d ' \n'; }
from_base64url() { tr -- '-_' '+/' | jq --raw-input --raw-output '. + "=" * (-length % 4 + 4 | . % 4)' | base64 -d; }

# Whoever has the key does this, on a machine of theirs.
cd "$(mktemp -d)"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 |
    openssl pkcs8 -topk8 -nocrypt -outform DER -out key.der

wrapping=$(call "$api/wrapping-keys" --data '{}') # its private half is in the token
jq -r .jwk.n <<<"$wrapping" | from_base64url >modulus
printf 'asn1=SEQUENCE:key\n[key]\nn=INTEGER:0x%s\ne=INTEGER:65537\n' "$(hex <modulus)" >public.conf
openssl asn1parse -genconf public.conf -noout -out public.der
openssl rsa -RSAPublicKey_in -inform DER -in public.der -pubout -out public.pem 2>/dev/null
hash=$(jq -r 'if .alg == "RSA-OAEP" then "sha1" else "sha256" end' <<<"$wrapping")

# PKCS#11 v2.40 §2.1.21: an AES key, encrypted, and behind it AES-KWP of PKCS#8 (RFC 5649).
openssl rand 32 >aes
{
    openssl pkeyutl -encrypt -pubin -inkey public.pem -in aes -pkeyopt rsa_padding_mode:oaep \
        -pkeyopt rsa_oaep_md:"$hash" -pkeyopt rsa_mgf1_md:"$hash"
    openssl enc -id-aes256-wrap-pad -K "$(hex <aes)" -iv A65959A6 -in key.der
} >wrapped

openssl pkey -inform DER -in key.der -pubout -outform DER | tail -c 64 >point
key=$(jq --null-input --argjson wrapping "$wrapping" --arg ciphertext "$(base64url <wrapped)" \
    --arg x "$(head -c 32 point | base64url)" --arg y "$(tail -c 32 point | base64url)" \
    '{kty: "EC", crv: "P-256", alg: "ES256", $x, $y, wrapped:
        {kid: $wrapping.kid, alg: $wrapping.alg, enc: "CKM_RSA_AES_KEY_WRAP", $ciphertext}}' |
    call "$api/keys" --data @-)
kid=$(jq -r .kid <<<"$key")
echo "imported: $(call "$api/keys/$kid" | jq --compact-output '[.origin, .residency]')"

jws=$(call "$api/sign" --data "{\"kid\":\"$kid\",\"alg\":\"ES256\",\"data\":\"aGVsbG8\",\"serialization\":\"compact\"}" | jq -r .jws)
echo "verified: $(call "$api/verify" --data "{\"jws\":\"$jws\"}" | jq .valid)"

# A key of yours would stay, and the files would be destroyed. This one was for a trial.
call --request DELETE "$api/keys/$kid"
rm -r "$PWD"
