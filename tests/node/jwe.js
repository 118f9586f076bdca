// Encrypt and decrypt JWEs: one task a line of JSON on stdin, one outcome a line on stdout.
//   {key, alg, enc, protected, plaintext, aad?, apu?, apv?}: encrypt; the outcome is the flattened JWE
//   {key, alg, jwe}: decrypt; the outcome is {plaintext}
// Bytes are in base64url, keys are JWKs; {refused} is the outcome of what fails.
import { createInterface } from "node:readline";
import { base64url, FlattenedEncrypt, flattenedDecrypt, importJWK } from "jose";

async function encrypt(task, key) {
  const jwe = new FlattenedEncrypt(base64url.decode(task.plaintext));
  jwe.setProtectedHeader(task.protected);
  if (task.aad !== undefined) {
    jwe.setAdditionalAuthenticatedData(base64url.decode(task.aad));
  }
  if (task.apu !== undefined) {
    jwe.setKeyManagementParameters({
      apu: base64url.decode(task.apu),
      apv: base64url.decode(task.apv),
    });
  }
  return jwe.encrypt(key);
}

async function decrypt(task, key) {
  const { plaintext } = await flattenedDecrypt(task.jwe, key);
  return { plaintext: base64url.encode(plaintext) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  try {
    const key = await importJWK(task.key, task.alg);
    console.log(JSON.stringify(await (task.jwe ? decrypt : encrypt)(task, key)));
  } catch (error) {
    console.log(JSON.stringify({ refused: error.code ?? String(error) }));
  }
}
