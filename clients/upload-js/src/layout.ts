/**
 * Which bytes are in which part, and in which order parts are sent. Pure.
 *
 * Part n is bytes (n-1)*size to n*size, so whoever knows the length and the size knows all parts; only the last may be
 * shorter. The server takes parts in any order.
 */
export interface Part {
  /** From 1. */
  readonly number: number;
  /** First byte. */
  readonly start: number;
  /** The byte after the last one. */
  readonly end: number;
}

/** What the server says when an upload begins. All in bytes but `count`. */
export interface PartSizes {
  readonly recommended: number;
  readonly min: number;
  readonly max: number;
  readonly count: number;
}

/** The size to use: what is wished, within what the server takes and so that the file fits. */
export function choosePartBytes(length: number, sizes: PartSizes, wished: number | undefined): number {
  const needed = Math.ceil(length / sizes.count);
  return Math.min(Math.max(wished ?? sizes.recommended, sizes.min, needed), sizes.max);
}

export function layOut(length: number, partBytes: number): Part[] {
  const parts: Part[] = [];
  for (let start = 0; start < length; start += partBytes) {
    parts.push({ number: parts.length + 1, start, end: Math.min(start + partBytes, length) });
  }
  return parts;
}

/**
 * The parts that hold the index first, then the others from the beginning: a server that has the index and the
 * beginning can start to work before the rest is there.
 */
export function inSendingOrder(parts: readonly Part[], indexStart: number | undefined): Part[] {
  if (indexStart === undefined) return [...parts];
  const holdsIndex = (part: Part) => part.end > indexStart;
  return [...parts.filter(holdsIndex), ...parts.filter((part) => !holdsIndex(part))];
}
