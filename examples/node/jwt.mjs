// Have the service sign a JWT, and verify it with jose by the published keys.
// Install jose: npm install jose (Node.js 20 or later).
// Run: node jwt.mjs [http://127.0.0.1:8000]
import { createRemoteJWKSet, jwtVerify } from "jose";

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

const key = await post("/keys", { kty: "EC", crv: "P-256", alg: "ES256" });

const issuer = "https://issuer.example";
const claims = { iss: issuer, sub: "alice", exp: Math.floor(Date.now() / 1000) + 300 };
const { jws } = await post("/sign", {
  kid: key.kid,
  alg: "ES256",
  data: Buffer.from(JSON.stringify(claims)).toString("base64url"),
  serialization: "compact",
  typ: "JWT",
});
console.log("signed:", jws);

// It keeps the set for a while, and fetches it anew for a kid that is not in it.
const keys = createRemoteJWKSet(new URL("/.well-known/jwks.json", service));
const { payload } = await jwtVerify(jws, keys, {
  issuer,
  algorithms: ["ES256"], // those that you expect: never those that the token names
  requiredClaims: ["exp"],
});
console.log("verified:", payload.sub);
