// The operator's page: videos, jobs and failures, and a form that uploads. Speaks to the public API only.
//
// Everything from the server goes into the page as text, never as HTML.

const byId = (id) => document.getElementById(id);
const setup = JSON.parse(byId("setup").textContent);
const KEY_STORE = "reelyard-key";
// The event stream says when to look; this is the longest between two looks, and the shortest.
const REFRESH_MS = 15000;
const SETTLE_MS = 400;
const OPEN_JOBS = "ready,leased,retry_wait,dead";
// Small enough that a cut connection loses little, large enough that requests do not dominate.
const CHUNK_BYTES = 32 * 1024 * 1024;

let key = sessionStorage.getItem(KEY_STORE) ?? "";
let pages = 1;

async function api(path, options = {}) {
  const headers = { ...(options.headers ?? {}) };
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) {
    askForKey("This key is not known here.");
    throw new Error("no key");
  }
  if (answer.status === 204) return null;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? body.title ?? `status ${answer.status}`);
  return body;
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function when(text) {
  const date = new Date(text);
  return make("time", { dateTime: text, title: date.toLocaleString() }, date.toLocaleString([], { dateStyle: "short", timeStyle: "short" }));
}

function bar(fraction, label) {
  const element = make("progress", { max: 1, value: fraction });
  element.setAttribute("aria-label", `${label}: ${Math.floor(fraction * 100)} %`);
  return element;
}

function action(label, path, method, question) {
  const button = make("button", { type: "button" }, label);
  button.addEventListener("click", async () => {
    if (question && !confirm(question)) return;
    button.disabled = true;
    try {
      await api(path, { method });
    } catch (error) {
      alert(error.message);
    }
    refreshSoon();
  });
  return button;
}

const STATE_NAMES = { leased: "at work", retry_wait: "will be tried again", dead: "given up" };
const TONES = { ready: "good", done: "good", failed: "bad", dead: "bad" };

function assetRow(asset) {
  const title = make("td", {});
  if (asset.playback) title.append(make("a", { href: asset.playback.watch }, asset.title));
  else title.append(asset.title);
  if (asset.failure) title.append(make("div", { className: "bad" }, asset.failure.message), make("div", { className: "quiet" }, `${asset.failure.code}: ${asset.failure.detail}`));
  for (const warning of asset.warnings) title.append(make("div", { className: "quiet" }, warning));
  const working = asset.state === "waiting" || asset.state === "processing";
  const actions = make("td", { className: "tight" });
  if (working) actions.append(action("Cancel", `/v1/assets/${asset.id}/cancel`, "POST"));
  if (asset.state === "failed" || asset.state === "cancelled") actions.append(action("Retry", `/v1/assets/${asset.id}/retry`, "POST"));
  actions.append(" ", action("Delete", `/v1/assets/${asset.id}`, "DELETE", `Delete “${asset.title}” and all its files?`));
  return make("tr", {},
    title,
    make("td", { className: `tight ${TONES[asset.state] ?? ""}` }, asset.state),
    make("td", { className: "tight" }, working ? bar(asset.progress.fraction, asset.title) : ""),
    make("td", { className: "tight" }, when(asset.created_at)),
    actions);
}

function jobRow(job, titles) {
  const reason = make("td", {});
  if (job.failure) {
    reason.append(make("div", {}, `${job.failure.code}: ${job.failure.detail}`));
    if (job.failure.stderr_tail) reason.append(make("details", {}, make("summary", {}, "Last words"), make("code", {}, job.failure.stderr_tail)));
  }
  if (job.not_before) reason.append(make("div", { className: "quiet" }, "next try ", when(job.not_before)));
  const actions = make("td", { className: "tight" });
  if (job.state === "dead" || job.state === "retry_wait") actions.append(action("Retry", `/v1/jobs/${job.id}/retry`, "POST"));
  if (job.state !== "dead") actions.append(" ", action("Cancel", `/v1/jobs/${job.id}/cancel`, "POST"));
  return make("tr", {},
    make("td", { className: "tight" }, job.kind === "encode" ? `${job.kind} ${job.ordinal}` : job.kind),
    make("td", { className: `tight ${TONES[job.state] ?? ""}` }, STATE_NAMES[job.state] ?? job.state),
    make("td", {}, titles.get(job.asset) ?? job.asset),
    make("td", { className: "tight" }, String(job.attempt)),
    make("td", { className: "tight" }, job.state === "leased" ? bar(job.progress, job.kind) : ""),
    reason,
    actions);
}

async function refresh() {
  const rows = [];
  const titles = new Map();
  let cursor = "";
  for (let page = 0; page < pages; page += 1) {
    const answer = await api(`/v1/assets?limit=25${cursor}`);
    rows.push(...answer.items.map(assetRow));
    for (const asset of answer.items) titles.set(asset.id, asset.title);
    cursor = answer.next_cursor ? `&cursor=${encodeURIComponent(answer.next_cursor)}` : "";
    if (!cursor) break;
  }
  const jobs = (await api(`/v1/jobs?limit=50&state=${OPEN_JOBS}`)).items;
  // A row that somebody is about to press must not move away under the pointer for nothing.
  const focused = document.activeElement?.closest("tbody");
  if (!focused) {
    byId("assets").replaceChildren(...rows);
    byId("jobs").replaceChildren(...jobs.map((job) => jobRow(job, titles)));
  }
  byId("no-assets").hidden = rows.length > 0;
  byId("more").hidden = !cursor;
  byId("no-jobs").hidden = jobs.length > 0;
}

let timer = 0;
let running = false;
function refreshSoon(delay = SETTLE_MS) {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    if (running) return refreshSoon();
    running = true;
    try {
      document.activeElement?.closest("tbody") && document.activeElement.blur();
      await refresh();
      byId("connection").textContent = "";
    } catch (error) {
      byId("connection").textContent = key || !setup.needs_key ? `The server does not answer: ${error.message}` : "";
    }
    running = false;
    clearTimeout(timer);
    timer = setTimeout(() => refreshSoon(0), REFRESH_MS);
  }, delay);
}

// Server-sent events by fetch: EventSource cannot send the key.
async function follow() {
  for (;;) {
    try {
      const answer = await fetch("/v1/events", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
      if (!answer.ok) throw new Error(String(answer.status));
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        if (value.includes("data:")) refreshSoon(timer ? SETTLE_MS : 0);
      }
    } catch {
      // The timer goes on without the stream.
    }
    await new Promise((resume) => setTimeout(resume, 3000));
  }
}

function wireUpload() {
  const form = byId("upload-form");
  const say = (text) => { byId("upload-text").textContent = text; };
  if (!globalThis.tus) {
    byId("send").disabled = true;
    say("The page's upload library was not built (scripts/setup player, then cargo build). Use reelyard upload FILE.");
    return;
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const file = byId("file").files[0];
    if (!file) return;
    const progress = byId("upload-progress");
    const stop = byId("stop");
    const began = performance.now();
    const upload = new tus.Upload(file, {
      endpoint: "/uploads",
      chunkSize: CHUNK_BYTES,
      retryDelays: [0, 1000, 3000, 5000, 10000, 20000],
      metadata: { filename: file.name, filetype: file.type, preset: byId("preset").value },
      headers: key ? { Authorization: `Bearer ${key}` } : {},
      removeFingerprintOnSuccess: true,
      onProgress(sent, total) {
        progress.value = sent / total;
        const rate = sent / 1048576 / ((performance.now() - began) / 1000);
        say(`${file.name}: ${Math.floor((sent / total) * 100)} %, ${rate.toFixed(1)} MiB/s`);
      },
      onError(error) {
        say(`The upload stopped: ${error.message}. Choose the same file again to go on where it stopped.`);
        done();
      },
      onSuccess() {
        say(`${file.name} has arrived.`);
        form.reset();
        done();
        refreshSoon();
      },
    });
    const done = () => { byId("send").disabled = false; progress.hidden = true; stop.hidden = true; };
    let paused = false;
    stop.onclick = async () => {
      paused = !paused;
      stop.textContent = paused ? "Go on" : "Pause";
      if (paused) await upload.abort();
      else upload.start();
    };
    byId("send").disabled = true;
    progress.hidden = false;
    progress.value = 0;
    stop.hidden = false;
    stop.textContent = "Pause";
    upload.findPreviousUploads().then((previous) => {
      if (previous.length) upload.resumeFromPreviousUpload(previous[0]);
      upload.start();
    });
  });
}

function askForKey(answer) {
  sessionStorage.removeItem(KEY_STORE);
  key = "";
  byId("key-section").hidden = false;
  byId("work").hidden = true;
  byId("key-answer").textContent = answer;
}

let wired = false;
async function begin() {
  let presets;
  try {
    presets = await api("/v1/presets");
  } catch (error) {
    if (error.message !== "no key") byId("connection").textContent = `The server does not answer: ${error.message}`;
    return;
  }
  byId("key-section").hidden = true;
  byId("work").hidden = false;
  byId("preset").replaceChildren(...presets.items.map((preset) => new Option(preset.name, preset.name, false, preset.name === presets.default)));
  refreshSoon(0);
  if (wired) return;
  wired = true;
  byId("more").addEventListener("click", () => { pages += 1; refreshSoon(0); });
  wireUpload();
  follow();
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  sessionStorage.setItem(KEY_STORE, key);
  begin();
});
if (setup.needs_key && !key) askForKey("");
else begin();
