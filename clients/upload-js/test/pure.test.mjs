// What needs no server: where the index is, the order of parts, how long to wait.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { indexAtEnd } from '../dist/index.js';
import { choosePartBytes, inSendingOrder, layOut } from '../dist/layout.js';
import { Lanes } from '../dist/lanes.js';
import { leftBetween, Patience, retryAfterMs } from '../dist/retry.js';
import { leftInTime, stallLimitMs } from '../dist/transport.js';
import { base64Text, digestField, sha256 } from '../dist/digest.js';
import { ResumeMemory } from '../dist/memory.js';

function box(type, payload = Buffer.alloc(0), { large = false, size } = {}) {
  const header = Buffer.alloc(large ? 16 : 8);
  const length = size ?? header.length + payload.length;
  header.writeUInt32BE(large ? 1 : length, 0);
  header.write(type, 4, 'latin1');
  if (large) header.writeBigUInt64BE(BigInt(length), 8);
  return Buffer.concat([header, payload]);
}
const media = box('mdat', Buffer.alloc(1000));
const ftyp = box('ftyp', Buffer.from('isom0000'));
const moov = box('moov', Buffer.alloc(50));

test('the index is found behind the media data, and only there', async () => {
  const at = (...boxes) => indexAtEnd(new Blob(boxes));
  assert.equal(await at(ftyp, media, moov), ftyp.length + media.length);
  assert.equal(await at(ftyp, box('mdat', Buffer.alloc(1000), { large: true }), box('free'), moov), ftyp.length + 1016 + 8);
  assert.equal(await at(ftyp, moov, media), undefined, 'in front');
  assert.equal(await at(ftyp, box('mdat', Buffer.alloc(9), { size: 0 })), undefined, 'media data to the end');
  assert.equal(await at(media), undefined, 'no index');
});

test('files that are no MP4, or damaged, have no index', async () => {
  const at = (...boxes) => indexAtEnd(new Blob(boxes));
  assert.equal(await at(), undefined);
  assert.equal(await at(Buffer.from('shrt')), undefined);
  assert.equal(await at(Buffer.from('\x1aE\xdf\xa3 matroska, not this')), undefined);
  assert.equal(await at(ftyp, box('mdat', Buffer.alloc(0), { size: 4 })), undefined, 'a size below its own header');
  assert.equal(await at(ftyp, Buffer.from([0, 0, 0, 1, 109, 100, 97, 116])), undefined, 'cut in a large size');
  assert.equal(await at(ftyp, box('mdat', Buffer.alloc(9), { large: true, size: 2n ** 63n })), undefined, 'beyond the end');
  const looping = Array.from({ length: 10_000 }, () => box('free'));
  assert.equal(await at(ftyp, media, ...looping, moov), undefined, 'too many boxes to look at');
});

test('only a few bytes of a large file are read to find its index', async () => {
  const read = [];
  const file = new Blob([ftyp, media, moov]);
  const watched = { size: file.size, slice: (from, to) => {
    read.push(to - from);
    return file.slice(from, to);
  } };
  await indexAtEnd(watched);
  assert.deepEqual(read, [16, 16, 16]);
});

test('the sample of this repository has its index where ffprobe says', async () => {
  const file = await fs.openAsBlob(new URL('../../../fixtures/bbb-720p-20s.mp4', import.meta.url));
  const bytes = Buffer.from(await file.arrayBuffer());
  const [moovAt, mdatAt] = [bytes.indexOf('moov') - 4, bytes.indexOf('mdat') - 4];
  assert.equal(await indexAtEnd(file), moovAt > mdatAt ? moovAt : undefined);
});

test('the parts that hold the index go first', () => {
  const parts = layOut(95, 10);
  const order = (indexStart) => inSendingOrder(parts, indexStart).map((part) => part.number);
  assert.deepEqual(parts.at(-1), { number: 10, start: 90, end: 95 });
  assert.deepEqual(order(undefined), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.deepEqual(order(85), [9, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual(order(90), [10, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.deepEqual(layOut(0, 10), []);
});

test('parts are as large as wished within what the server takes', () => {
  const sizes = { recommended: 16, min: 5, max: 100, count: 10 };
  assert.equal(choosePartBytes(50, sizes, undefined), 16);
  assert.equal(choosePartBytes(50, sizes, 1), 5);
  assert.equal(choosePartBytes(50, sizes, 1000), 100);
  assert.equal(choosePartBytes(995, sizes, 6), 100, 'ten parts are enough for it');
});

test('pauses grow, are shortened by chance, and end when nothing gets through for too long', () => {
  let now = 0;
  const patience = new Patience({ firstDelayMs: 100, maxDelayMs: 1000, giveUpAfterMs: 5000 }, () => now);
  assert.deepEqual([1, 2, 3, 4, 5].map((failures) => patience.pause(failures, undefined, 1)), [100, 200, 400, 800, 1000]);
  assert.equal(patience.pause(1, undefined, 0), 50);
  assert.equal(patience.pause(1, 7000, 0), 7000, 'what the server asks for');
  assert.equal(patience.pause(1, 1e12, 0), 300_000, 'within reason');
  now = 5000;
  assert.equal(patience.pause(1, undefined, 0), undefined);
  patience.progress();
  assert.equal(patience.pause(1, undefined, 0), 50);
});

test('bytes that leave between two cuts are progress, until they should have been enough for a part', () => {
  const MIB = 2 ** 20;
  let now = 0;
  const patience = new Patience({}, () => now);
  patience.allowUnanswered(256 * MIB);
  // 1 Mbit/s, four parts of 16 MiB: the first one is through after nine minutes. A cut every six.
  for (let cut = 0; cut < 5; cut += 1, now += 6 * 60_000) {
    patience.sent(45 * MIB);
    assert.notEqual(patience.pause(1, undefined, 0), undefined, `cut ${cut}`);
  }
  patience.sent(45 * MIB);
  assert.equal(patience.pause(1, undefined, 0), undefined, 'nothing gets through');
  patience.progress();
  patience.sent(MIB / 2);
  assert.notEqual(patience.pause(1, undefined, 0), undefined);
  now += 4 * 60_000;
  patience.sent(MIB / 2);
  assert.notEqual(patience.pause(1, undefined, 0), undefined);
  now += 4 * 60_000;
  assert.notEqual(patience.pause(1, undefined, 0), undefined, 'a little and a little more');
  now += 60_000;
  assert.equal(patience.pause(1, undefined, 0), undefined, 'nothing leaves');
});

test('what buffers swallow of each try did not leave', () => {
  assert.equal(leftBetween(0, 2 ** 20), 0);
  assert.equal(leftBetween(2 ** 19, 2 ** 20 + 30), 30);
  assert.equal(leftBetween(2 ** 20 + 30, 2 ** 20 + 35), 5);
  assert.equal(leftBetween(500, 0), 0);
  assert.equal(leftInTime(600_000, 16 * 2 ** 20), 600 * 16 * 1024, 'at the least speed that is not given up');
  assert.equal(leftInTime(600_000, 1000), 1000);
});

test('what is handed over has time to drain and to be answered', () => {
  assert.equal(stallLimitMs(0, 16 * 2 ** 20), 60_000);
  assert.equal(stallLimitMs(16 * 2 ** 20, 16 * 2 ** 20), 60_000 + 256_000);
  assert.equal(stallLimitMs(32 * 1024, 32 * 1024), 62_000);
  assert.equal(stallLimitMs(0, 0), 60_000, 'without a body there is nothing to drain');
});

test('a stall halves how many parts go at a time, once for all that were under way', async () => {
  const { signal } = new AbortController();
  const lanes = new Lanes(4);
  const four = await Promise.all([1, 2, 3, 4].map(() => lanes.enter(signal)));
  const waiting = lanes.enter(signal);
  const cancelled = lanes.enter(AbortSignal.abort(new Error('paused')));
  await assert.rejects(cancelled, { message: 'paused' });
  for (const lane of four) lane.stalled();
  assert.equal(lanes.allowed, 2);
  const isIn = () => Promise.race([waiting.then(() => true), new Promise((resolve) => { setImmediate(resolve, false); })]);
  four[0].leave();
  four[1].leave();
  assert.equal(await isIn(), false);
  four[2].leave();
  assert.equal(await isIn(), true);
  (await waiting).stalled();
  assert.equal(lanes.allowed, 1);
  for (let part = 0; part < 8; part += 1) four[3].gotThrough();
  assert.equal(lanes.allowed, 2, 'it grows again');
});

test('who waits for room and is stopped takes none', async () => {
  const lanes = new Lanes(1);
  const stop = new AbortController();
  const first = await lanes.enter(stop.signal);
  const waiting = lanes.enter(stop.signal);
  stop.abort(new Error('stopped'));
  await assert.rejects(waiting, { message: 'stopped' });
  first.leave();
  const { signal } = new AbortController();
  await lanes.enter(signal);
});

test('the server asks for a pause in seconds or with a date', () => {
  const now = Date.parse('Fri, 20 Nov 2026 09:00:00 GMT');
  assert.equal(retryAfterMs('3', now), 3000);
  assert.equal(retryAfterMs('Fri, 20 Nov 2026 09:00:05 GMT', now), 5000);
  assert.equal(retryAfterMs('Fri, 20 Nov 2026 08:00:00 GMT', now), 0);
  assert.equal(retryAfterMs('soon', now), undefined);
  assert.equal(retryAfterMs(null, now), undefined);
});

test('digests and texts have the form of their headers', async () => {
  const digest = await sha256(new TextEncoder().encode('abc').buffer);
  assert.equal(digest, 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  assert.equal(digestField(digest), 'sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:');
  assert.equal(base64Text('Rügen ☀'), Buffer.from('Rügen ☀').toString('base64'));
});

test('a memory that is full, damaged or forbidden costs no more than the memory', async () => {
  const broken = { get: () => { throw new Error('forbidden'); }, set: () => { throw new Error('full'); }, remove: () => Promise.reject(new Error('gone')) };
  const memory = new ResumeMemory(broken, ['x']);
  assert.equal(await memory.recall(), undefined);
  await memory.remember({ uploadId: 'a', partBytes: 1 });
  await memory.forget();
  for (const told of ['', '{', 'null', '5', '{"uploadId": 5, "partBytes": 1}', '{"uploadId": "a", "partBytes": -1}']) {
    assert.equal(await new ResumeMemory({ ...broken, get: () => told }, ['x']).recall(), undefined, told);
  }
});
