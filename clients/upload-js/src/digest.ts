/**
 * SHA-256 of a part, where the surroundings can compute it: WebCrypto exists in secure contexts only (https, localhost).
 *
 * WebCrypto cannot hash piece by piece, so a whole file is never hashed here; its parts are.
 */

/** Parts are hashed in memory, several at once; larger ones go without. */
const MAX_HASHED_BYTES = 256 * 1024 * 1024;

/** Lower-case hexadecimal; undefined where it cannot be computed. */
export async function sha256(bytes: ArrayBuffer): Promise<string | undefined> {
  const subtle = globalThis.crypto?.subtle;
  if (subtle === undefined || bytes.byteLength > MAX_HASHED_BYTES) return undefined;
  const digest = new Uint8Array(await subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function canHash(byteLength: number): boolean {
  return globalThis.crypto?.subtle !== undefined && byteLength <= MAX_HASHED_BYTES;
}

/** Value of `Content-Digest` and `Repr-Digest` (RFC 9530). */
export function digestField(sha256Hex: string): string {
  const bytes = (sha256Hex.match(/../g) ?? []).map((pair) => String.fromCharCode(parseInt(pair, 16)));
  return `sha-256=:${btoa(bytes.join(''))}:`;
}

/** Base64 of the text as UTF-8, as `Upload-Metadata` wants it. */
export function base64Text(text: string): string {
  return btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(''));
}
