// A stream whose length nobody knows before its end.
import fs from 'node:fs';
import { PassThrough } from 'node:stream';
import { file, upload } from './common.mjs';

let deferred = false;
const transfer = await upload(
  {
    uploadLengthDeferred: true,
    chunkSize: 700_000,
    onBeforeRequest: (request) => { deferred ||= request.getHeader('Upload-Defer-Length') !== undefined; },
  },
  fs.createReadStream(file).pipe(new PassThrough()),
);
if (!deferred) throw new Error('the length was told at once');
console.log(transfer.url);
