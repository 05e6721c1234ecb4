// The server is killed while a chunk is on its way, and starts again when the client has noticed.
import { ask, upload } from './common.mjs';

// For a server that needs long to start.
const retryDelays = [0, 100, 200, 400, 800, 1600, ...Array(10).fill(3200)];
let patches = 0;
let killed = null;
let failures = 0;
const transfer = await upload({
  chunkSize: 500_000,
  retryDelays,
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
