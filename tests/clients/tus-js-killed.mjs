// The server is killed while a chunk is on its way, and starts again when the client has noticed.
import { ask, upload } from './common.mjs';

let patches = 0;
let killed = null;
let failures = 0;
const transfer = await upload({
  chunkSize: 500_000,
  onBeforeRequest: async (request) => {
    if (request.getMethod() !== 'PATCH') return;
    patches += 1;
    if (patches === 3) killed = ask('kill');
    if (patches > 3) await killed;
  },
  onShouldRetry: () => {
    failures += 1;
    if (failures === 1) killed.then(() => ask('start'));
    return true;
  },
});
if (failures === 0) throw new Error('the client noticed nothing');
console.log(transfer.url);
