// Uppy, paused in the middle and resumed.
import { finished, uppy } from './uppy-common.mjs';

const methods = [];
const uploads = uppy({
  chunkSize: 500_000,
  onBeforeRequest: (request) => { methods.push(request.getMethod()); },
});
uploads.once('upload-progress', () => {
  uploads.pauseAll();
  setImmediate(() => uploads.resumeAll());
});
const address = await finished(uploads);
if (!methods.includes('HEAD')) throw new Error(`it did not ask where to go on: ${methods}`);
if (methods.filter((method) => method === 'POST').length !== 1) throw new Error('it began anew');
console.log(address);
