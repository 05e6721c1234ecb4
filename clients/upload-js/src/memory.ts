/**
 * What is remembered of an unfinished upload, so that it goes on after the page was loaded again.
 *
 * A memory aid: when it is lost or cannot be written, an interrupted upload begins anew. It never decides what is
 * durable; the server is asked for that.
 */

/** Where it is kept; `localStorage` has the same three verbs. Any of them may answer at once or later, and may fail. */
export interface ResumeStore {
  get(key: string): string | null | undefined | Promise<string | null | undefined>;
  set(key: string, value: string): void | Promise<void>;
  remove(key: string): void | Promise<void>;
}

export interface Remembered {
  readonly uploadId: string;
  readonly partBytes: number;
}

const VERSION = 1;

export class ResumeMemory {
  readonly #store: ResumeStore | undefined;
  readonly #key: string;
  /** Of this page: pauses need no store. */
  #last: Remembered | undefined;

  /** `identity`: everything that makes an upload another one. */
  constructor(store: ResumeStore | undefined, identity: readonly unknown[]) {
    this.#store = store;
    this.#key = `reelyard-upload:${JSON.stringify([VERSION, ...identity])}`;
  }

  async recall(): Promise<Remembered | undefined> {
    if (this.#last !== undefined) return this.#last;
    try {
      const told: unknown = JSON.parse((await this.#store?.get(this.#key)) ?? 'null');
      if (typeof told !== 'object' || told === null) return undefined;
      const { uploadId, partBytes } = told as Record<string, unknown>;
      const known = typeof uploadId === 'string' && Number.isSafeInteger(partBytes) && (partBytes as number) > 0;
      return known ? { uploadId, partBytes: partBytes as number } : undefined;
    } catch {
      return undefined;
    }
  }

  async remember(upload: Remembered): Promise<void> {
    this.#last = upload;
    await attempt(() => this.#store?.set(this.#key, JSON.stringify(upload)));
  }

  async forget(): Promise<void> {
    this.#last = undefined;
    await attempt(() => this.#store?.remove(this.#key));
  }
}

async function attempt(change: () => void | Promise<void>): Promise<void> {
  try {
    await change();
  } catch {
    // Full, forbidden or gone: no more is lost than the memory.
  }
}

/** `localStorage`, where there is one: not in Node, not in workers, not where the person forbade it. */
export function localStore(): ResumeStore | undefined {
  try {
    const storage = globalThis.localStorage;
    if (storage === undefined) return undefined;
    return {
      get: (key) => storage.getItem(key),
      set: (key, value) => storage.setItem(key, value),
      remove: (key) => storage.removeItem(key),
    };
  } catch {
    return undefined;
  }
}
