// Stopped in the middle, then a new client goes on by the address.
import { byteLength, upload } from './common.mjs';

const address = await new Promise((resolve, reject) => {
  upload({
    chunkSize: 1_000_000,
    begun: (transfer) => {
      transfer.options.onChunkComplete = async (_, accepted) => {
        if (accepted < 2_000_000) return;
        await transfer.abort();
        resolve(transfer.url);
      };
      transfer.start();
    },
  }).catch(reject);
});
let first = null;
const transfer = await upload({
  uploadUrl: address,
  chunkSize: 1_000_000,
  onProgress: (sent) => { first ??= sent; },
});
if (transfer.url !== address) throw new Error('another upload');
if (first < 2_000_000 || first > byteLength) throw new Error(`went on at ${first}`);
console.log(transfer.url);
