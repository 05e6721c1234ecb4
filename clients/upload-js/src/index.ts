/** Uploads a video to Reelyard: in parts, in parallel, resumable, verified. */
export { Upload, type UploadOptions, type UploadProgress, type UploadResult, type UploadState } from './upload.js';
export { UploadError, type FailureKind } from './errors.js';
export { indexAtEnd } from './mp4.js';
export { localStore, type ResumeStore } from './memory.js';
export type { RetryLimits } from './retry.js';
