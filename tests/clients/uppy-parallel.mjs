// Uppy, three pieces at once.
import { finished, uppy } from './uppy-common.mjs';

console.log(await finished(uppy({ parallelUploads: 3 })));
