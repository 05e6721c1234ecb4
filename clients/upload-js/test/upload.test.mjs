// The client against the real server, without harm.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Upload } from '../dist/index.js';
import { bytesOf, fileOf, mapStore, MIB, PART_BYTES, sha256 } from '../support/files.mjs';
import { Server } from '../support/server.mjs';

let server;
before(async () => { server = await Server.start(); });
after(() => server.stop());

const options = (more = {}) => ({ endpoint: server.endpoint, token: server.key, partBytes: PART_BYTES, store: null, ...more });

test('a file arrives whole, and the result says so', async () => {
  const bytes = bytesOf(23 * MIB + 17);
  const seen = { progress: [], assets: [] };
  const upload = new Upload(fileOf(bytes), options({
    title: 'Rügen ☀',
    metadata: { season: 'Sommer' },
    onProgress: (progress) => seen.progress.push(progress),
    onAsset: (asset) => seen.assets.push(asset),
  }));
  const result = await upload.start();
  assert.equal(result.sha256, sha256(bytes));
  assert.equal(result.verified, true);
  assert.equal(result.resumed, false);
  assert.deepEqual(seen.assets, [result.asset]);
  assert.equal(upload.state, 'done');
  assert.ok(server.source(result.asset).equals(bytes));
  const last = seen.progress.at(-1);
  assert.deepEqual(last, { sentBytes: bytes.length, durableBytes: bytes.length, totalBytes: bytes.length });
  assert.deepEqual(await upload.start(), result, 'asked again, it answers the same');
});

test('an empty file and one of a single part are files too', async () => {
  for (const bytes of [Buffer.alloc(0), bytesOf(1000)]) {
    const result = await new Upload(fileOf(bytes), options()).start();
    assert.equal(result.sha256, sha256(bytes));
    assert.ok(server.source(result.asset).equals(bytes));
  }
});

test('what was finished is not remembered', async () => {
  const store = mapStore();
  await new Upload(fileOf(bytesOf(1000)), options({ store })).start();
  assert.equal(store.map.size, 0);
});
