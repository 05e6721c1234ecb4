// The player: a <video>, our own controls, and hls.js. Exports startPlayer(status).
//
// Keys: space or k play/pause, arrows seek 5 s and volume, m mute, f full screen, 0 to 9 tenths of the video.

const byId = (id) => document.getElementById(id);
const IDLE_MS = 2500;
const SEEK_STEP_SECONDS = 5;
// hls.js recovers by itself from what is temporary; past this many of our own rescues the fault is not.
const MAX_RESCUES = 3;

function clock(seconds) {
  if (!Number.isFinite(seconds)) return "0:00";
  // Durations are sums of rounded segments: 19.999999 s is 20 s.
  const whole = Math.floor(seconds + 0.01);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function showMessage(text) {
  byId("message").hidden = false;
  byId("message-text").textContent = text;
}

// What tests and curious people read: window.reelyard.player.
const facts = { engine: "none", errors: [], levels: [], switches: 0 };
globalThis.reelyard = { player: facts };

export async function startPlayer(status) {
  const video = byId("video");
  if (status.playback.poster) video.poster = status.playback.poster;
  if (status.width && status.height) byId("player").style.aspectRatio = `${status.width} / ${status.height}`;
  // Sound alone needs no screen, only room for the controls.
  if (!status.width) Object.assign(byId("player").style, { aspectRatio: "auto", height: "7rem" });
  // Tall pictures must fit the window: the box gets narrower, not higher.
  if (status.height > status.width) byId("player").style.maxWidth = `calc(80vh * ${status.width} / ${status.height})`;
  wireControls(video);
  if (status.playback.sprites) wirePreview(video, status.playback.sprites).catch(() => {});
  const library = await import("/console/hls.mjs").then((module) => module.default, () => null);
  if (library?.isSupported()) {
    playWithLibrary(library, video, status.playback.hls);
  } else if (video.canPlayType("application/vnd.apple.mpegurl")) {
    facts.engine = "native";
    byId("quality").hidden = true;
    video.src = status.playback.hls;
    video.addEventListener("error", () => showMessage("The video cannot be played. The link may have expired: reload the page."));
  } else if (library) {
    showMessage("This browser can play neither HLS nor Media Source Extensions. Please use a newer one.");
  } else {
    showMessage("This server was built without the page's player, and this browser has none of its own for HLS. The operator builds it with scripts/setup player, then cargo build.");
  }
}

function playWithLibrary(Hls, video, address) {
  facts.engine = "hls.js";
  const hls = new Hls({ workerPath: "/console/hls.worker.js", backBufferLength: 60, capLevelToPlayerSize: true });
  facts.hls = hls;
  const quality = byId("quality");
  hls.on(Hls.Events.MANIFEST_PARSED, (_, data) => {
    facts.levels = data.levels.map((level) => ({ width: level.width, height: level.height, bitrate: level.bitrate }));
    // Best first in the menu; hls.js counts from the lowest.
    data.levels
      .map((level, index) => ({ level, index }))
      .reverse()
      .forEach(({ level, index }) => {
        const side = Math.min(level.width, level.height);
        quality.append(new Option(`${side}p`, String(index)));
      });
    quality.hidden = data.levels.length < 2;
  });
  quality.addEventListener("change", () => { hls.nextLevel = Number(quality.value); });
  hls.on(Hls.Events.LEVEL_SWITCHED, (_, data) => {
    facts.switches += 1;
    const level = hls.levels[data.level];
    const label = level ? `Auto (${Math.min(level.width, level.height)}p)` : "Auto";
    quality.options[0].textContent = hls.autoLevelEnabled ? label : "Auto";
  });
  let rescues = 0;
  hls.on(Hls.Events.ERROR, (_, data) => {
    facts.errors.push({ fatal: data.fatal, type: data.type, details: data.details });
    if (!data.fatal) return;
    const code = data.response?.code;
    if (code === 410 || code === 403) {
      hls.destroy();
      showMessage(code === 410 ? "The link has expired. Please ask for a new one, or reload the page." : "The link is not valid for this video.");
    } else if (rescues++ < MAX_RESCUES && data.type === Hls.ErrorTypes.MEDIA_ERROR) {
      hls.recoverMediaError();
    } else if (rescues < MAX_RESCUES && data.type === Hls.ErrorTypes.NETWORK_ERROR) {
      hls.startLoad();
    } else {
      hls.destroy();
      showMessage("The video cannot be played at the moment. Please reload the page to try again.");
    }
  });
  hls.loadSource(address);
  hls.attachMedia(video);
}

const ICONS = {
  play: "M7 4v16l13-8z",
  pause: "M6 4h4v16H6zM14 4h4v16h-4z",
  sound: "M4 9v6h4l5 4V5L8 9zM16 8a5 5 0 0 1 0 8z",
  silent: "M4 9v6h4l5 4V5L8 9zM15 9l1.4-1.4L19 10.2l2.6-2.6L23 9l-2.6 2.6L23 14.2l-1.4 1.4L19 13l-2.6 2.6L15 14.2l2.6-2.6z",
};

function wireControls(video) {
  const player = byId("player");
  const seek = byId("seek");
  const toggle = () => (video.paused ? video.play().catch(() => {}) : video.pause());
  const step = (seconds) => { video.currentTime = Math.min(Math.max(video.currentTime + seconds, 0), video.duration || 0); };
  byId("play").addEventListener("click", toggle);
  video.addEventListener("click", toggle);
  for (const event of ["play", "pause", "ended"]) {
    video.addEventListener(event, () => {
      byId("play-icon").setAttribute("d", video.paused ? ICONS.play : ICONS.pause);
      byId("play").setAttribute("aria-label", video.paused ? "Play" : "Pause");
      wake();
    });
  }
  const showTime = () => {
    seek.max = String(video.duration || 0);
    if (!seek.matches(":active")) seek.value = String(video.currentTime);
    const text = `${clock(video.currentTime)} / ${clock(video.duration)}`;
    byId("time").textContent = text;
    seek.setAttribute("aria-valuetext", `${clock(video.currentTime)} of ${clock(video.duration)}`);
  };
  for (const event of ["timeupdate", "durationchange", "seeked"]) video.addEventListener(event, showTime);
  seek.addEventListener("input", () => { video.currentTime = Number(seek.value); });
  const volume = byId("volume");
  volume.addEventListener("input", () => { video.volume = Number(volume.value); video.muted = false; });
  byId("mute").addEventListener("click", () => { video.muted = !video.muted; });
  video.addEventListener("volumechange", () => {
    const silent = video.muted || video.volume === 0;
    byId("mute").setAttribute("aria-pressed", String(silent));
    byId("mute-icon").setAttribute("d", silent ? ICONS.silent : ICONS.sound);
    volume.value = String(video.muted ? 0 : video.volume);
  });
  byId("rate").addEventListener("change", (event) => { video.playbackRate = Number(event.target.value); });
  const full = () => (document.fullscreenElement ? document.exitFullscreen() : player.requestFullscreen?.());
  byId("full").addEventListener("click", full);
  video.addEventListener("dblclick", full);

  let idleTimer = 0;
  function wake() {
    player.classList.remove("idle");
    clearTimeout(idleTimer);
    idleTimer = setTimeout(() => {
      const focused = byId("controls").contains(document.activeElement) && document.activeElement.matches(":focus-visible");
      if (!video.paused && !focused) player.classList.add("idle");
    }, IDLE_MS);
  }
  for (const event of ["pointermove", "pointerdown", "focusin", "keydown"]) player.addEventListener(event, wake);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onControl = event.target.closest?.("button, select, input");
    const actions = {
      " ": toggle, k: toggle, m: () => { video.muted = !video.muted; }, f: full,
      ArrowLeft: () => step(-SEEK_STEP_SECONDS), ArrowRight: () => step(SEEK_STEP_SECONDS),
      ArrowUp: () => { video.volume = Math.min(1, video.volume + 0.1); },
      ArrowDown: () => { video.volume = Math.max(0, video.volume - 0.1); },
    };
    // On a control, its own keys come first: space presses a button, arrows move a slider.
    if (onControl && (event.key === " " || event.key.startsWith("Arrow"))) return;
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    } else if (/^[0-9]$/.test(event.key) && video.duration && !onControl?.matches("select")) {
      video.currentTime = (video.duration * Number(event.key)) / 10;
    }
  });
}

function parseClock(text) {
  return text.split(":").reduce((total, part) => total * 60 + Number(part), 0);
}

// Sprite index: WebVTT cues whose text is `sheet.jpg#xywh=x,y,w,h`.
async function wirePreview(video, address) {
  const answer = await fetch(address);
  if (!answer.ok) return;
  const base = new URL(address, location.href);
  const cues = (await answer.text()).split(/\r?\n\r?\n/).flatMap((block) => {
    const times = block.match(/([\d:.]+)\s+-->\s+([\d:.]+)/);
    const picture = block.match(/^(\S+)#xywh=(\d+),(\d+),(\d+),(\d+)\s*$/m);
    if (!times || !picture) return [];
    const [x, y, width, height] = picture.slice(2).map(Number);
    return [{ start: parseClock(times[1]), end: parseClock(times[2]), sheet: new URL(picture[1], base).href, x, y, width, height }];
  });
  if (!cues.length) return;
  const seek = byId("seek");
  const preview = byId("preview");
  const frame = byId("preview-picture");
  seek.addEventListener("pointermove", (event) => {
    const box = seek.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const seconds = share * (video.duration || 0);
    const cue = cues.find((one) => seconds >= one.start && seconds < one.end) ?? cues.at(-1);
    frame.style.width = `${cue.width}px`;
    frame.style.height = `${cue.height}px`;
    frame.style.backgroundImage = `url("${cue.sheet}")`;
    frame.style.backgroundPosition = `-${cue.x}px -${cue.y}px`;
    byId("preview-time").textContent = clock(seconds);
    preview.hidden = false;
    const left = Math.min(Math.max(share * box.width - cue.width / 2, 0), Math.max(box.width - cue.width, 0));
    preview.style.left = `${left}px`;
  });
  for (const event of ["pointerleave", "blur"]) seek.addEventListener(event, () => { preview.hidden = true; });
}
