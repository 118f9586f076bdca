// Sign with jose as ever, with a key that stays in the token.
// Install jose: npm install jose (Node.js 20 or later).
// Run: node sign.mjs [http://127.0.0.1:8000]
import { base64url, createRemoteJWKSet, jwtVerify, UnsecuredJWT } from "jose";

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

// SignJWT of jose for a key of the service: the same calls, and sign() takes the name of the key.
// SignJWT itself takes keys of Node.js only, whose private half is in this process. So the claims
// are those of an UnsecuredJWT, which has the same calls but for the header and the signature.
class ServiceSignJWT extends UnsecuredJWT {
  #header;

  setProtectedHeader(header) {
    this.#header = header;
    return this;
  }

  async sign(kid) {
    const data = this.encode().split(".")[1];
    // The service sees to it that no other key is named in the header.
    const protectedHeader = base64url.encode(JSON.stringify(this.#header));
    const body = { kid, protected: protectedHeader, data, serialization: "compact" };
    return (await post("/sign", body)).jws;
  }
}

const key = await post("/keys", { kty: "EC", crv: "P-256", alg: "ES256" });

const issuer = "https://issuer.example";
const jwt = await new ServiceSignJWT({ scope: "read" })
  .setProtectedHeader({ alg: "ES256", typ: "JWT", kid: key.kid_public })
  .setIssuer(issuer)
  .setSubject("alice")
  .setIssuedAt()
  .setExpirationTime("5m")
  .sign(key.kid);
console.log("signed:", jwt);

// Whoever gets it has the published keys.
const keys = createRemoteJWKSet(new URL("/.well-known/jwks.json", service));
const { payload } = await jwtVerify(jwt, keys, {
  issuer,
  algorithms: ["ES256"], // those that you expect: never those that the token names
  requiredClaims: ["exp", "iat"],
});
console.log("verified:", payload.sub);
