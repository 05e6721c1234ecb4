// The page's side of play.mjs. Each player is wrapped in the same three verbs: load, rungs, choose.

// What hls.js says by its event of errors when a busy machine does not decode in time and the film stands still for a
// moment. They are counted apart, unless they are fatal. dash.js and Shaka tell of that by other events, so everything
// that they call an error is one.
const STALLS = ['bufferStalledError', 'bufferNudgeOnStall'];
// Shaka gives a request five seconds in which no byte comes; a busy machine may need them. 0: none of these limits.
const PATIENT = {stallTimeout: 0, connectionTimeout: 0};

const players = {
  hls(video, url, report) {
    const player = new Hls({startLevel: 0});
    player.on(Hls.Events.ERROR, (_, data) => {
      if (!data.fatal && STALLS.includes(data.details)) report.playerStalls += 1;
      else report.errors.push(`hls.js ${data.type} ${data.details} ${data.error?.message ?? ''}`);
    });
    const loaded = new Promise((resolve) => player.on(Hls.Events.MANIFEST_PARSED, resolve));
    player.loadSource(url);
    player.attachMedia(video);
    return {
      loaded,
      rungs: () => player.levels.map((level, index) => ({index, height: level.height, bitrate: level.bitrate})),
      choose: (index) => { player.nextLevel = index; },
    };
  },

  dash(video, url, report) {
    const player = dashjs.MediaPlayer().create();
    const events = dashjs.MediaPlayer.events;
    player.updateSettings({debug: {logLevel: 0}, streaming: {buffer: {fastSwitchEnabled: true, bufferTimeDefault: 4, bufferTimeAtTopQuality: 4}}});
    player.on(events.ERROR, (event) => report.errors.push(`dash.js ${event.error?.code ?? ''} ${event.error?.message ?? event.error}`));
    const loaded = new Promise((resolve) => player.on(events.STREAM_INITIALIZED, resolve));
    player.initialize(video, url, true);
    return {
      loaded,
      // dash.js lists representations by rising bit rate.
      rungs: () => player.getRepresentationsByType('video').map((one, index) => ({index, height: one.height, bitrate: one.bandwidth})),
      choose: (index) => {
        player.updateSettings({streaming: {abr: {autoSwitchBitrate: {video: false}}}});
        player.setRepresentationForTypeByIndex('video', index, false);
      },
    };
  },

  shaka(video, url, report) {
    shaka.polyfill.installAll();
    const player = new shaka.Player();
    player.addEventListener('error', (event) => report.errors.push(`shaka ${event.detail.code} ${JSON.stringify(event.detail.data)}`));
    player.configure({manifest: {retryParameters: PATIENT}, streaming: {bufferingGoal: 4, retryParameters: PATIENT}});
    const loaded = player.attach(video).then(() => player.load(url)).catch((error) => report.errors.push(`shaka load ${error.code} ${error.message}`));
    const sorted = () => player.getVariantTracks().sort((a, b) => a.bandwidth - b.bandwidth);
    return {
      loaded,
      rungs: () => sorted().map((track, index) => ({index, height: track.height, bitrate: track.bandwidth})),
      choose: (index) => {
        player.configure({abr: {enabled: false}});
        player.selectVariantTrack(sorted()[index], true);
      },
    };
  },
};

// Starts on the smallest rung, asks for the largest after a third of the time, and plays on to the end of the time.
globalThis.playAndReport = async ({player: name, url, seconds, timeoutMs}) => {
  const video = document.getElementById('video');
  const report = {player: name, rungs: 0, ladder: [], errors: [], stalls: 0, playerStalls: 0, sizes: [], playedSeconds: 0, decodedFrames: 0, corruptedFrames: 0, audioBytes: 0, startAt: null};
  const noteSize = () => {
    const size = `${video.videoWidth}x${video.videoHeight}`;
    if (video.videoWidth && report.sizes.at(-1) !== size) report.sizes.push(size);
  };
  video.addEventListener('resize', noteSize);
  video.addEventListener('error', () => report.errors.push(`video element: ${video.error?.code} ${video.error?.message}`));
  let started = false;
  video.addEventListener('playing', () => { started = true; });
  video.addEventListener('waiting', () => { if (started && !video.ended) report.stalls += 1; });

  const control = players[name](video, url, report);
  const deadline = performance.now() + timeoutMs;
  // The first error decides: a player that has told one may neither load nor begin ever after.
  const isOver = () => performance.now() > deadline || report.errors.length > 0;
  const within = (promise) => Promise.race([promise, new Promise((resolve) => {
    const look = () => (isOver() ? resolve() : setTimeout(look, 50));
    look();
  })]);
  await within(control.loaded);
  report.ladder = control.rungs();
  report.rungs = report.ladder.length;
  if (report.rungs > 1) control.choose(0);
  await within(video.play().catch((error) => report.errors.push(`play(): ${error.message}`)));

  let switched = false;
  // A condition to wait on: the film's own clock, read on every animation frame.
  await new Promise((resolve) => {
    const look = () => {
      noteSize();
      if (report.startAt === null && video.currentTime > 0 && video.buffered.length) report.startAt = video.buffered.start(0);
      if (!switched && report.rungs > 1 && video.currentTime > seconds / 3) {
        switched = true;
        control.choose(report.rungs - 1);
      }
      if (video.currentTime >= seconds || video.ended || isOver()) resolve();
      else setTimeout(look, 50);
    };
    look();
  });
  report.playedSeconds = video.currentTime;
  const quality = video.getVideoPlaybackQuality();
  report.decodedFrames = quality.totalVideoFrames;
  report.corruptedFrames = quality.corruptedVideoFrames ?? 0;
  report.droppedFrames = quality.droppedVideoFrames;
  report.audioBytes = video.webkitAudioDecodedByteCount ?? -1;
  return report;
};
