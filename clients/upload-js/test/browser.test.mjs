// The client in Debian's Chromium, from a page of another origin: a real MP4, a reload in the middle, a lost network.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gate, PART_BYTES, sha256 } from '../support/files.mjs';
import { Proxy } from '../support/proxy.mjs';
import { Server } from '../support/server.mjs';

// A busy two-core machine runs other tests meanwhile.
const STEP_MS = 60_000;
const here = fileURLToPath(new URL('..', import.meta.url));
const driver = fileURLToPath(new URL('../../../tests/browser/chromium.mjs', import.meta.url));
const sample = fileURLToPath(new URL('../../../fixtures/bbb-720p-20s.mp4', import.meta.url));
const skip = !fs.existsSync(path.join(path.dirname(driver), 'node_modules')) && 'no browser driver: run scripts/setup test';

let server;
let pages;
let film;
before(async () => {
  if (skip) return;
  server = await Server.start();
  // The sample six times, its index at the end, as cameras write it.
  film = path.join(server.folder, 'film.mp4');
  execFileSync('ffmpeg', ['-loglevel', 'error', '-stream_loop', '5', '-i', sample, '-c', 'copy', '-movflags', '0', film]);
  pages = http.createServer((request, response) => {
    const name = new URL(request.url, 'http://page').pathname;
    if (name === '/') return response.writeHead(200, { 'content-type': 'text/html' }).end(fs.readFileSync(path.join(here, 'support/page.html')));
    const script = /^\/dist\/([a-z0-9-]+\.js)$/.exec(name);
    if (!script) return response.writeHead(404).end();
    response.writeHead(200, { 'content-type': 'text/javascript' }).end(fs.readFileSync(path.join(here, 'dist', script[1])));
  }).listen(0, '127.0.0.1');
  await once(pages, 'listening');
});
after(async () => {
  pages?.close();
  pages?.closeAllConnections();
  await server?.stop();
});

const address = (endpoint) => {
  const told = { endpoint, token: server.key, partBytes: PART_BYTES };
  return `http://127.0.0.1:${pages.address().port}/#${encodeURIComponent(JSON.stringify(told))}`;
};

test('a page is loaded again in the middle of an upload, and its person chooses the file again', { skip }, async () => {
  const { withChromium } = await import(driver);
  const bytes = fs.readFileSync(film);
  const lastPart = Math.ceil(bytes.length / PART_BYTES);
  assert.ok(lastPart >= 4, 'enough parts to stop among them');
  const reload = gate();
  // The third part and those after it wait until the page is gone.
  const proxy = await Proxy.start(server, (request, count) => (request.method === 'PUT' && count >= 2 ? { hold: reload.promise } : undefined));
  try {
    await withChromium({ width: 800, height: 600 }, async (browser) => {
      browser.setDefaultTimeout(STEP_MS);
      const page = await browser.newPage();
      const errors = [];
      page.on('pageerror', (error) => errors.push(String(error)));
      await page.goto(address(proxy.endpoint));
      await page.setInputFiles('#file', film);
      await page.evaluate(() => globalThis.begin());
      await page.waitForFunction(() => globalThis.transfer.seen.progress.at(-1)?.durableBytes > 0);
      const uploadId = await page.evaluate(() => globalThis.transfer.upload.uploadId);
      await page.reload();
      reload.open();
      const stored = proxy.parts.filter((part) => part.status === 204).map((part) => part.number);
      const sent = proxy.parts.length;
      assert.equal(proxy.parts[0].number, lastPart, 'the index at the end went first');

      await page.setInputFiles('#file', film);
      const result = await page.evaluate(() => {
        globalThis.begin();
        return globalThis.transfer.result;
      });
      assert.equal(result.resumed, true);
      assert.equal(result.uploadId, uploadId);
      assert.equal(result.verified, true);
      assert.equal(result.sha256, sha256(bytes));
      assert.ok(server.source(result.asset).equals(bytes));
      const again = proxy.parts.slice(sent).map((part) => part.number).filter((number) => stored.includes(number));
      assert.deepEqual(again, [], 'nothing that was durable is sent again');
      assert.ok(proxy.parts.every((part) => part.headers['content-digest']), 'every part has its digest');
      assert.deepEqual(await page.evaluate(() => Object.keys(localStorage)), []);
      const progress = await page.evaluate(() => globalThis.transfer.seen.progress);
      assert.ok(progress.some(({ sentBytes, durableBytes }) => sentBytes > durableBytes), 'it moves within a part');
      assert.deepEqual(errors, []);
    });
  } finally {
    reload.open();
    proxy.stop();
  }
});

test('a device without a network waits for it and goes on by itself', { skip }, async () => {
  const { withChromium } = await import(driver);
  const bytes = fs.readFileSync(film);
  const proxy = await Proxy.start(server);
  try {
    await withChromium({ width: 800, height: 600 }, async (browser) => {
      browser.setDefaultTimeout(STEP_MS);
      const page = await browser.newPage();
      await page.goto(address(proxy.endpoint));
      await page.setInputFiles('#file', film);
      await browser.setOffline(true);
      await page.evaluate(() => globalThis.begin());
      // Longer than any pause would be: it does not try in vain.
      await page.waitForTimeout(1000);
      assert.equal(proxy.requests.length, 0);
      await browser.setOffline(false);
      const result = await page.evaluate(() => globalThis.transfer.result);
      assert.equal(result.sha256, sha256(bytes));
    });
  } finally {
    proxy.stop();
  }
});
