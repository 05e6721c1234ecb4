// The answer to the request that joins the pieces is lost, and the client asks again.
import { make } from './common.mjs';

let pieces = 0;
let lost = 0;
const transfer = await new Promise((resolve, reject) => {
  const creates = (request, what) =>
    request.getMethod() === 'POST' && request.getHeader('Upload-Concat').startsWith(what);
  const transfer = make({
    parallelUploads: 3,
    onBeforeRequest: (request) => { pieces += creates(request, 'partial'); },
    onAfterResponse: (request) => {
      if (creates(request, 'final') && lost++ === 0) throw new Error('lost');
    },
    // Version 5 tries again by itself.
    onError: (error) => (lost === 1 ? transfer.start() : reject(error)),
    onSuccess: () => resolve(transfer),
  });
  transfer.start();
});
if (lost !== 2) throw new Error(`${lost} requests to join the pieces`);
if (pieces !== 3) throw new Error(`${pieces} pieces were sent`);
console.log(transfer.url);
