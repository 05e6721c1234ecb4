// What the tus-js-client scripts share: `node SCRIPT ENDPOINT KEY FILE` prints the address of a finished upload.
import fs from 'node:fs';
import tus from 'tus-js-client';

export const [endpoint, key, file] = process.argv.slice(2);
export const byteLength = fs.statSync(file).size;

export function upload(options) {
  return new Promise((resolve, reject) => {
    const transfer = new tus.Upload(fs.createReadStream(file), {
      endpoint,
      uploadSize: byteLength,
      headers: { Authorization: `Bearer ${key}` },
      metadata: { filename: 'clip.mp4', filetype: 'video/mp4', empty: '' },
      retryDelays: [0, 100, 500],
      ...options,
      onError: reject,
      onSuccess: () => resolve(transfer),
    });
    options.begun?.(transfer);
    if (!options.begun) transfer.start();
  });
}

export { tus };
