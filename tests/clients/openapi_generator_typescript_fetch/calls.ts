// Use the client that openapi-generator makes for TypeScript: node out/calls.js URL.
import { Configuration, EncryptionApi, KeysApi, ResponseError, SigningApi } from "./client";
import type { ApiError } from "./client";

const data = "SGVsbG8gdG9rZW4h";

async function main(basePath: string): Promise<void> {
  const configuration = new Configuration({ basePath });
  const keys = new KeysApi(configuration);
  const signing = new SigningApi(configuration);
  const encryption = new EncryptionApi(configuration);

  const pair = await keys.createKey({
    createKeyRequest: { kty: "EC", crv: "P-256", alg: "ES256" },
  });
  const { _protected, signature } = await signing.sign({
    signRequest: { kid: pair.kid, alg: pair.alg, data },
  });
  const { valid } = await signing.verify({ verifyRequest: { _protected, data, signature } });

  const secret = await keys.createKey({ createKeyRequest: { kty: "oct", alg: "A256GCM" } });
  const encrypted = await encryption.encrypt({
    encryptRequest: { kid: secret.kid, alg: "dir", enc: secret.alg!, data },
  });
  const { recipients: _, ...decryptRequest } = encrypted;
  const decrypted = await encryption.decrypt({ decryptRequest });

  for (const kid of [pair.kid!, secret.kid!]) {
    await keys.destroyKey({ kid });
  }
  const refusal = await keys.getKey({ kid: pair.kid! }).catch((error: ResponseError) => error);
  const gone: ApiError = await (refusal as ResponseError).response.json();
  if (valid && decrypted.data === data && gone.error === "not_found") {
    console.log("all is well");
  }
}

void main(process.argv[2]!);
