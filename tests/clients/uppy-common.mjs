// What the scripts of Uppy share. In Node its tus client takes a buffer where it takes a blob in a browser.
import fs from 'node:fs';
import Uppy from '@uppy/core';
import Tus from '@uppy/tus';

const [endpoint, key, file] = process.argv.slice(2);

export function uppy(options) {
  return new Uppy().use(Tus, { endpoint, headers: { Authorization: `Bearer ${key}` }, ...options });
}

/** Uploads the file; its address. */
export async function finished(uploads) {
  const data = fs.readFileSync(file);
  uploads.addFile({ name: 'clip.mp4', type: 'video/mp4', data: Object.assign(data, { size: data.length }) });
  const { successful, failed } = await uploads.upload();
  if (successful.length !== 1) throw failed[0]?.error ?? new Error('nothing was uploaded');
  return successful[0].uploadURL;
}
