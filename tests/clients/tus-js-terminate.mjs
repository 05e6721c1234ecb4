// An upload that is given up is gone; another one then works.
import { tus, upload } from './common.mjs';
import { key } from './common.mjs';

const given_up = await new Promise((resolve, reject) => {
  upload({
    chunkSize: 500_000,
    begun: (transfer) => {
      transfer.options.onChunkComplete = async () => {
        await transfer.abort(true);
        resolve(transfer.url);
      };
      transfer.start();
    },
  }).catch(reject);
});
const answer = await fetch(given_up, {
  method: 'HEAD',
  headers: { 'Tus-Resumable': '1.0.0', Authorization: `Bearer ${key}` },
});
if (answer.status !== 410) throw new Error(`HEAD of a terminated upload answers ${answer.status}`);
if (!tus.isSupported) throw new Error('the client says that it cannot work here');
const transfer = await upload({ chunkSize: 2_000_000 });
console.log(transfer.url);
