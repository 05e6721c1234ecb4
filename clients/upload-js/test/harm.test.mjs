// The client against what happens to uploads: servers that die, lines that break, bytes that change, pages that close.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { Upload } from '../dist/index.js';
import { bytesOf, fileOf, gate, mapStore, MIB, PART_BYTES, sha256 } from '../support/files.mjs';
import { Proxy } from '../support/proxy.mjs';
import { Server } from '../support/server.mjs';

let server;
let proxy;
before(async () => { server = await Server.start(); });
after(() => server.stop());
afterEach(() => {
  proxy?.stop();
  proxy = undefined;
});

const RETRY = { firstDelayMs: 50, maxDelayMs: 500, giveUpAfterMs: 20_000 };
const options = (more = {}) => ({
  endpoint: (proxy ?? server).endpoint, token: server.key, partBytes: PART_BYTES, retry: RETRY, store: null, ...more,
});

function check(result, bytes) {
  assert.equal(result.sha256, sha256(bytes));
  assert.equal(result.verified, true);
  assert.ok(server.source(result.asset).equals(bytes));
}

/** Pauses the upload when so many parts are durable. */
function pausing(make, durableParts) {
  const reached = gate();
  let paused = false;
  const upload = make({
    onProgress: ({ durableBytes }) => {
      if (paused || durableBytes < durableParts * PART_BYTES) return;
      paused = true;
      upload.pause();
      reached.open();
    },
  });
  return { upload, reached: reached.promise };
}

test('a server that is killed in the middle and comes back gets the rest, and nothing twice', async () => {
  const bytes = bytesOf(40 * MIB, 'killed');
  let killed;
  proxy = await Proxy.start(server, (request, count) => {
    if (request.method === 'PUT' && count === 4) killed ??= server.kill().then(() => server.restart());
    return undefined;
  });
  const upload = new Upload(fileOf(bytes), options());
  check(await upload.start(), bytes);
  await killed;
  assert.ok(killed, 'the server was killed');
  const stored = proxy.parts.filter((part) => part.status === 204).map((part) => part.number);
  assert.deepEqual(stored.toSorted((a, b) => a - b), [1, 2, 3, 4, 5, 6, 7, 8]);
});

test('connections that are cut cost no more than the parts that were under way', async () => {
  const bytes = bytesOf(30 * MIB, 'cut');
  proxy = await Proxy.start(server, (request, count) => {
    return request.method === 'PUT' && count % 2 === 0 && count < 8 ? { cutAfter: 3 * MIB } : undefined;
  });
  const reasons = [];
  const upload = new Upload(fileOf(bytes), options({ onRetry: (reason) => reasons.push(reason) }));
  check(await upload.start(), bytes);
  assert.equal(reasons.length, 4);
  assert.equal(proxy.parts.length, 10);
});

test('an answer that is lost is asked for again, and there is one video', async () => {
  const bytes = bytesOf(1000, 'lost');
  const before = server.assets().length;
  let lost = 0;
  proxy = await Proxy.start(server, (request) => {
    return request.url.endsWith('/complete') && lost++ === 0 ? { loseAnswer: true } : undefined;
  });
  check(await new Upload(fileOf(bytes), options()).start(), bytes);
  assert.equal(proxy.requests.filter((line) => line.endsWith('/complete')).length, 2);
  assert.equal(server.assets().length, before + 1);
});

test('a page that is closed before the last answer comes finds the video there, and sends nothing', async () => {
  const bytes = bytesOf(12 * MIB, 'closed');
  const store = mapStore();
  const before = server.assets().length;
  const stop = new AbortController();
  let lost = false;
  proxy = await Proxy.start(server, (request) => {
    if (lost || !request.url.endsWith('/complete')) return undefined;
    lost = true;
    return { loseAnswer: true };
  });
  const first = new Upload(fileOf(bytes), options({ store, signal: stop.signal, onRetry: () => stop.abort() }));
  await assert.rejects(first.start(), { name: 'AbortError' });
  assert.equal(server.assets().length, before + 1);
  const sent = proxy.parts.length;
  const result = await new Upload(fileOf(bytes), options({ store })).start();
  assert.equal(result.sha256, sha256(bytes));
  assert.equal(result.resumed, true);
  assert.equal(proxy.parts.length, sent);
  assert.equal(server.assets().length, before + 1);
});

test('a byte that changes on the way is refused by the server and sent again', async () => {
  const bytes = bytesOf(12 * MIB, 'flipped');
  proxy = await Proxy.start(server, (request, count) => {
    return request.method === 'PUT' && count === 1 ? { flip: 2 * MIB } : undefined;
  });
  check(await new Upload(fileOf(bytes), options({ parallel: 1 })).start(), bytes);
  assert.deepEqual(proxy.parts.map(({ number, status }) => [number, status]), [[1, 204], [2, 400], [2, 204], [3, 204]]);
});

test('a line that changes every byte is given up, and nothing wrong is kept', async () => {
  proxy = await Proxy.start(server, (request) => (request.method === 'PUT' ? { flip: 0 } : undefined));
  const before = server.assets().length;
  await assert.rejects(new Upload(fileOf(bytesOf(1000)), options()).start(), { name: 'UploadError', kind: 'damaged' });
  assert.equal(server.assets().length, before);
});

test('while it is paused nothing is sent, and then it goes on where it was', async () => {
  const bytes = bytesOf(40 * MIB, 'paused');
  proxy = await Proxy.start(server);
  const { upload, reached } = pausing((more) => new Upload(fileOf(bytes), options({ ...more, parallel: 2 })), 3);
  const result = upload.start();
  await reached;
  assert.equal(upload.state, 'paused');
  const sent = proxy.parts.length;
  const stored = proxy.parts.filter((part) => part.status === 204).map((part) => part.number);
  upload.resume();
  check(await result, bytes);
  const again = proxy.parts.slice(sent).map((part) => part.number);
  assert.ok(stored.length >= 3);
  assert.deepEqual(again.filter((number) => stored.includes(number)), []);
});

test('after a reload the server is asked what it has, and only the rest is sent', async () => {
  const bytes = bytesOf(40 * MIB, 'reloaded');
  const store = mapStore();
  proxy = await Proxy.start(server);
  const first = pausing((more) => new Upload(fileOf(bytes), options({ ...more, store, parallel: 2 })), 3);
  first.upload.start();
  await first.reached;
  const stored = proxy.parts.filter((part) => part.status === 204).map((part) => part.number);
  const sent = proxy.parts.length;
  // The same person chooses the same file on the page that was loaded again.
  const second = new Upload(fileOf(Buffer.from(bytes)), options({ store }));
  const result = await second.start();
  check(result, bytes);
  assert.equal(result.resumed, true);
  assert.equal(second.uploadId, first.upload.uploadId);
  assert.deepEqual(proxy.parts.slice(sent).map((part) => part.number).filter((number) => stored.includes(number)), []);
  assert.equal(store.map.size, 0);
});

test('another file under the same name is noticed by its bytes and sent as a new upload', async () => {
  const [old, bytes] = [bytesOf(20 * MIB, 'old'), bytesOf(20 * MIB, 'new')];
  const store = mapStore();
  const first = pausing((more) => new Upload(fileOf(old), options({ ...more, store, parallel: 1 })), 2);
  first.upload.start();
  await first.reached;
  const second = new Upload(fileOf(bytes), options({ store }));
  const result = await second.start();
  check(result, bytes);
  assert.equal(result.resumed, false);
  assert.notEqual(second.uploadId, first.upload.uploadId);
});

test('an upload that the server does not know any more begins anew', async () => {
  const bytes = bytesOf(20 * MIB, 'forgotten');
  const store = mapStore();
  const first = pausing((more) => new Upload(fileOf(bytes), options({ ...more, store, parallel: 1 })), 1);
  first.upload.start();
  await first.reached;
  const headers = { authorization: `Bearer ${server.key}`, 'x-upload-id': first.upload.uploadId };
  assert.equal((await fetch(server.endpoint, { method: 'DELETE', headers })).status, 204);
  const result = await new Upload(fileOf(bytes), options({ store })).start();
  check(result, bytes);
  assert.equal(result.resumed, false);
});

test('given up, it is gone from the server and from the memory', async () => {
  const store = mapStore();
  const { upload, reached } = pausing((more) => new Upload(fileOf(bytesOf(20 * MIB)), options({ ...more, store })), 1);
  const result = upload.start();
  await reached;
  await upload.abort();
  await assert.rejects(result, { name: 'AbortError' });
  assert.equal(store.map.size, 0);
  const headers = { authorization: `Bearer ${server.key}`, 'x-upload-id': upload.uploadId };
  const { status } = await fetch(server.endpoint, { headers });
  assert.ok(status === 404 || status === 410, `${status}`);
});

test('a server that cannot be told that an upload is given up is no secret', async () => {
  proxy = await Proxy.start(server, (request) => (request.method === 'DELETE' ? { answer: 503 } : undefined));
  const { upload, reached } = pausing((more) => new Upload(fileOf(bytesOf(20 * MIB)), options(more)), 1);
  upload.start();
  await reached;
  await assert.rejects(upload.abort(), { name: 'UploadError', kind: 'given-up' });
});

test('a signal stops it and leaves what is on the server for another time', async () => {
  const bytes = bytesOf(20 * MIB, 'signal');
  const store = mapStore();
  const stop = new AbortController();
  const onProgress = ({ durableBytes }) => { if (durableBytes >= PART_BYTES) stop.abort(); };
  const first = new Upload(fileOf(bytes), options({ store, parallel: 1, signal: stop.signal, onProgress }));
  await assert.rejects(first.start(), { name: 'AbortError' });
  const result = await new Upload(fileOf(bytes), options({ store })).start();
  check(result, bytes);
  assert.equal(result.resumed, true);
});

test('a token that is not taken any more is renewed once for all parts', async () => {
  const bytes = bytesOf(20 * MIB, 'token');
  let asked = 0;
  const renewToken = async () => {
    asked += 1;
    return server.key;
  };
  proxy = await Proxy.start(server, (request, count) => {
    const old = request.headers.authorization === 'Bearer old';
    return old && request.method === 'PUT' ? { answer: 401 } : undefined;
  });
  // Begun with a good token that is taken away as soon as parts are sent.
  const upload = new Upload(fileOf(bytes), options({ token: 'old', renewToken }));
  check(await upload.start(), bytes);
  assert.equal(asked, 1);
  await assert.rejects(new Upload(fileOf(bytes), options({ token: 'wrong' })).start(), { kind: 'unauthorized', status: 401 });
});

test('as long a pause as the server asks for is kept', async () => {
  const bytes = bytesOf(1000, 'patient');
  const seen = [];
  proxy = await Proxy.start(server, (request, count) => {
    if (request.method === 'PUT') seen.push(performance.now());
    return request.method === 'PUT' && count === 0 ? { answer: 429, headers: { 'retry-after': '1' } } : undefined;
  });
  check(await new Upload(fileOf(bytes), options()).start(), bytes);
  assert.ok(seen[1] - seen[0] >= 990, `${seen[1] - seen[0]} ms`);
});

test('a server that stays away is given up, and the same upload goes on when it is back', async () => {
  const bytes = bytesOf(20 * MIB, 'away');
  const retry = { firstDelayMs: 20, maxDelayMs: 100, giveUpAfterMs: 300 };
  let away = true;
  proxy = await Proxy.start(server, (request, count) => (away && count > 1 ? { cutAfter: 0 } : undefined));
  const upload = new Upload(fileOf(bytes), options({ retry, parallel: 1 }));
  await assert.rejects(upload.start(), { kind: 'given-up' });
  assert.equal(upload.state, 'failed');
  away = false;
  const result = await upload.start();
  check(result, bytes);
  assert.equal(result.resumed, true);
});

test('what cannot work ends at once with the reason of the server', async () => {
  const upload = new Upload(fileOf(bytesOf(1000)), options({ preset: 'none' }));
  await assert.rejects(upload.start(), (error) => error.kind === 'refused' && error.message.includes('web-h264'));
});
