/**
 * One go at an upload: finds out what the server has, sends what is missing, completes. `Upload` starts another go after
 * a pause or a failure; everything worth keeping is on the server.
 *
 * Throws `UploadError`, or the signal's reason. Failures that may pass are waited for here.
 */
import { Dialect, isGone, type Facts, type StoredPart } from './dialect.js';
import { canHash, sha256 } from './digest.js';
import { Passing, UploadError } from './errors.js';
import { choosePartBytes, inSendingOrder, layOut, type Part } from './layout.js';
import { Lanes } from './lanes.js';
import type { Remembered, ResumeMemory } from './memory.js';
import { indexAtEnd } from './mp4.js';
import { backOnline, isOffline, leftBetween, Patience, sleep } from './retry.js';

/** The same bytes damaged on the way so often is no accident any more. */
const MAX_DAMAGED = 5;
/** A new token that is refused at once, so often, will not be taken at all. */
const MAX_RENEWALS = 3;
/** The server says that a part is missing which it had acknowledged: once may be a restored backup. */
const MAX_ROUNDS = 3;
/** When all that is under way was sent so often and nothing got through, sending is no progress any more. */
const TIMES_IN_VAIN = 4;

export interface Session {
  readonly file: Blob;
  readonly facts: Facts;
  readonly dialect: Dialect;
  readonly memory: ResumeMemory;
  readonly patience: Patience;
  readonly parallel: number;
  readonly partBytes: number | undefined;
  /** Gets another token; undefined where nobody can. */
  readonly renewToken: (() => Promise<void>) | undefined;
  readonly onBegun: (uploadId: string, resumed: boolean) => void;
  readonly onProgress: (sent: number, durable: number) => void;
  readonly onRetry: (reason: string, delayMs: number) => void;
}

export interface Outcome {
  readonly uploadId: string;
  readonly asset: string;
  readonly sha256: string | undefined;
  readonly verified: boolean;
  readonly resumed: boolean;
}

/** What is stored is not what the file holds: the memory was of another file. */
class OtherFile extends Error {}

/** `signal` ends it. */
export async function upload(session: Session, signal: AbortSignal): Promise<Outcome> {
  for (let anew = false, rounds = 1; ; ) {
    const goal = await findOrBegin(session, signal);
    try {
      return await new Transfer(session, goal, signal).run();
    } catch (error) {
      if (error instanceof UploadError && error.problem?.endsWith('/parts-missing') && rounds < MAX_ROUNDS) {
        rounds += 1;
        continue;
      }
      if (anew || !(error instanceof OtherFile || isGone(error))) throw asUploadError(error);
      anew = true;
      await session.memory.forget();
      if (error instanceof OtherFile) {
        await persist(session, signal, () => session.dialect.giveUp(goal.uploadId, signal));
      }
    }
  }
}

function asUploadError(error: unknown): unknown {
  if (!(error instanceof OtherFile)) return error;
  return new UploadError('file', 'the file changes while it is being sent');
}

/** The upload that is to be finished. */
interface Goal extends Remembered {
  readonly stored: readonly StoredPart[];
  /** Only the answer was lost: nothing is to be sent. */
  readonly complete: boolean;
  readonly resumed: boolean;
}

async function findOrBegin(session: Session, signal: AbortSignal): Promise<Goal> {
  const { dialect, memory, facts } = session;
  const known = await memory.recall();
  if (known !== undefined) {
    try {
      const standing = await persist(session, signal, () => dialect.list(known.uploadId, signal));
      if (standing.length === facts.length && fits(standing.parts, facts.length, known.partBytes)) {
        session.onBegun(known.uploadId, true);
        return { ...known, stored: standing.parts, complete: standing.complete, resumed: true };
      }
    } catch (error) {
      if (!isGone(error)) throw error;
    }
    await memory.forget();
  }
  const { uploadId, sizes } = await persist(session, signal, () => dialect.begin(facts, signal));
  const upload = { uploadId, partBytes: choosePartBytes(facts.length, sizes, session.partBytes) };
  await memory.remember(upload);
  session.onBegun(uploadId, false);
  return { ...upload, stored: [], complete: false, resumed: false };
}

/** Only parts of our own layout are gone on with. */
function fits(stored: readonly StoredPart[], length: number, partBytes: number): boolean {
  return stored.every(({ number, start, end }) => {
    return start === (number - 1) * partBytes && end === Math.min(start + partBytes, length);
  });
}

/** Does it until it works, is refused, or there was no progress for too long. */
async function persist<T>(session: Session, signal: AbortSignal, action: () => Promise<T>): Promise<T> {
  for (let failures = 0, damaged = 0, renewals = 0; ; ) {
    await backOnline(signal);
    try {
      const result = await action();
      session.patience.progress();
      return result;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (error instanceof UploadError && error.kind === 'unauthorized' && session.renewToken) {
        renewals += 1;
        if (renewals > MAX_RENEWALS) throw error;
        await session.renewToken();
        continue;
      }
      if (!(error instanceof Passing)) throw error;
      if (error.damaged && ++damaged >= MAX_DAMAGED) throw new UploadError('damaged', error.message);
      // Time without a network is nobody's failure.
      if (isOffline()) {
        session.patience.progress();
        continue;
      }
      failures += 1;
      const delayMs = session.patience.pause(failures, error.retryAfterMs);
      if (delayMs === undefined) throw new UploadError('given-up', `${error.message}; given up without progress`);
      session.onRetry(error.message, delayMs);
      await sleep(delayMs, signal);
    }
  }
}

/** Sends the parts of one upload, several at a time. */
class Transfer {
  readonly #session: Session;
  readonly #goal: Goal;
  readonly #outer: AbortSignal;
  readonly #group = new AbortController();
  /** By number: the ETag, which is the SHA-256 of what the server stored. */
  readonly #stored: Map<number, string>;
  /** Numbers of parts whose ETag was compared with our own SHA-256 of the same bytes. */
  readonly #proven = new Set<number>();
  readonly #underWay = new Map<number, number>();
  readonly #lanes: Lanes;
  #durable = 0;

  constructor(session: Session, goal: Goal, signal: AbortSignal) {
    this.#session = session;
    this.#goal = goal;
    this.#outer = signal;
    this.#lanes = new Lanes(session.parallel);
    session.patience.allowUnanswered(goal.partBytes * session.parallel * TIMES_IN_VAIN);
    this.#stored = new Map(goal.stored.map((part) => [part.number, part.sha256]));
    this.#durable = goal.complete ? session.file.size : goal.stored.reduce((sum, part) => sum + part.end - part.start, 0);
  }

  async run(): Promise<Outcome> {
    const { file, dialect, memory } = this.#session;
    const { uploadId, partBytes, resumed } = this.#goal;
    const parts = layOut(file.size, partBytes);
    this.#tell();
    await this.#inParallel(await this.#work(parts));
    const verified = parts.every((part) => this.#proven.has(part.number));
    // A file of one part has the digest of its part; of a larger one WebCrypto cannot compute it.
    const whole = parts.length === 1 && verified ? this.#stored.get(1) : undefined;
    const known = parts.filter((part) => this.#stored.has(part.number));
    const list = known.map(({ number }) => ({ number, sha256: this.#stored.get(number) ?? '' }));
    const made = await persist(this.#session, this.#outer, () => {
      return dialect.complete(uploadId, list, whole, this.#outer);
    });
    if (whole !== undefined && made.sha256 !== undefined && made.sha256 !== whole) {
      throw new UploadError('damaged', `the server has a file with the SHA-256 ${made.sha256}, ours is ${whole}`);
    }
    await memory.forget();
    return { uploadId, asset: made.asset, sha256: made.sha256, verified, resumed };
  }

  /** In order. A stored part is looked at first: if it is of another file, nothing more is sent in vain. */
  async #work(parts: readonly Part[]): Promise<(() => Promise<void>)[]> {
    const stored = parts.filter((part) => this.#stored.has(part.number));
    const missing = parts.filter((part) => !this.#stored.has(part.number) && !this.#goal.complete);
    const inOrder = inSendingOrder(missing, await indexAtEnd(this.#session.file).catch(unreadable));
    const checks = stored.map((part) => () => this.#check(part));
    return [...checks.slice(0, 1), ...inOrder.map((part) => () => this.#send(part)), ...checks.slice(1)];
  }

  /** The first failure stops the others. */
  async #inParallel(work: (() => Promise<void>)[]): Promise<void> {
    const stop = () => this.#group.abort(this.#outer.reason);
    this.#outer.addEventListener('abort', stop);
    if (this.#outer.aborted) stop();
    let next = 0;
    const worker = async () => {
      while (next < work.length) {
        this.#group.signal.throwIfAborted();
        await work[next++]?.();
      }
    };
    try {
      const workers = Array.from({ length: this.#session.parallel }, () => {
        return worker().catch((error: unknown) => {
          if (!this.#group.signal.aborted) this.#group.abort(error);
        });
      });
      await Promise.all(workers);
      this.#group.signal.throwIfAborted();
    } finally {
      this.#outer.removeEventListener('abort', stop);
    }
  }

  async #send(part: Part): Promise<void> {
    const { dialect, file } = this.#session;
    const bytes = await this.#read(part);
    const own = await sha256(bytes);
    const onSent = (sent: number) => {
      this.#session.patience.sent(leftBetween(this.#underWay.get(part.number) ?? 0, sent));
      this.#underWay.set(part.number, Math.min(sent, bytes.byteLength));
      this.#tell();
    };
    const signal = this.#group.signal;
    try {
      const stored = await persist(this.#session, signal, () => {
        return this.#inLane(part, () => dialect.put(this.#goal.uploadId, part, file.size, bytes, own, signal, onSent));
      });
      if (own !== undefined && stored !== own) {
        throw new UploadError('damaged', `the server stored part ${part.number} as ${stored}, ours is ${own}`);
      }
      this.#stored.set(part.number, stored);
      if (own !== undefined) this.#proven.add(part.number);
      this.#durable += bytes.byteLength;
    } finally {
      this.#underWay.delete(part.number);
      this.#tell();
    }
  }

  /** One try, when there is room for it. */
  async #inLane(part: Part, put: () => Promise<string>): Promise<string> {
    const lane = await this.#lanes.enter(this.#group.signal);
    // What left of an earlier try does not count for this one.
    this.#underWay.delete(part.number);
    try {
      const stored = await put();
      lane.gotThrough();
      return stored;
    } catch (error) {
      if (error instanceof Passing) {
        this.#session.patience.sent(leftBetween(0, error.leftBytes));
        if (error.stalled) lane.stalled();
      }
      throw error;
    } finally {
      lane.leave();
    }
  }

  /** A part that was stored before. */
  async #check(part: Part): Promise<void> {
    if (!canHash(part.end - part.start)) return;
    if ((await sha256(await this.#read(part))) !== this.#stored.get(part.number)) throw new OtherFile();
    this.#proven.add(part.number);
  }

  async #read(part: Part): Promise<ArrayBuffer> {
    const bytes = await this.#session.file.slice(part.start, part.end).arrayBuffer().catch(unreadable);
    if (bytes.byteLength !== part.end - part.start) throw unreadable(new Error('it has become shorter'));
    return bytes;
  }

  #tell(): void {
    const underWay = [...this.#underWay.values()].reduce((sum, bytes) => sum + bytes, 0);
    this.#session.onProgress(this.#durable + underWay, this.#durable);
  }
}

/** Browsers refuse to read a file that was changed after it was chosen. */
function unreadable(cause: unknown): never {
  const reason = cause instanceof Error ? cause.message : String(cause);
  throw new UploadError('file', `the file cannot be read, or was changed (${reason}); choose it again`, { cause });
}
