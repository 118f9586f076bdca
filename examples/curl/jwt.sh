#!/bin/bash
# Make a key in the token, sign a JWT with it, verify it, and find its public half in the JWKS.
# Install curl and jq. Run: bash jwt.sh [http://127.0.0.1:8000]
set -euo pipefail

service=${1:-http://127.0.0.1:8000}
api=$service/v1/crypto
# Where the service asks who you are, add --header "Authorization: Bearer $TOKEN".
call() { curl --silent --show-error --fail-with-body --header 'Content-Type: application/json' "$@"; }
base64url() { base64 -w0 | tr '+/' '-_' | tr -d '='; }

key=$(call "$api/keys" --data '{"kty":"EC","crv":"P-256","alg":"ES256"}')
kid=$(jq -r .kid <<<"$key")               # signs
kid_public=$(jq -r .kid_public <<<"$key") # verifies; the header of the JWT names it

claims=$(jq --null-input --compact-output '{iss: "https://issuer.example", sub: "alice", exp: (now + 300 | floor)}' | tr -d '\n' | base64url)
jwt=$(call "$api/sign" --data "{\"kid\":\"$kid\",\"alg\":\"ES256\",\"data\":\"$claims\",\"serialization\":\"compact\",\"typ\":\"JWT\"}" | jq -r .jws)
echo "signed: $jwt"

echo "verified: $(call "$api/verify" --data "{\"jws\":\"$jwt\"}" | jq .valid)"

# Everybody may fetch the public keys; whoever has them verifies without the service.
echo "published: $(call "$service/.well-known/jwks.json" | jq --compact-output --arg kid "$kid_public" '.keys[] | select(.kid == $kid)')"

# A key for a real issuer would stay. This one was for a trial.
call --request DELETE "$api/keys/$kid"
