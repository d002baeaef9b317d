// HPKE (RFC 9180) in base mode, one message to a context, with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305: for wire.mjs,
// from Node's own primitives. `make.mjs` holds it against the RFC's vector.
import { createCipheriv, createDecipheriv, createHmac, createPrivateKey, createPublicKey, diffieHellman } from "node:crypto";

const bytes = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));
const hmac = (key, ...parts) => createHmac("sha256", key).update(bytes(...parts)).digest();

// §4, §7.2: the suites' names go into every derivation.
const KEM = bytes("KEM", [0x00, 0x20]);
const SUITE = bytes("HPKE", [0x00, 0x20, 0x00, 0x01, 0x00, 0x03]);
const extract = (suite, salt, label, ikm) => hmac(salt, "HPKE-v1", suite, label, ikm);
function expand(suite, prk, label, info, length) {
  if (length > 32) throw new Error("one block is all that is needed here");
  return hmac(prk, [0, length], "HPKE-v1", suite, label, info, [1]).subarray(0, length);
}

// PKCS #8 and SubjectPublicKeyInfo (RFC 8410) around the 32 bytes.
const privateKey = (secret) => createPrivateKey({ key: bytes(Buffer.from("302e020100300506032b656e04220420", "hex"), secret), format: "der", type: "pkcs8" });
const publicKey = (key) => createPublicKey({ key: bytes(Buffer.from("302a300506032b656e032100", "hex"), key), format: "der", type: "spki" });
export const publicOf = (secret) => createPublicKey(privateKey(secret)).export({ format: "der", type: "spki" }).subarray(-32);

/// §7.1.3: a private key made of 32 bytes of randomness.
export const deriveKey = (ikm) => expand(KEM, extract(KEM, "", "dkp_prk", ikm), "sk", "", 32);

/// §4.1: what both sides have in common. Node refuses keys that give zero.
function shared(secret, theirs, encapsulated, recipient) {
  const dh = diffieHellman({ privateKey: privateKey(secret), publicKey: publicKey(theirs) });
  return expand(KEM, extract(KEM, "", "eae_prk", dh), "shared_secret", bytes(encapsulated, recipient), 32);
}

/// §5.1: key and nonce of the one message.
export function schedule(secret, info) {
  const context = bytes([0], extract(SUITE, "", "psk_id_hash", ""), extract(SUITE, "", "info_hash", info));
  const prk = extract(SUITE, secret, "secret", "");
  return { key: expand(SUITE, prk, "key", context, 32), nonce: expand(SUITE, prk, "base_nonce", context, 12) };
}

const AEAD = "chacha20-poly1305";

export function seal({ recipient, info, aad, message, random }) {
  const ephemeral = deriveKey(random);
  const encapsulated = publicOf(ephemeral);
  const { key, nonce } = schedule(shared(ephemeral, recipient, encapsulated, recipient), info);
  const cipher = createCipheriv(AEAD, key, nonce, { authTagLength: 16 }).setAAD(aad, { plaintextLength: message.length });
  return { encapsulated, sealed: bytes(cipher.update(message), cipher.final(), cipher.getAuthTag()) };
}

export function open({ secret, encapsulated, info, aad, sealed }) {
  const { key, nonce } = schedule(shared(secret, encapsulated, encapsulated, publicOf(secret)), info);
  const decipher = createDecipheriv(AEAD, key, nonce, { authTagLength: 16 });
  decipher.setAAD(aad, { plaintextLength: sealed.length - 16 }).setAuthTag(sealed.subarray(-16));
  return bytes(decipher.update(sealed.subarray(0, -16)), decipher.final());
}
