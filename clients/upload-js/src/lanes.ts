/**
 * How many requests with bodies go at a time: as many as told at first, half of them after each stall, one at least, and
 * one more after every few parts in a row that get through. On a slow line many at a time get in each other's way.
 */

/** A tunnel need not slow the rest of a long upload. */
const PARTS_PER_LANE = 8;

export class Lanes {
  readonly #most: number;
  #allowed: number;
  #underWay = 0;
  #halvings = 0;
  /** Parts in a row that got through. */
  #through = 0;
  /** Those who wait, in order. */
  readonly #waiting = new Set<() => void>();

  constructor(most: number) {
    this.#most = most;
    this.#allowed = most;
  }

  get allowed(): number {
    return this.#allowed;
  }

  /** Waits until there is room. Rejects with the reason of `signal`. */
  async enter(signal: AbortSignal): Promise<Lane> {
    signal.throwIfAborted();
    if (this.#underWay >= this.#allowed) await this.#room(signal);
    else this.#underWay += 1;
    const halvings = this.#halvings;
    return {
      gotThrough: () => this.#gotThrough(),
      stalled: () => this.#stalled(halvings),
      leave: () => {
        this.#underWay -= 1;
        this.#admit();
      },
    };
  }

  #room(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const cancelled = () => {
        this.#waiting.delete(go);
        reject(signal.reason);
      };
      const go = () => {
        signal.removeEventListener('abort', cancelled);
        resolve();
      };
      signal.addEventListener('abort', cancelled, { once: true });
      this.#waiting.add(go);
    });
  }

  #admit(): void {
    for (const go of this.#waiting) {
      if (this.#underWay >= this.#allowed) return;
      this.#waiting.delete(go);
      this.#underWay += 1;
      go();
    }
  }

  #gotThrough(): void {
    this.#through += 1;
    if (this.#through < PARTS_PER_LANE) return;
    this.#through = 0;
    this.#allowed = Math.min(this.#most, this.#allowed + 1);
  }

  /** What began before the last halving went with too many others and says nothing about now. */
  #stalled(halvingsBefore: number): void {
    this.#through = 0;
    if (halvingsBefore !== this.#halvings) return;
    this.#halvings += 1;
    this.#allowed = Math.max(1, Math.floor(this.#allowed / 2));
  }
}

/** One request that may go, until it leaves. */
export interface Lane {
  gotThrough(): void;
  stalled(): void;
  leave(): void;
}
