/**
 * One HTTP request, by XMLHttpRequest where there is one (it tells how much has been sent), else by `fetch`.
 *
 * An answer of any status is an answer. No answer is `Passing`: the network, or a server that went away. A request that
 * moves no byte for `STALL_MS` is given up the same way; one that was handed over whole has time to drain first.
 */
import { Passing } from './errors.js';

export interface Ask {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: ArrayBuffer | string;
  readonly signal: AbortSignal;
  /** Bytes of the body that were handed to the network so far. */
  readonly onSent?: (bytes: number) => void;
}

export interface Answer {
  readonly status: number;
  header(name: string): string | null;
  readonly text: string;
}

/** A connection that takes nothing, and an answer that does not come, for so long is dead. */
const STALL_MS = 60_000;
/** `fetch` does not tell what it has sent, so a body has the time that it needs at this speed. */
const LEAST_BYTES_PER_SECOND = 16 * 1024;
/** Browser and socket hold so much at most of what was handed over. */
const MAX_HELD_BYTES = 4 * 2 ** 20;

export function send(ask: Ask): Promise<Answer> {
  if (ask.signal.aborted) return Promise.reject(ask.signal.reason);
  return typeof XMLHttpRequest === 'undefined' ? byFetch(ask) : byXhr(ask);
}

function byXhr(ask: Ask): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    let timer: ReturnType<typeof setTimeout>;
    const length = lengthOf(ask);
    const alive = (handedOver = 0) => {
      clearTimeout(timer);
      const limitMs = stallLimitMs(handedOver, length);
      timer = setTimeout(() => fail(stalled(ask, limitMs)), limitMs);
    };
    const end = () => {
      clearTimeout(timer);
      ask.signal.removeEventListener('abort', cancelled);
    };
    const fail = (reason: unknown) => {
      end();
      xhr.abort();
      reject(reason);
    };
    const cancelled = () => fail(ask.signal.reason);
    xhr.open(ask.method, ask.url);
    for (const [name, value] of Object.entries(ask.headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => {
      alive(event.loaded);
      ask.onSent?.(event.loaded);
    };
    xhr.onprogress = () => alive();
    xhr.onerror = () => fail(new Passing(`${ask.url} does not answer`));
    xhr.onload = () => {
      end();
      resolve({ status: xhr.status, header: (name) => xhr.getResponseHeader(name), text: xhr.responseText });
    };
    ask.signal.addEventListener('abort', cancelled);
    alive();
    xhr.send(ask.body ?? null);
  });
}

async function byFetch(ask: Ask): Promise<Answer> {
  const length = lengthOf(ask);
  const limit = new AbortController();
  const limitMs = STALL_MS + timeAtLeastSpeedMs(length);
  const timer = setTimeout(() => limit.abort(stalled(ask, limitMs)), limitMs);
  const began = performance.now();
  const cancelled = () => limit.abort(ask.signal.reason);
  ask.signal.addEventListener('abort', cancelled);
  try {
    const answer = await fetch(ask.url, {
      method: ask.method,
      headers: ask.headers,
      ...(ask.body === undefined ? {} : { body: ask.body }),
      signal: limit.signal,
      // A key is for the server it was given for.
      redirect: 'manual',
      cache: 'no-store',
    });
    const text = await answer.text();
    return { status: answer.status, header: (name) => answer.headers.get(name), text };
  } catch (error) {
    if (limit.signal.aborted) throw limit.signal.reason;
    const leftBytes = leftInTime(performance.now() - began, length);
    throw new Passing(`${ask.url} does not answer (${reasonOf(error)})`, { leftBytes });
  } finally {
    clearTimeout(timer);
    ask.signal.removeEventListener('abort', cancelled);
  }
}

function stalled(ask: Ask, limitMs: number): Passing {
  return new Passing(`${ask.url} took nothing for ${Math.round(limitMs / 1000)} s`, { stalled: true });
}

function lengthOf(ask: Ask): number {
  return ask.body === undefined || typeof ask.body === 'string' ? 0 : ask.body.byteLength;
}

function timeAtLeastSpeedMs(bytes: number): number {
  return (bytes / LEAST_BYTES_PER_SECOND) * 1000;
}

/** How long nothing may move once so much of a body was handed over. The last of it is still to go then. */
export function stallLimitMs(handedOver: number, length: number): number {
  return handedOver < length ? STALL_MS : STALL_MS + timeAtLeastSpeedMs(Math.min(length, MAX_HELD_BYTES));
}

/** What must have left of a body that `fetch` was busy with for so long: it would be given up at a lower speed. */
export function leftInTime(elapsedMs: number, length: number): number {
  return Math.min(length, (elapsedMs / 1000) * LEAST_BYTES_PER_SECOND);
}

/** Node says "fetch failed" and keeps the reason one level down. */
function reasonOf(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return inner instanceof Error ? inner.message : String(inner);
}
