// Uppy with its tus plug-in: `node uppy-whole.mjs ENDPOINT KEY FILE` prints the address of the upload.
import { finished, uppy } from './uppy-common.mjs';

console.log(await finished(uppy({})));
