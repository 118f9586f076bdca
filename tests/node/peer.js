// npm jose as a peer: see ../peers/__init__.py for what comes in and goes out.
import { createInterface } from "node:readline";
import * as jose from "jose";

const bytes = (text) => jose.base64url.decode(text);

async function makeGeneral({ payload, alg, enc, kid }, key) {
  if (enc) {
    const message = new jose.GeneralEncrypt(bytes(payload)).setProtectedHeader({ enc });
    message.addRecipient(key).setUnprotectedHeader({ alg, kid });
    return message.encrypt();
  }
  const message = new jose.GeneralSign(bytes(payload));
  message.addSignature(key).setProtectedHeader({ alg }).setUnprotectedHeader({ kid });
  return message.sign();
}

async function make(task, key) {
  if (task.form === "general") return makeGeneral(task, key);
  const isCompact = task.form === "compact";
  if (task.enc) {
    const Encrypt = isCompact ? jose.CompactEncrypt : jose.FlattenedEncrypt;
    const header = { alg: task.alg, enc: task.enc, kid: task.kid };
    return new Encrypt(bytes(task.payload)).setProtectedHeader(header).encrypt(key);
  }
  const Sign = isCompact ? jose.CompactSign : jose.FlattenedSign;
  return new Sign(bytes(task.payload))
    .setProtectedHeader({ alg: task.alg, kid: task.kid })
    .sign(key);
}

async function open(task, key) {
  const { recipients, signatures } = task.message;
  if (recipients) return (await jose.generalDecrypt(task.message, key)).plaintext;
  if (signatures) return (await jose.generalVerify(task.message, key)).payload;
  const isCompact = typeof task.message === "string";
  if (task.enc) {
    const decrypt = isCompact ? jose.compactDecrypt : jose.flattenedDecrypt;
    return (await decrypt(task.message, key)).plaintext;
  }
  const verify = isCompact ? jose.compactVerify : jose.flattenedVerify;
  return (await verify(task.message, key)).payload;
}

// A private key signs and decrypts; for the rest the public half is wanted.
function half(task) {
  const isPublic = task.enc ? !task.message : task.message;
  if (!isPublic || task.key.kty === "oct") return task.key;
  const { d, p, q, dp, dq, qi, ...rest } = task.key;
  return rest;
}

for await (const line of createInterface({ input: process.stdin })) {
  const task = JSON.parse(line);
  try {
    const key = await jose.importJWK(half(task), task.alg === "dir" ? task.enc : task.alg);
    const outcome = task.message
      ? { payload: jose.base64url.encode(await open(task, key)) }
      : { message: await make(task, key) };
    console.log(JSON.stringify(outcome));
  } catch (error) {
    console.log(JSON.stringify({ lacks: String(error) }));
  }
}
