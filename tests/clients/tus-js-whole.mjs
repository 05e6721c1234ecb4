// The whole file in one go, its first bytes with the creation.
import { upload } from './common.mjs';

const transfer = await upload({ uploadDataDuringCreation: true });
console.log(transfer.url);
