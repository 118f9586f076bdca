// Encrypt with jose to a key of the service without asking it; then have the service decrypt.
// Install jose: npm install jose (Node.js 20 or later).
// Run: node decrypt.mjs [http://127.0.0.1:8000]
import { CompactEncrypt, importJWK } from "jose";

const service = process.argv[2] ?? "http://127.0.0.1:8000";

async function post(path, body) {
  const response = await fetch(`${service}/v1/crypto${path}`, {
    method: "POST",
    // Where the service asks who you are, add: Authorization: `Bearer ${token}`
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${answer.error}: ${answer.description}`);
  return answer;
}

// The receiver makes a key once. Its private half never leaves the token.
const alg = "ECDH-ES+A256KW";
const { kid_public: kid } = await post("/keys", { kty: "EC", crv: "P-256", alg });
await post(`/keys/${kid}/tags`, { tags: ["jwks"] }); // publishes the other half

// The sender needs the public half alone, by its name in the published set.
const published = await (await fetch(`${service}/.well-known/jwks.json`)).json();
const publicKey = await importJWK(published.keys.find((key) => key.kid === kid));
const jwe = await new CompactEncrypt(new TextEncoder().encode("for your eyes only"))
  .setProtectedHeader({ alg, enc: "A256GCM", kid })
  .encrypt(publicKey);
console.log("encrypted:", jwe);

// The receiver hands on the message as it came: its header says which key.
const { data } = await post("/decrypt", { jwe });
console.log("decrypted:", Buffer.from(data, "base64url").toString());
