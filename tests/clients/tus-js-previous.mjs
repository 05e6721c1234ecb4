// Three pieces at once, stopped in the middle; a client that was started anew finds them in its storage and goes on.
import { file, make, tus, upload, version } from './common.mjs';

const PIECES = 3;
const CHUNKS_BEFORE_STOP = 2;
const { FileUrlStorage } = version === '4' ? tus : await import(`tus-js-client-${version}/node/FileUrlStorage`);
const urlStorage = new FileUrlStorage(`${file}.json`);
const options = { parallelUploads: PIECES, chunkSize: 300_000, urlStorage };

// The client does not wait for its storage, so it could be stopped before anything is there.
const stored = new Promise((resolve, reject) => {
  const addUpload = urlStorage.addUpload.bind(urlStorage);
  urlStorage.addUpload = (...upload) => {
    const added = addUpload(...upload);
    added.then(resolve, reject);
    return added;
  };
});
// Stopped when each piece waits with its next chunk and nothing is under way: a request that is being prepared at that
// moment is sent all the same.
await new Promise((resolve, reject) => {
  const chunks = new Map();
  let waiting = 0;
  const onBeforeRequest = (request) => {
    if (request.getMethod() !== 'PATCH') return undefined;
    const piece = request.getURL();
    chunks.set(piece, (chunks.get(piece) ?? 0) + 1);
    if (chunks.get(piece) <= CHUNKS_BEFORE_STOP) return undefined;
    waiting += 1;
    if (waiting === PIECES) stored.then(() => transfer.abort()).then(resolve, reject);
    return new Promise(() => {});
  };
  const transfer = make({ ...options, onBeforeRequest, onError: reject });
  transfer.start();
});
const [previous] = await make(options).findPreviousUploads();
if (previous.parallelUploadUrls.length !== PIECES) throw new Error('the pieces are not in the storage');
let created = 0;
const onBeforeRequest = (request) => { created += request.getMethod() === 'POST'; };
const transfer = await upload({ ...options, onBeforeRequest }, undefined, previous);
if (created !== 1) throw new Error(`${created} uploads were made where only the whole was missing`);
console.log(transfer.url);
