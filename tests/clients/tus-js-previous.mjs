// Three pieces at once, stopped in the middle; a client that was started anew finds them in its storage and goes on.
import { file, make, tus, upload, version } from './common.mjs';

const { FileUrlStorage } = version === '4' ? tus : await import(`tus-js-client-${version}/node/FileUrlStorage`);
const options = { parallelUploads: 3, chunkSize: 300_000, urlStorage: new FileUrlStorage(`${file}.json`) };
await new Promise((resolve, reject) => {
  const onProgress = (sent) => {
    if (sent > 2_000_000) transfer.abort().then(resolve);
  };
  const transfer = make({ ...options, onProgress, onError: reject });
  transfer.start();
});
const [previous] = await make(options).findPreviousUploads();
if (previous.parallelUploadUrls.length !== 3) throw new Error('the pieces are not in the storage');
let created = 0;
const onBeforeRequest = (request) => { created += request.getMethod() === 'POST'; };
const transfer = await upload({ ...options, onBeforeRequest }, undefined, previous);
if (created !== 1) throw new Error(`${created} uploads were made where only the whole was missing`);
console.log(transfer.url);
