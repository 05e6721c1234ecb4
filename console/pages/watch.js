// The watch page: shows where the video stands, and plays it as soon as it plays.
//
// The server writes the first status into the page (#status); while the video is being processed the page asks for
// it again. Playback is hls.js over Media Source Extensions where the player was built, else the browser's own HLS.

import { startPlayer } from "/console/player.js";

const byId = (id) => document.getElementById(id);
// How often to ask while work goes on: often enough to look alive, seldom enough for a thousand waiting viewers.
const POLL_MS = 1500;
const POLL_AFTER_ERROR_MS = 5000;

const STAGE_NAMES = {
  probe: "Looking at the file",
  encode: "Encoding the pictures",
  audio: "Encoding the sound",
  stills: "Making the preview pictures",
  publish: "Publishing",
};
const STATE_NAMES = { waiting: "waiting", running: "at work", retrying: "trying again", done: "done", failed: "failed" };

function showNotice(status) {
  byId("notice").hidden = false;
  byId("stage").hidden = true;
  byId("notice-title").textContent = status.title;
  byId("notice-text").textContent = status.text;
  document.title = status.title;
  const working = status.state === "waiting" || status.state === "processing";
  const bar = byId("notice-progress");
  bar.hidden = !working;
  if (status.progress > 0) bar.value = status.progress;
  else bar.removeAttribute("value");
  const list = byId("notice-stages");
  list.hidden = !working || !status.stages?.length;
  list.replaceChildren(
    ...(status.stages ?? []).map((stage) => {
      const item = document.createElement("li");
      const name = document.createElement("span");
      name.textContent = STAGE_NAMES[stage.kind] ?? stage.kind;
      const progress = document.createElement("progress");
      progress.max = 1;
      progress.value = stage.progress;
      progress.setAttribute("aria-label", name.textContent);
      const state = document.createElement("span");
      state.className = "state";
      const percent = Math.floor(stage.progress * 100);
      state.textContent = stage.state === "running" ? `${percent} %` : (STATE_NAMES[stage.state] ?? stage.state);
      item.append(name, progress, state);
      return item;
    }),
  );
}

function showPlayer(status) {
  byId("notice").hidden = true;
  byId("stage").hidden = false;
  byId("title").textContent = status.title;
  document.title = status.title;
  byId("facts").textContent = status.text;
  startPlayer(status);
}

async function follow(status) {
  let current = status;
  while (current.state === "waiting" || current.state === "processing") {
    showNotice(current);
    await new Promise((resume) => setTimeout(resume, POLL_MS));
    for (;;) {
      try {
        const answer = await fetch(`${location.pathname}/status${location.search}`, { cache: "no-store" });
        // A refusal has the form of a status as well, and ends the loop by its state.
        current = await answer.json();
        break;
      } catch {
        byId("notice-text").textContent = "The server does not answer at the moment. The page goes on by itself when it does.";
        await new Promise((resume) => setTimeout(resume, POLL_AFTER_ERROR_MS));
      }
    }
  }
  if (current.state === "ready") showPlayer(current);
  else showNotice(current);
}

follow(JSON.parse(byId("status").textContent));
