from tests.api import b64u, unb64u


def test_live_and_local_share_keys(live, local):
    kid = live.create(kty="oct", alg="A256GCM")["kid"]
    jwe = local.ok("/encrypt", {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": b64u("hi")})
    assert unb64u(live.ok("/decrypt", jwe)["data"]) == b"hi"
    assert local.delete(kid).status == 204
    assert live.delete(kid).refusal == (404, "not_found")
