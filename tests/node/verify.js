// Verify JWSs with the keys at a URL: node verify.js, {"url", "signed"} a line of JSON on stdin.
// Prints for each line what came of each compact JWS, as a line of JSON: its payload in base64url,
// or why there is none.
import { createInterface } from "node:readline";
import { base64url, compactVerify, createRemoteJWKSet } from "jose";

async function verify(jws, keys) {
  try {
    const { payload } = await compactVerify(jws, keys);
    return { payload: base64url.encode(payload) };
  } catch (error) {
    return { refused: error.code ?? String(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { url, signed } = JSON.parse(line);
  const keys = createRemoteJWKSet(new URL(url));
  const told = [];
  for (const jws of signed) told.push(await verify(jws, keys));
  console.log(JSON.stringify(told));
}
