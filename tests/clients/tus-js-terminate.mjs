// An upload that is given up is gone; another one then works.
import { headers, upload, uploadUntil } from './common.mjs';

const given_up = await uploadUntil(500_000, true);
const answer = await fetch(given_up, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0', ...headers } });
if (answer.status !== 410) throw new Error(`HEAD of a terminated upload answers ${answer.status}`);
const transfer = await upload({ chunkSize: 2_000_000 });
console.log(transfer.url);
