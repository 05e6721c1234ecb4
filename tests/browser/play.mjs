// Plays a publication in Debian's Chromium with a player that other people wrote, switches the rung on the way, and prints
// one JSON object of what was seen. Exit status: 0 it played without an error, 1 it did not, 2 the harness itself failed.
//
//   node play.mjs --player hls|dash|shaka --url URL [--seconds 10] [--screenshot FILE]
//
// The page comes from a server of its own on 127.0.0.1, so every media request crosses origins, as in an embedding page.
import http from 'node:http';
import fs from 'node:fs';
import path from 'node:path';
import {parseArgs} from 'node:util';
import {fileURLToPath} from 'node:url';
import {withChromium} from './chromium.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const {values: options} = parseArgs({
  options: {
    player: {type: 'string'},
    url: {type: 'string'},
    seconds: {type: 'string', default: '10'},
    screenshot: {type: 'string'},
  },
});
if (!options.player || !options.url) {
  console.error('usage: node play.mjs --player hls|dash|shaka --url URL [--seconds 10] [--screenshot FILE]');
  process.exit(2);
}
// Beside the time of the film itself: a busy machine starts it late, and lets it stand still on the way.
const PATIENCE_MS = 170_000;

// What a page is given: the page, our script, and the three players as their packages ship them.
const files = {
  '/': ['page.html', 'text/html'],
  '/page.js': ['page.js', 'text/javascript'],
  '/hls.js': ['node_modules/hls.js/dist/hls.min.js', 'text/javascript'],
  '/dash.js': ['node_modules/dashjs/dist/modern/umd/dash.all.min.js', 'text/javascript'],
  '/shaka.js': ['node_modules/shaka-player/dist/shaka-player.compiled.js', 'text/javascript'],
};
const server = http.createServer((request, response) => {
  const name = new URL(request.url, 'http://page').pathname;
  const entry = files[name];
  if (name === '/favicon.ico') return response.writeHead(204).end();
  if (!entry) return response.writeHead(404).end();
  response.writeHead(200, {'content-type': entry[1]});
  fs.createReadStream(path.join(here, entry[0])).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

try {
  await withChromium({width: 1280, height: 720}, async (browser) => {
    const page = await browser.newPage();
    const consoleErrors = [];
    const failedRequests = [];
    page.on('console', (message) => {
      if (message.type() === 'error') consoleErrors.push(message.text());
    });
    page.on('pageerror', (error) => consoleErrors.push(String(error)));
    page.on('response', (answer) => {
      if (answer.status() >= 400) failedRequests.push(`${answer.status()} ${answer.url()}`);
    });
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.addScriptTag({url: `/${options.player}.js`});
    const seconds = Number(options.seconds);
    const report = await page.evaluate(
      (request) => globalThis.playAndReport(request),
      {player: options.player, url: options.url, seconds, timeoutMs: seconds * 1000 + PATIENCE_MS},
    );
    if (options.screenshot) await page.screenshot({path: options.screenshot});
    report.consoleErrors = consoleErrors;
    report.failedRequests = failedRequests;
    const problems = [...report.errors, ...consoleErrors, ...failedRequests];
    if (report.playedSeconds < seconds) problems.push(`only ${report.playedSeconds.toFixed(1)} s of ${seconds} s were played`);
    if (report.decodedFrames < seconds * 10) problems.push(`only ${report.decodedFrames} pictures were decoded`);
    if (report.sizes.length < 2 && report.rungs > 1) problems.push(`the rung never changed: ${JSON.stringify(report.sizes)}`);
    if (report.audioBytes === 0) problems.push('no sound was decoded');
    report.problems = problems;
    console.log(JSON.stringify(report, null, 2));
    process.exitCode = problems.length === 0 ? 0 : 1;
  });
} catch (error) {
  console.error(error);
  process.exitCode = 2;
} finally {
  server.close();
}
