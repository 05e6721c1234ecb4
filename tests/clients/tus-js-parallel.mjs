// Four pieces at once, each in chunks, and the server joins them (concatenation).
import { upload } from './common.mjs';

let pieces = 0;
const transfer = await upload({
  parallelUploads: 4,
  chunkSize: 700_000,
  onBeforeRequest: (request) => { pieces += request.getHeader('Upload-Concat') === 'partial' && request.getMethod() === 'POST'; },
});
if (pieces !== 4) throw new Error(`${pieces} pieces`);
console.log(transfer.url);
