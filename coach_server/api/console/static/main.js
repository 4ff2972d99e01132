// The page: who may come in, start a call, hand its events to the views, end it and show the analysis.

import { analysisPage, fetchAnalysis } from "./analysis.js";
import { LiveCall } from "./call.js";
import { DemoPlayer } from "./demo.js";
import { byId, calm, fill, h } from "./dom.js";
import { Tips } from "./tips.js";
import { Transcript } from "./transcript.js";
import { clock, data, say } from "./words.js";

// Of the call at its own speed. Talking goes faster in a demo than in life, so tips come sooner than by default.
const DEMO_WARMUP_MS = 6000;
const DEMO_INTERVAL_MS = 15000;
const SHORTEST_INTERVAL_MS = 1500;
const TALK_INTERVAL_MS = 10000;
const AFTER_THE_SCRIPT_MS = 1500;
const HINT_EVERY_MS = 900;
const RESUMED_SHOWN_MS = 6000;
const KEY = "coach-credential";

const options = byId("options").elements;
const transcript = new Transcript();
const tips = new Tips({ select, because: () => transcript.showMarked() });

let io = null;
let call = null;
let player = null;
let announced = null;
let muted = false;
let joined = false;
let hinted = 0;
let ticking = null;
let calmed = null;

// --- coming in

/** {token} or {apiKey}, or null when the page must ask. */
function credential() {
  if (data.credential) return { token: data.credential.token };
  const key = sessionStorage.getItem(KEY);
  if (!key) return null;
  return key.split(".").length === 3 ? { token: key } : { apiKey: key };
}

function headers() {
  const { token, apiKey } = credential();
  return token ? { Authorization: `Bearer ${token}` } : { "x-api-key": apiKey };
}

function showAccess(fault = "") {
  byId("access").hidden = false;
  byId("access-fault").textContent = fault;
  byId("access-key").focus();
  showStarters();
}

function showStarters() {
  const may = io !== null && credential() !== null;
  byId("play").disabled = byId("talk").disabled = !may;
  byId("forget").hidden = data.credential !== null || sessionStorage.getItem(KEY) === null;
}

function refused() {
  stopCall();
  phase("idle");
  if (data.credential) {
    notice(say("access.expired"), true);
  } else {
    sessionStorage.removeItem(KEY);
    showAccess(say("access.refused"));
  }
}

byId("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("access-key").value.trim());
  byId("access-key").value = "";
  byId("access").hidden = true;
  showStarters();
  byId("play").focus();
});
byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  showAccess();
});
byId("notice-reload").addEventListener("click", () => location.reload());

// --- what the page shows

function phase(name) {
  document.body.dataset.phase = name;
  const live = name !== "idle" && name !== "starting";
  byId("intro").hidden = live;
  byId("live").hidden = !live;
  byId("analysis").hidden = name !== "ended";
  byId(name === "live" ? "options-slot" : "options-home").append(byId("options"));
  byId("speed-choice").hidden = name === "live" && player === null;
  const book = byId("playbook-choice");
  if (book) book.hidden = name === "live";
  const starting = name === "starting";
  byId("play").disabled = byId("talk").disabled = starting;
  byId("play").setAttribute("aria-busy", String(starting));
  if (name === "ended") byId("live").before(byId("analysis"));
  if (!starting) showStarters();
}

function notice(text, reload = false) {
  byId("notice-text").textContent = text;
  byId("notice-reload").hidden = !reload;
  byId("notice").hidden = text === "";
}

function connection({ state, missed, recovered }) {
  const shown = byId("connection");
  if (state === "refused") return refused();
  if (state === "failed") {
    clearTimeout(calmed);
    shown.dataset.state = "lost";
    byId("connection-text").textContent = say("connection.lost");
    if (call?.id === null) stuck(say("connection.blocked", { origin: location.origin }));
    return undefined;
  }
  if (state === "lost" && call?.id === null) stuck(say("connection.lost"));
  shown.dataset.state = state === "resumed" ? "connected" : state;
  const text = state !== "resumed" ? say(`connection.${state}`)
    : recovered ? say("connection.resumed", { count: missed }) : say("connection.resumed_new");
  byId("connection-text").textContent = text;
  clearTimeout(calmed);
  if (state === "resumed") calmed = setTimeout(() => connection({ state: "connected" }), RESUMED_SHOWN_MS);
  if (state === "connected" || state === "resumed") notice("");
  return undefined;
}

/** The call does not start: it is tried on, and may be started anew. */
function stuck(text) {
  notice(text);
  showStarters();
}

const atMs = () => (call?.startedAt === undefined ? 0 : performance.now() - call.startedAt);

function tickClock() {
  clearInterval(ticking);
  ticking = setInterval(() => {
    byId("elapsed").textContent = clock(atMs());
  }, 500);
}

// --- a call

async function begin(turns) {
  if (call) stopCall();
  notice("");
  const { metadata } = data.demo;
  player = turns && new DemoPlayer(turns, { words: growing, turn: heard, done: scriptOver }, speed());
  joined = false;
  muted = false;
  showMuted();
  transcript.clear();
  tips.clear();
  byId("say").reset();
  byId("pause").hidden = player === null;
  showPlaying(true);
  byId("live-who").textContent = player ? say("intro.with", {
    agent: metadata.agent_name, customer: metadata.customer_name, company: metadata.company,
  }) : "";
  phase("starting");
  const mine = new LiveCall(io, credential());
  call = mine;
  follow(mine);
  mine.connect();
  try {
    await mine.start(startWish(metadata));
  } catch (error) {
    if (mine !== call) return;
    stopCall();
    phase("idle");
    notice(`${say("call.not_started")} ${error.message ?? ""}`);
    return;
  }
  if (mine !== call) return;
  player?.play();
}

function startWish(metadata) {
  const pace = player ? speed() : 1;
  const interval = player ? Math.max(SHORTEST_INTERVAL_MS, DEMO_INTERVAL_MS / pace) : TALK_INTERVAL_MS;
  return {
    agentId: "console",
    language: data.language,
    mode: options.mode.value,
    verbosity: options.verbosity.value,
    playbook: options.playbook?.value || undefined,
    warmupMs: player ? Math.round(DEMO_WARMUP_MS / pace) : 0,
    intervalMs: Math.round(interval),
    tipStreaming: true,
    metadata: player ? {
      source: "console-demo",
      agentName: metadata.agent_name,
      customerName: metadata.customer_name,
      company: metadata.company,
      location: metadata.location,
    } : { source: "console" },
  };
}

/** Hand the call's events to the views. Those of a call that was left are passed over. */
function follow(mine) {
  const on = (kind, handle) => mine.addEventListener(kind, ({ detail }) => mine === call && handle(detail));
  on("connection", connection);
  on("started", () => {
    phase("live");
    byId("settings").open = matchMedia("(min-width: 40.01rem)").matches;
    modeHint();
    tickClock();
    byId("coach").focus({ preventScroll: true });
    scrollTo({ top: 0 });
  });
  on("tip", (tip) => {
    busy(false);
    notice("");
    tips.show(tip, atMs());
    transcript.mark(tip.why);
  });
  on("tip-updated", (tip) => {
    tips.update(tip);
    if (tip.recommendationId === tips.current?.recommendationId) transcript.mark(tip.why);
  });
  on("tip-chunk", (chunk) => tips.chunk(chunk));
  on("selected", (selection) => tips.chosen(selection));
  on("mode", showMode);
  on("fault", (fault) => {
    busy(false);
    notice(say("call.failed", { message: fault.message ?? say("connection.lost") }));
  });
  on("ended", ended);
  announced = new Promise((wake) => on("analysed", wake));
}

function stopCall() {
  player?.pause();
  call?.close();
  clearInterval(ticking);
  call = null;
  connection({ state: "idle" });
}

// --- the demo and one's own words

const speed = () => Number(options.speed.value);

function growing(turn, text) {
  transcript.grow(turn.speaker, text, atMs());
  const now = performance.now();
  if (now - hinted < HINT_EVERY_MS) return;
  hinted = now;
  call.hint(turn.speaker, text);
}

function heard({ speaker, text }) {
  call.utter(speaker, text, transcript.add(speaker, text, atMs()));
}

function scriptOver() {
  byId("pause").hidden = true;
  if (joined) {
    notice(say("call.script_over"));
    return;
  }
  const mine = call;
  setTimeout(() => mine === call && end(), AFTER_THE_SCRIPT_MS);
}

function showPlaying(playing) {
  byId("pause").textContent = say(playing ? "call.pause" : "call.go_on");
  byId("pause").setAttribute("aria-pressed", String(!playing));
}

byId("play").addEventListener("click", () => begin(data.demo.turns));
byId("talk").addEventListener("click", async () => {
  await begin(null);
  byId("words").focus();
});
byId("pause").addEventListener("click", () => {
  if (player.playing) player.pause();
  else player.play();
  showPlaying(player.playing);
});
byId("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("words").value.trim();
  if (!text || !call) return;
  joined = true;
  byId("words").value = "";
  heard({ speaker: byId("say").elements.speaker.value, text });
});
byId("say").addEventListener("change", () => {
  const speaker = byId("say").elements.speaker.value;
  byId("words").placeholder = say(`transcript.placeholder_${speaker}`);
});

// --- what the coach is asked

async function select(recommendationId, selectedOption) {
  if (document.body.dataset.phase !== "live") return;
  await call.ask("OPTION_SELECTED", { recommendationId, selectedOption });
}

function busy(asking) {
  for (const id of ["next-tip", "another"]) byId(id).disabled = asking;
  if (asking) tips.hint(say("tip.asked"));
}

async function askFor(name, wish) {
  busy(true);
  const ack = await call.ask(name, wish);
  // A request for the turn that is already answered makes no new tip.
  if (!ack.ok || ack.coalesced) {
    busy(false);
    tips.hint(null);
  }
}

byId("next-tip").addEventListener("click", () => {
  const tip = tips.current;
  askFor("REQUEST_NEXT_TIP", tip?.chosen ? {
    selectedRecommendationId: tip.recommendationId,
    selectedOption: tip.chosen,
    selectedScript: tip.options[tip.chosen - 1].script,
  } : {});
});
byId("another").addEventListener("click", () => {
  const tip = tips.current;
  askFor("REQUEST_ALTERNATIVE_TIP", {
    currentStage: tip.stage,
    currentScriptId: tip.options.find((option) => option.id)?.id,
  });
});
byId("mute").addEventListener("click", () => call.ask("SET_MODE", { muted: !muted }));
byId("options").addEventListener("submit", (event) => event.preventDefault());
byId("options").addEventListener("change", ({ target }) => {
  modeHint();
  if (target.name === "speed" && player) player.speed = speed();
  if (document.body.dataset.phase !== "live") return;
  if (target.name === "mode" || target.name === "verbosity") call.ask("SET_MODE", { [target.name]: target.value });
});

function showMode(now) {
  muted = now.muted;
  options.mode.value = now.mode;
  options.verbosity.value = now.verbosity;
  modeHint();
  showMuted();
}

function showMuted() {
  byId("mute").setAttribute("aria-pressed", String(muted));
  byId("mute").textContent = say(muted ? "call.unmute" : "call.mute");
  document.body.classList.toggle("muted-tips", muted);
  byId("tip-empty-hint").textContent = emptyHint();
}

const modeName = () => options.mode.value.replace("-", "_");
const emptyHint = () => (muted ? say("tip.muted") : say(`tip.empty_${modeName()}`));

function modeHint() {
  byId("mode-hint").textContent = say(`options.${modeName()}_hint`);
  byId("tip-empty-hint").textContent = emptyHint();
}

// --- the end

async function end() {
  player?.pause();
  byId("end").disabled = true;
  await call.end();
  byId("end").disabled = false;
}

async function ended(payload) {
  player?.pause();
  clearInterval(ticking);
  byId("elapsed").textContent = clock(payload.durationMs);
  const mine = call;
  const share = transcript.share;
  phase("ended");
  tips.freeze();
  fill(byId("analysis-body"), h("p", { class: "card waiting" }, say("analysis.waiting")));
  byId("analysis").focus({ preventScroll: true });
  byId("main").scrollIntoView({ behavior: calm() ? "auto" : "smooth" });
  try {
    const document = await fetchAnalysis(mine.id, headers(), announced);
    if (mine !== call) return;
    fill(byId("analysis-body"), analysisPage(document, payload.usage, share));
  } catch (error) {
    if (mine !== call) return;
    const again = h("button", { type: "button", onclick: () => ended(payload) }, say("analysis.retry"));
    fill(byId("analysis-body"), h("div", { class: "card" },
      h("p", {}, say("analysis.failed", { message: error.message })), again));
  }
}

byId("end").addEventListener("click", end);
byId("again").addEventListener("click", () => {
  stopCall();
  player = null;
  byId("live").after(byId("analysis"));
  phase("idle");
  byId("play").focus();
});

// Whoever leaves the page has left the call; an hour of silence would end it too.
addEventListener("pagehide", () => call?.leave());

// --- once

async function start() {
  modeHint();
  if (data.live) ({ io } = await import("socket.io-client"));
  if (data.live && credential() === null) showAccess();
  showStarters();
  document.body.dataset.ready = "true";
}

start();
