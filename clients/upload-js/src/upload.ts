/**
 * What applications use: one upload that can be started, paused, gone on with and given up.
 *
 * Only this class has state that lasts; each go at the transfer is a `Session`. It calls back and throws nothing into
 * the page: `start()` settles with the result or an `UploadError`.
 */
import { Dialect } from './dialect.js';
import { Passing, stopped, UploadError } from './errors.js';
import { localStore, ResumeMemory, type ResumeStore } from './memory.js';
import { Patience, type RetryLimits } from './retry.js';
import { upload, type Outcome, type Session } from './session.js';

const DEFAULT_PARALLEL = 4;
/** Browsers open six connections to a host over HTTP/1.1; more would only wait, and hold a part in memory each. */
const MAX_PARALLEL = 6;

export type UploadState = 'idle' | 'uploading' | 'paused' | 'done' | 'failed' | 'aborted';

export interface UploadProgress {
  /** Handed to the network or durable. May go down: a part that was cut is sent again. */
  readonly sentBytes: number;
  /** Acknowledged by the server: lost by no crash. */
  readonly durableBytes: number;
  readonly totalBytes: number;
}

export interface UploadResult {
  /** Id of the video. */
  readonly asset: string;
  readonly uploadId: string;
  /** SHA-256 of the whole as the server computed it, lower-case hexadecimal. */
  readonly sha256: string | undefined;
  /** Whether every part that the server stored was compared with a SHA-256 of our own. False only without WebCrypto. */
  readonly verified: boolean;
  /** Whether an earlier upload was gone on with. */
  readonly resumed: boolean;
}

export interface UploadOptions {
  /** Address of the dialect, such as `https://video.example/uploads/parts`; relative ones are the page's. */
  endpoint: string;
  /** API key or upload token, sent as `Authorization: Bearer`. */
  token?: string;
  /** Called when the token is not taken any more; all parts wait for it and go on. */
  renewToken?: () => string | Promise<string>;
  /** More headers for every request. */
  headers?: Record<string, string>;
  /** Default: the name of the `File`. */
  filename?: string;
  preset?: string;
  title?: string;
  metadata?: Record<string, string>;
  /** Parts under way at the same time, 1 to 6. Each is held in memory. Default: 4. */
  parallel?: number;
  /** Wished size of a part; default: what the server recommends. */
  partBytes?: number;
  retry?: RetryLimits;
  /** Where unfinished uploads are remembered; default: `localStorage`. `null`: nowhere. */
  store?: ResumeStore | null;
  onProgress?: (progress: UploadProgress) => void;
  /** The upload has an id. */
  onBegun?: (uploadId: string, resumed: boolean) => void;
  /** The video exists. */
  onAsset?: (asset: string) => void;
  /** Something failed and will be tried again. */
  onRetry?: (reason: string, delayMs: number) => void;
  /** Stops it, as `pause()` does, and makes `start()` reject. What is on the server stays for another time. */
  signal?: AbortSignal;
}

export class Upload {
  readonly #session: Session;
  readonly #options: UploadOptions;
  #state: UploadState = 'idle';
  #progress: UploadProgress;
  #uploadId: string | undefined;
  #token: string | undefined;
  #renewing: Promise<void> | undefined;
  #controller = new AbortController();
  /** The go that is running, or ended. Never rejects. */
  #go: Promise<void> = Promise.resolve();
  #promised: { promise: Promise<UploadResult>; resolve: (result: UploadResult) => void; reject: (reason: unknown) => void } | undefined;

  constructor(file: Blob, options: UploadOptions) {
    this.#options = options;
    this.#token = options.token;
    this.#progress = { sentBytes: 0, durableBytes: 0, totalBytes: file.size };
    const { name, lastModified } = file as Partial<File>;
    const { preset, title, metadata, headers } = options;
    const filename = options.filename ?? name;
    const store = options.store === undefined ? localStore() : (options.store ?? undefined);
    const identity = [options.endpoint, filename, file.size, lastModified, file.type, preset, title, metadata];
    const credentials = () => (this.#token === undefined ? { ...headers } : { ...headers, Authorization: `Bearer ${this.#token}` });
    this.#session = {
      file,
      facts: { length: file.size, filename, contentType: file.type, preset, title, metadata },
      dialect: new Dialect(options.endpoint, credentials),
      memory: new ResumeMemory(store, identity.map((part) => part ?? null)),
      patience: new Patience(options.retry),
      parallel: Math.min(Math.max(Math.trunc(options.parallel ?? DEFAULT_PARALLEL), 1), MAX_PARALLEL),
      partBytes: options.partBytes,
      renewToken: options.renewToken && (() => this.#renew()),
      onBegun: (uploadId, resumed) => {
        this.#uploadId = uploadId;
        options.onBegun?.(uploadId, resumed);
      },
      onProgress: (sentBytes, durableBytes) => {
        this.#progress = { sentBytes, durableBytes, totalBytes: file.size };
        options.onProgress?.(this.#progress);
      },
      onRetry: (reason, delayMs) => options.onRetry?.(reason, delayMs),
    };
    options.signal?.addEventListener('abort', () => this.#stop());
  }

  get state(): UploadState {
    return this.#state;
  }

  get progress(): UploadProgress {
    return this.#progress;
  }

  /** Of the server, once the upload was begun. */
  get uploadId(): string | undefined {
    return this.#uploadId;
  }

  /** Begins, or goes on after a pause, a failure or a new visit. Settles when the upload is done or has failed. */
  start(): Promise<UploadResult> {
    if (this.#state === 'paused' || this.#state === 'uploading') this.resume();
    else if (this.#state !== 'done') {
      this.#promised = promised();
      if (this.#options.signal?.aborted) this.#stop();
      else this.#begin();
    }
    return this.#promised?.promise ?? Promise.reject(stopped());
  }

  /** Stops sending; what is under way of a part is sent again later. `start()`'s promise stays open. */
  pause(): void {
    if (this.#state !== 'uploading') return;
    this.#state = 'paused';
    this.#controller.abort(stopped());
  }

  resume(): void {
    if (this.#state === 'paused') this.#begin();
  }

  /** Stops and gives the upload up, here and on the server. */
  async abort(): Promise<void> {
    if (this.#state === 'done') return;
    this.#state = 'aborted';
    this.#controller.abort(stopped());
    this.#promised?.reject(stopped());
    await this.#go;
    const { memory, dialect } = this.#session;
    const uploadId = this.#uploadId ?? (await memory.recall())?.uploadId;
    await memory.forget();
    if (uploadId === undefined) return;
    try {
      await dialect.giveUp(uploadId, new AbortController().signal);
    } catch (error) {
      if (!(error instanceof Passing)) throw error;
      throw new UploadError('given-up', `the server was not told, and keeps the upload until it expires (${error.message})`);
    }
  }

  #begin(): void {
    this.#state = 'uploading';
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    // The go before this one may still be letting go of its requests.
    this.#go = this.#go.then(() => this.#run(signal));
  }

  async #run(signal: AbortSignal): Promise<void> {
    let outcome: Outcome;
    try {
      outcome = await upload(this.#session, signal);
    } catch (error) {
      // Paused or given up: whoever did that has said so.
      if (signal.aborted) return;
      this.#state = 'failed';
      this.#promised?.reject(error);
      return;
    }
    // Paused or given up in the last moment: it is done nevertheless.
    this.#state = 'done';
    this.#promised?.resolve(outcome);
    this.#options.onAsset?.(outcome.asset);
  }

  #stop(): void {
    if (this.#state === 'done' || this.#state === 'aborted') return;
    this.#state = 'failed';
    const reason = this.#options.signal?.reason ?? stopped();
    this.#controller.abort(reason);
    this.#promised?.reject(reason);
  }

  /** Once, however many parts were refused at the same time. */
  #renew(): Promise<void> {
    this.#renewing ??= (async () => {
      try {
        this.#token = await this.#options.renewToken?.();
      } finally {
        this.#renewing = undefined;
      }
    })();
    return this.#renewing;
  }
}

function promised() {
  let resolve!: (result: UploadResult) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<UploadResult>((good, bad) => {
    resolve = good;
    reject = bad;
  });
  // Whoever uses the callbacks alone need not listen to it.
  promise.catch(() => {});
  return { promise, resolve, reject };
}
