// Chunk by chunk, with the method override that old proxies need.
import { upload } from './common.mjs';

let chunks = 0;
const transfer = await upload({
  chunkSize: 700_000,
  overridePatchMethod: true,
  onChunkComplete: () => { chunks += 1; },
});
if (chunks < 7) throw new Error(`${chunks} chunks`);
console.log(transfer.url);
