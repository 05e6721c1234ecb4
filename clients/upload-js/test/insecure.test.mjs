// Where WebCrypto is missing, as on a page that came by plain HTTP from elsewhere: it works, and says what it did not check.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Upload } from '../dist/index.js';
import { bytesOf, fileOf, mapStore, MIB, PART_BYTES, sha256 } from '../support/files.mjs';
import { Proxy } from '../support/proxy.mjs';
import { Server } from '../support/server.mjs';

let server;
before(async () => {
  server = await Server.start();
  Object.defineProperty(globalThis, 'crypto', { value: undefined });
});
after(() => server.stop());

test('without WebCrypto parts are sent without digests, and the result is not called verified', async () => {
  const bytes = bytesOf(12 * MIB, 'insecure');
  const proxy = await Proxy.start(server);
  try {
    const upload = new Upload(fileOf(bytes), { endpoint: proxy.endpoint, token: server.key, partBytes: PART_BYTES, store: mapStore() });
    const result = await upload.start();
    assert.equal(result.verified, false);
    assert.equal(result.sha256, sha256(bytes));
    assert.ok(server.source(result.asset).equals(bytes));
    assert.ok(proxy.parts.every((part) => part.headers['content-digest'] === undefined));
  } finally {
    proxy.stop();
  }
});
