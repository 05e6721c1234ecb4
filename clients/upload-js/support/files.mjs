// Files to send, and memory for tests.
import crypto from 'node:crypto';

export const MIB = 1024 * 1024;
/** The smallest part that the server takes. */
export const PART_BYTES = 5 * MIB;

/** The same bytes for the same seed; no two parts are alike. */
export function bytesOf(length, seed = 'seed') {
  const key = crypto.createHash('sha256').update(seed).digest();
  return crypto.createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

export function fileOf(bytes, name = 'holiday in Rügen.mp4') {
  return new File([bytes], name, { type: 'video/mp4', lastModified: 1_700_000_000_000 });
}

export function sha256(bytes) {
  return crypto.createHash('sha256').update(bytes).digest('hex');
}

/** What `localStorage` is in a browser. */
export function mapStore() {
  const map = new Map();
  return { map, get: (key) => map.get(key), set: (key, value) => void map.set(key, value), remove: (key) => void map.delete(key) };
}

/** A promise and what settles it. */
export function gate() {
  let open;
  const promise = new Promise((resolve) => { open = resolve; });
  return { promise, open };
}
