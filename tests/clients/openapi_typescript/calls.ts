// Use the types that openapi-typescript makes, with openapi-fetch: node out/calls.js URL.
import createClient from "openapi-fetch";
import type { paths } from "./client";

const data = "SGVsbG8gdG9rZW4h";

async function main(baseUrl: string): Promise<void> {
  const api = createClient<paths>({ baseUrl });

  const { data: pair } = await api.POST("/v1/crypto/keys", {
    body: { kty: "EC", crv: "P-256", alg: "ES256" },
  });
  const { data: signed } = await api.POST("/v1/crypto/sign", {
    body: { kid: pair!.kid, alg: pair!.alg, data },
  });
  const { data: verified } = await api.POST("/v1/crypto/verify", {
    body: { protected: signed!.protected, data, signature: signed!.signature },
  });

  const { data: secret } = await api.POST("/v1/crypto/keys", {
    body: { kty: "oct", alg: "A256GCM" },
  });
  const { data: encrypted } = await api.POST("/v1/crypto/encrypt", {
    body: { kid: secret!.kid, alg: "dir", enc: secret!.alg!, data },
  });
  const { recipients: _, ...message } = encrypted!;
  const { data: decrypted } = await api.POST("/v1/crypto/decrypt", { body: message });

  for (const kid of [pair!.kid!, secret!.kid!]) {
    await api.DELETE("/v1/crypto/keys/{kid}", { params: { path: { kid } } });
  }
  const path = { kid: pair!.kid! };
  const { error: gone } = await api.GET("/v1/crypto/keys/{kid}", { params: { path } });
  if (verified!.valid && decrypted!.data === data && gone!.error === "not_found") {
    console.log("all is well");
  }
}

void main(process.argv[2]!);
