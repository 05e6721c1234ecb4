// Debian's Chromium with a profile of its own that is gone afterwards, quiet towards the outside.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {chromium} from 'playwright-core';

/** Calls `use(context)` with a browser of the given window size, and closes it whatever happens. */
export async function withChromium({width, height}, use) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'reelyard-chromium-'));
  let context;
  try {
    context = await chromium.launchPersistentContext(profile, {
      executablePath: process.env.REELYARD_CHROMIUM ?? '/usr/bin/chromium',
      headless: true,
      viewport: {width, height},
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
        '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required'],
    });
    await use(context);
  } finally {
    await context?.close();
    fs.rmSync(profile, {recursive: true, force: true});
  }
}
