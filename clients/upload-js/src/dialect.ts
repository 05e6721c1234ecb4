/**
 * The requests of the parts dialect, one function each, and what their answers mean.
 *
 * `POST endpoint` begins, `PUT endpoint` brings a part, `GET endpoint` lists what is durable, `POST endpoint/complete`
 * finishes, `DELETE endpoint` gives up. What may pass is thrown as `Passing`, all else as `UploadError`.
 */
import { Passing, UploadError } from './errors.js';
import { base64Text, digestField } from './digest.js';
import type { Part, PartSizes } from './layout.js';
import { retryAfterMs } from './retry.js';
import { send, type Answer, type Ask } from './transport.js';

/** Says who is asking; called for every request. */
export type Credentials = () => Readonly<Record<string, string>>;

export interface Facts {
  readonly length: number;
  readonly filename?: string | undefined;
  readonly contentType?: string | undefined;
  readonly preset?: string | undefined;
  readonly title?: string | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

export interface Begun {
  readonly uploadId: string;
  readonly sizes: PartSizes;
}

export interface StoredPart extends Part {
  /** Lower-case hexadecimal SHA-256 of the part. */
  readonly sha256: string;
}

export interface Standing {
  readonly length: number;
  /** The video exists. Its parts may not be kept apart any more, and are not listed then. */
  readonly complete: boolean;
  readonly parts: readonly StoredPart[];
}

export interface Made {
  readonly asset: string;
  /** Of the whole, as the server computed it. */
  readonly sha256: string | undefined;
}

/** The type of the problem of a body that does not have the digest it came with. */
const DIGEST_PROBLEM = 'https://iana.org/assignments/http-problem-types#digest-mismatching-values';
/** Too late, taken over by another request, too early, too many. */
const PASSING_STATUSES = new Set([408, 423, 425, 429]);

export class Dialect {
  readonly #endpoint: string;
  readonly #credentials: Credentials;

  constructor(endpoint: string, credentials: Credentials) {
    this.#endpoint = endpoint.replace(/\/+$/, '');
    this.#credentials = credentials;
  }

  async begin(facts: Facts, signal: AbortSignal): Promise<Begun> {
    const { length, filename, contentType, preset, title, metadata } = facts;
    const headers: Record<string, string> = { 'Content-Type': 'application/json' };
    const pairs = Object.entries(metadata ?? {}).map(([key, value]) => `${key} ${base64Text(value)}`);
    if (pairs.length > 0) headers['Upload-Metadata'] = pairs.join(',');
    const body = JSON.stringify({ length, filename, content_type: contentType || undefined, preset, title });
    const answer = await this.#ask({ method: 'POST', headers, body, signal });
    const uploadId = answer.header('x-upload-id');
    const number = (name: string) => Number(answer.header(name) ?? NaN);
    const sizes: PartSizes = {
      recommended: number('x-part-size'),
      min: number('x-part-min-size'),
      max: number('x-part-max-size'),
      count: number('x-parts-max'),
    };
    if (uploadId === null || Object.values(sizes).some((size) => !(size > 0))) {
      throw new UploadError('nonsense', 'the server began an upload and did not say which, or in what parts');
    }
    return { uploadId, sizes };
  }

  async list(uploadId: string, signal: AbortSignal): Promise<Standing> {
    const answer = await this.#ask({ method: 'GET', headers: { 'X-Upload-ID': uploadId }, signal });
    return readStanding(answer.text);
  }

  /** The ETag without its quotes: the SHA-256 of what was stored. */
  async put(
    uploadId: string,
    part: Part,
    total: number,
    bytes: ArrayBuffer,
    sha256: string | undefined,
    signal: AbortSignal,
    onSent: (bytes: number) => void,
  ): Promise<string> {
    const headers: Record<string, string> = {
      'Content-Type': 'application/octet-stream',
      'X-Upload-ID': uploadId,
      'X-Part-Number': String(part.number),
      'X-Content-Range': `bytes ${part.start}-${part.end - 1}/${total}`,
    };
    if (sha256 !== undefined) headers['Content-Digest'] = digestField(sha256);
    const answer = await this.#ask({ method: 'PUT', headers, body: bytes, signal, onSent });
    return (answer.header('etag') ?? '').replace(/^"|"$/g, '');
  }

  async complete(
    uploadId: string,
    parts: readonly { number: number; sha256: string }[],
    whole: string | undefined,
    signal: AbortSignal,
  ): Promise<Made> {
    const headers: Record<string, string> = { 'Content-Type': 'application/json', 'X-Upload-ID': uploadId };
    if (whole !== undefined) headers['Repr-Digest'] = digestField(whole);
    const body = JSON.stringify({ parts: parts.map((part) => ({ part_number: part.number, etag: part.sha256 })) });
    const answer = await this.#ask({ method: 'POST', path: '/complete', headers, body, signal });
    const made = record(answer.text);
    if (typeof made['asset'] !== 'string') {
      throw new UploadError('nonsense', 'the server took all parts but names no asset; is it a Reelyard server?');
    }
    return { asset: made['asset'], sha256: typeof made['sha256'] === 'string' ? made['sha256'] : undefined };
  }

  /** Gone already is as good. */
  async giveUp(uploadId: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#ask({ method: 'DELETE', headers: { 'X-Upload-ID': uploadId }, signal });
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  async #ask(request: Omit<Ask, 'url'> & { path?: string }): Promise<Answer> {
    const { path = '', headers, ...rest } = request;
    const all = { ...this.#credentials(), ...headers };
    const answer = await send({ ...rest, url: this.#endpoint + path, headers: all });
    if (answer.status >= 200 && answer.status < 300) return answer;
    throw failure(answer, request.method);
  }
}

/** The upload is not there any more. */
export function isGone(error: unknown): boolean {
  return error instanceof UploadError && (error.status === 404 || error.status === 410);
}

function failure(answer: Answer, method: string): Error {
  const { status } = answer;
  const problem = record(answer.text);
  const told = problem['detail'] ?? problem['title'];
  const detail = typeof told === 'string' ? told : `the server answers ${status}`;
  const type = typeof problem['type'] === 'string' ? problem['type'] : undefined;
  if (status >= 500 || PASSING_STATUSES.has(status)) {
    return new Passing(`${status}: ${detail}`, { retryAfterMs: retryAfterMs(answer.header('retry-after')) });
  }
  // What came is not what was sent: the bytes or the headers were changed on the way.
  if (type === DIGEST_PROBLEM || (method === 'PUT' && status === 400)) {
    return new Passing(`${status}: ${detail}`, { damaged: true });
  }
  const kind = status === 401 ? 'unauthorized' : 'refused';
  return new UploadError(kind, detail, { status, ...(type === undefined ? {} : { problem: type }) });
}

function record(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function readStanding(text: string): Standing {
  const { length, parts, asset } = record(text);
  if (typeof length !== 'number' || !Array.isArray(parts)) {
    throw new UploadError('nonsense', 'the list of parts cannot be read; is this a Reelyard server?');
  }
  const stored = parts.map((entry: Record<string, unknown>) => ({
    number: Number(entry['part_number']),
    start: Number(entry['first_byte']),
    end: Number(entry['last_byte']) + 1,
    sha256: String(entry['etag']).replace(/^"|"$/g, ''),
  }));
  return { length, parts: stored, complete: typeof asset === 'string' };
}
