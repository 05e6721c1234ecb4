/**
 * Where the index of an MP4 or QuickTime file is, when it is at the end (ISO/IEC 14496-12 section 4.2).
 *
 * Reads the headers of top-level boxes, 16 bytes each. A file that is something else, or damaged, is simply one without
 * such an index: nothing here fails an upload.
 */

/** Files have a handful of top-level boxes before the index; one in fragments has thousands, and its index in front. */
const MAX_BOXES = 64;
const HEADER_BYTES = 16;
/** What a file of this family begins with. */
const FIRST_BOXES = new Set(['ftyp', 'moov', 'mdat', 'free', 'skip', 'wide', 'pnot', 'styp']);

/** The first byte of `moov`, if it comes after the media data; else undefined. */
export async function indexAtEnd(file: Blob): Promise<number | undefined> {
  let offset = 0;
  let afterMedia = false;
  for (let count = 0; count < MAX_BOXES && offset + 8 <= file.size; count += 1) {
    const header = new DataView(await file.slice(offset, offset + HEADER_BYTES).arrayBuffer());
    const type = String.fromCharCode(header.getUint8(4), header.getUint8(5), header.getUint8(6), header.getUint8(7));
    if (count === 0 && !FIRST_BOXES.has(type)) return undefined;
    if (type === 'moov') return afterMedia ? offset : undefined;
    if (type === 'mdat') afterMedia = true;
    let size = header.getUint32(0);
    // 1: the size follows as 64 bits. 0: the box goes to the end of the file.
    if (size === 1) {
      if (header.byteLength < HEADER_BYTES) return undefined;
      size = Number(header.getBigUint64(8));
    }
    if (size < 8) return undefined;
    offset += size;
  }
  return undefined;
}
