// Uses the server's own pages in Debian's Chromium as a person would: uploads a video with the form, opens its watch page
// while it is being processed, waits until the page plays by itself, changes the quality, looks at a preview picture.
// Prints one JSON object of what was seen. Exit status: 0 all of it worked, 1 it did not, 2 the harness itself failed.
//
//   node pages.mjs --server URL --file FILE [--key KEY] [--preset NAME] [--screenshots FOLDER]
//
// The key is an operator's: the queue of encodes is paused until the page that shows the progress was seen.
import path from 'node:path';
import {parseArgs} from 'node:util';
import {withChromium} from './chromium.mjs';

const {values: options} = parseArgs({
  options: {
    server: {type: 'string'},
    file: {type: 'string'},
    key: {type: 'string'},
    preset: {type: 'string', default: 'web-h264'},
    screenshots: {type: 'string'},
  },
});
if (!options.server || !options.file) {
  console.error('usage: node pages.mjs --server URL --file FILE [--key KEY] [--preset NAME] [--screenshots FOLDER]');
  process.exit(2);
}
// A busy two-core machine encodes the sample in a minute or two.
const PROCESSING_MS = 240_000;
const STEP_MS = 60_000;
// Of a busy machine, as in page.js: the film stood still for a moment. Not counted, unless fatal.
const STALLS = ['bufferStalledError', 'bufferNudgeOnStall'];

const problems = [];
function listen(page) {
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => problems.push(`page: ${error}`));
  page.on('response', (answer) => {
    if (answer.status() >= 400) problems.push(`${answer.status()} ${answer.url()}`);
  });
}
async function encodes(verb) {
  const headers = {'content-type': 'application/json'};
  if (options.key) headers.authorization = `Bearer ${options.key}`;
  const body = JSON.stringify({reason: 'a test looks at a video that is being made ready'});
  const answer = await fetch(`${options.server}/v1/queues/encode/${verb}`, {method: 'POST', headers, body});
  if (!answer.ok) throw new Error(`${verb} of the queue: ${answer.status} ${await answer.text()}`);
}
async function picture(page, name) {
  if (options.screenshots) await page.screenshot({path: path.join(options.screenshots, `${name}.png`)});
}

let isPaused = false;
try {
  await withChromium({width: 1280, height: 800}, async (browser) => {
    browser.setDefaultTimeout(STEP_MS);
    const operator = await browser.newPage();
    listen(operator);
    await operator.goto(`${options.server}/`);
    if (options.key) {
      await operator.fill('#key', options.key);
      await operator.click('#key-form button');
    }
    await operator.waitForSelector('#work:not([hidden])');
    await operator.selectOption('#preset', options.preset);
    await operator.setInputFiles('#file', options.file);
    await encodes('pause');
    isPaused = true;
    await operator.click('#send');
    await operator.waitForFunction(() => document.getElementById('upload-text').textContent.includes('has arrived'));
    const link = await operator.waitForSelector('#assets a', {timeout: STEP_MS});
    const address = await link.evaluate((anchor) => anchor.href);
    await picture(operator, 'operator');

    const watch = await browser.newPage();
    listen(watch);
    await watch.goto(address);
    const sawProgress = await watch.$eval('#notice', (notice) => !notice.hidden);
    await picture(watch, 'processing');
    await encodes('resume');
    isPaused = false;
    await watch.waitForSelector('#stage:not([hidden])', {timeout: PROCESSING_MS});
    await watch.waitForFunction(() => document.getElementById('video').readyState >= 2);
    await picture(watch, 'poster');
    await watch.click('#play');
    await watch.waitForFunction(() => document.getElementById('video').currentTime > 3);
    const menu = await watch.$$eval('#quality option', (entries) => entries.map((entry) => entry.textContent));
    const heightBefore = await watch.$eval('#video', (video) => video.videoHeight);
    await watch.selectOption('#quality', '0');
    await watch.waitForFunction(() => document.getElementById('video').videoHeight === 240);
    await watch.hover('#seek', {position: {x: 300, y: 8}});
    await watch.waitForSelector('#preview:not([hidden])');
    await picture(watch, 'playing');
    // The middle, by its key.
    await watch.keyboard.press('5');
    await watch.waitForFunction(() => {
      const video = document.getElementById('video');
      return video.currentTime > video.duration / 2 + 1;
    });
    await watch.keyboard.press(' ');
    const seen = await watch.evaluate(() => {
      const video = document.getElementById('video');
      const {engine, errors, levels} = globalThis.reelyard.player;
      return {
        engine, errors, levels,
        paused: video.paused,
        frames: video.getVideoPlaybackQuality().totalVideoFrames,
        audioBytes: video.webkitAudioDecodedByteCount,
        poster: video.poster,
      };
    });
    await operator.waitForFunction(() => document.querySelector('#assets .good')?.textContent === 'ready');
    await picture(operator, 'operator-ready');
    const isStall = (error) => !error.fatal && STALLS.includes(error.details);
    for (const error of seen.errors) if (!isStall(error)) problems.push(`player: ${JSON.stringify(error)}`);
    if (seen.engine !== 'hls.js') problems.push(`the page played with ${seen.engine}`);
    if (seen.audioBytes === 0) problems.push('no sound was decoded');
    if (seen.frames < 50) problems.push(`only ${seen.frames} pictures were decoded`);
    if (!seen.paused) problems.push('the space key did not pause');
    if (!seen.poster.includes('poster.jpg')) problems.push('there was no poster');
    console.log(JSON.stringify({...seen, address, sawProgress, menu, heightBefore, problems}, null, 2));
    process.exitCode = problems.length === 0 ? 0 : 1;
  });
} catch (error) {
  console.error(problems.join('\n'));
  console.error(error);
  process.exitCode = 2;
} finally {
  // As it was found, for a server that lives on.
  if (isPaused) await encodes('resume').catch((error) => console.error(error));
}
