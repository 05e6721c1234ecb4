/**
 * What can end an upload, by what the caller can do about it.
 *
 * Failures that pass (network, a server that restarts, bytes damaged on the way) never come out of here: they are tried
 * again. `GivenUp` is the exception: they did not pass for too long.
 */
export type FailureKind =
  /** No progress for `retry.giveUpAfterMs`; `start()` goes on from there. */
  | 'given-up'
  /** The server understood and said no; its reason is the message. */
  | 'refused'
  /** No token, or one that the server does not take. */
  | 'unauthorized'
  /** The file cannot be read any more, or is not what it was. */
  | 'file'
  /** What the server keeps is not what was sent. */
  | 'damaged'
  /** The server said something that no Reelyard would say. */
  | 'nonsense';

export class UploadError extends Error {
  override readonly name = 'UploadError';
  readonly kind: FailureKind;
  /** HTTP status of the answer, where there was one. */
  readonly status: number | undefined;
  /** `type` of the problem document (RFC 9457), where there was one. */
  readonly problem: string | undefined;

  constructor(kind: FailureKind, message: string, details: { status?: number; problem?: string; cause?: unknown } = {}) {
    super(message, { cause: details.cause });
    this.kind = kind;
    this.status = details.status;
    this.problem = details.problem;
  }
}

/** Something that may pass. Never leaves this package. */
export class Passing extends Error {
  /** The pause that the server asked for, in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** The request itself was taken apart on the way: sending it again is right, but not for ever. */
  readonly damaged: boolean;
  /** The line took no byte for too long. */
  readonly stalled: boolean;
  /** Bytes of the body that must have left, where nobody could tell while they did. */
  readonly leftBytes: number;

  constructor(
    message: string,
    details: { retryAfterMs?: number | undefined; damaged?: boolean; stalled?: boolean; leftBytes?: number } = {},
  ) {
    super(message);
    this.stalled = details.stalled ?? false;
    this.leftBytes = details.leftBytes ?? 0;
    this.retryAfterMs = details.retryAfterMs;
    this.damaged = details.damaged ?? false;
  }
}

/** What `AbortController` makes; the same in browsers and in Node. */
export function stopped(): DOMException {
  return new DOMException('the upload was stopped', 'AbortError');
}
