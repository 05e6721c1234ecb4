// What the scripts of tus-js-client share: `node SCRIPT ENDPOINT KEY FILE VERSION [PROTOCOL]` uploads the file and
// prints the address of the finished upload.
import fs from 'node:fs';

export const [endpoint, key, file, version, protocol] = process.argv.slice(2);
export const headers = { Authorization: `Bearer ${key}` };
const client = await import(`tus-js-client-${version}`);
export const tus = client.default ?? client;

// In the protocol of the drafts version 4 never says that the stream of a file is at its end (`Upload-Complete: ?1`),
// and takes the upload for done; of a buffer it says so.
const defaultSource = () => (protocol ? fs.readFileSync(file) : fs.createReadStream(file));

export function make(options, source = defaultSource()) {
  return new tus.Upload(source, {
    endpoint,
    headers,
    metadata: { filename: 'clip.mp4', filetype: 'video/mp4', empty: '' },
    retryDelays: [0, 100, 200, 400, 800, 1600, 3200],
    ...(protocol ? { protocol } : {}),
    ...options,
  });
}

/** All of it, or what is left of a previous upload; the transfer when it is done. */
export function upload(options, source, previous) {
  return new Promise((resolve, reject) => {
    const transfer = make({ ...options, onError: reject, onSuccess: () => resolve(transfer) }, source);
    if (previous) transfer.resumeFromPreviousUpload(previous);
    transfer.start();
  });
}

/** Until the server has acknowledged so many bytes; then it is stopped, or given up. The address. */
export function uploadUntil(acknowledged, giveUp = false) {
  return new Promise((resolve, reject) => {
    const onChunkComplete = async (_, accepted) => {
      if (accepted < acknowledged) return;
      await transfer.abort(giveUp);
      resolve(transfer.url);
    };
    const transfer = make({ chunkSize: 500_000, onChunkComplete, onError: reject });
    transfer.start();
  });
}

/** Asks the test that runs this script for something, and waits until it is done. */
export function ask(what) {
  const done = new Promise((resolve) => process.stdin.once('data', resolve));
  console.log(what);
  return done.then(() => process.stdin.pause());
}
