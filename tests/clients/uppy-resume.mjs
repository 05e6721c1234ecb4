// Uppy, paused in the middle and resumed.
import { finished, uppy } from './uppy-common.mjs';

const methods = [];
let paused = false;
const uploads = uppy({
  chunkSize: 500_000,
  onBeforeRequest: (request) => { methods.push(request.getMethod()); },
  // Between two chunks, when nothing is under way. A request that tus-js-client prepares at that moment is sent all the
  // same, comes beside those of the resumed upload, and each stops the other.
  onChunkComplete: () => {
    if (paused) return;
    paused = true;
    uploads.pauseAll();
    setImmediate(() => uploads.resumeAll());
  },
});
const address = await finished(uploads);
if (!methods.includes('HEAD')) throw new Error(`it did not ask where to go on: ${methods}`);
if (methods.filter((method) => method === 'POST').length !== 1) throw new Error('it began anew');
console.log(address);
