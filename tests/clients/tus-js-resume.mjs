// Stopped in the middle, then a new client goes on by the address.
import { upload, uploadUntil } from './common.mjs';

const address = await uploadUntil(2_000_000);
let first = null;
const transfer = await upload({
  uploadUrl: address,
  onProgress: (sent) => { first ??= sent; },
});
if (transfer.url !== address) throw new Error('another upload');
if (first < 2_000_000) throw new Error(`went on at ${first}`);
console.log(transfer.url);
