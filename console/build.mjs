// Puts the libraries that the pages load into dist/, each also compressed: `cargo build` embeds what lies there.
// The pages themselves (pages/) are written by hand for browsers and need no build.
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants, gzipSync } from "node:zlib";

const files = {
  // The whole hls.js, not the light one: sound is a rendition of its own, which the light one leaves out.
  "hls.mjs": "node_modules/hls.js/dist/hls.min.mjs",
  "hls.worker.js": "node_modules/hls.js/dist/hls.worker.js",
  "tus.js": "node_modules/tus-js-client/dist/tus.min.js",
};
const licences = { "hls.js": "node_modules/hls.js", "tus-js-client": "node_modules/tus-js-client" };

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
for (const [name, from] of Object.entries(files)) {
  // Source maps are not shipped; a pointer to one would only make the browser's tools complain.
  const text = readFileSync(from, "utf8").replace(/\n?\/\/# sourceMappingURL=.*\s*$/, "\n");
  writeFileSync(`dist/${name}`, text);
  writeFileSync(`dist/${name}.gz`, gzipSync(text, { level: constants.Z_BEST_COMPRESSION }));
}
for (const [name, folder] of Object.entries(licences)) {
  copyFileSync(`${folder}/LICENSE`, `dist/LICENSE-${name}.txt`);
}
console.log(`console: ${Object.keys(files).join(", ")} are in console/dist`);
