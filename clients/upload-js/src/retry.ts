/** How long to wait before another try, and when to stop trying. */

export interface RetryLimits {
  /** Pause after the first failure; it doubles with each one that follows. */
  firstDelayMs?: number;
  maxDelayMs?: number;
  /** Without any progress (a part that gets through, or bytes that leave) for so long, time offline not counted, the upload ends with an error. */
  giveUpAfterMs?: number;
}

const DEFAULTS: Required<RetryLimits> = { firstDelayMs: 500, maxDelayMs: 15_000, giveUpAfterMs: 5 * 60_000 };
/** A server may ask for more patience, up to this. */
const LONGEST_ASKED_MS = 5 * 60_000;
/** Buffers take so much of a body although nobody reads it: no sign of a line. */
const SWALLOWED_BYTES = 2 ** 20;
/** On a slow line no part may get through for a long time. So many bytes that left are progress too. */
const PROGRESS_BYTES = 2 ** 20;

/** Of a body of which so many bytes were gone before and so many are now: those that left for good. */
export function leftBetween(before: number, now: number): number {
  return Math.max(0, now - Math.max(before, SWALLOWED_BYTES));
}

/**
 * Shared by all parts of an upload: when the server is away, it is away for all of them, and what one part gets through
 * is progress for all.
 */
export class Patience {
  readonly #limits: Required<RetryLimits>;
  readonly #now: () => number;
  #troubledSince: number | undefined;
  /** Bytes that left since something worked, and those of them that were progress already. */
  #unanswered = 0;
  #counted = 0;
  #mostUnanswered = 0;

  constructor(limits: RetryLimits = {}, now: () => number = () => Date.now()) {
    this.#limits = { ...DEFAULTS, ...limits };
    this.#now = now;
  }

  progress(): void {
    this.#troubledSince = undefined;
    this.#unanswered = this.#counted = 0;
  }

  /** What leaves is progress until it is so much that it should have been enough for something to work. */
  allowUnanswered(bytes: number): void {
    this.#mostUnanswered = bytes;
  }

  /** So many bytes more left. */
  sent(bytes: number): void {
    this.#unanswered += bytes;
  }

  /**
   * Milliseconds to wait after so many failures of one request in a row; undefined: enough. `asked` is what the server
   * asked for, `chance` is from 0 to 1.
   */
  pause(failures: number, askedMs: number | undefined, chance: number = Math.random()): number | undefined {
    const now = this.#now();
    if (this.#unanswered - this.#counted >= PROGRESS_BYTES && this.#unanswered <= this.#mostUnanswered) {
      this.#counted = this.#unanswered;
      this.#troubledSince = now;
    }
    this.#troubledSince ??= now;
    const { firstDelayMs, maxDelayMs, giveUpAfterMs } = this.#limits;
    if (now - this.#troubledSince >= giveUpAfterMs) return undefined;
    const full = Math.min(firstDelayMs * 2 ** Math.min(failures - 1, 20), maxDelayMs);
    // Half of it is chance, so that the clients of one server do not come back at once.
    return Math.max(full * (0.5 + 0.5 * chance), Math.min(askedMs ?? 0, LONGEST_ASKED_MS));
  }
}

/** Seconds or a date (RFC 9110 section 10.2.3), as milliseconds from now. */
export function retryAfterMs(value: string | null, now: number = Date.now()): number | undefined {
  if (value === null) return undefined;
  const text = value.trim();
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

interface NetworkEvents {
  addEventListener?: (type: string, listener: () => void) => void;
  removeEventListener?: (type: string, listener: () => void) => void;
  navigator?: { onLine?: boolean };
}
const surroundings = globalThis as NetworkEvents;

/** Whether the device knows that it has no network. In Node it never does. */
export function isOffline(): boolean {
  return surroundings.navigator?.onLine === false;
}

/** Waits; ends early when the network comes back. Rejects when `signal` says so. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return wait(ms, signal);
}

/** Until the device has a network again. */
export function backOnline(signal: AbortSignal): Promise<void> {
  return isOffline() ? wait(undefined, signal) : Promise.resolve();
}

function wait(ms: number | undefined, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const timer = ms === undefined ? undefined : setTimeout(done, ms);
    function end() {
      clearTimeout(timer);
      signal.removeEventListener('abort', cancelled);
      surroundings.removeEventListener?.('online', done);
    }
    function done() {
      end();
      resolve();
    }
    function cancelled() {
      end();
      reject(signal.reason);
    }
    signal.addEventListener('abort', cancelled);
    surroundings.addEventListener?.('online', done);
  });
}
