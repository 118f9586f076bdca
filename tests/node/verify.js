// Verify JWSs with the keys at a URL: node verify.js URL, one compact JWS a line on stdin.
// Prints for each its payload in base64url, or why there is none, as a line of JSON.
import { createInterface } from "node:readline";
import { base64url, compactVerify, createRemoteJWKSet } from "jose";

const keys = createRemoteJWKSet(new URL(process.argv[2]));

for await (const jws of createInterface({ input: process.stdin })) {
  try {
    const { payload } = await compactVerify(jws, keys);
    console.log(JSON.stringify({ payload: base64url.encode(payload) }));
  } catch (error) {
    console.log(JSON.stringify({ refused: error.code ?? String(error) }));
  }
}
