// The practice page: choose a customer, talk, stop, read what it was worth, play a moment again.

import { byId, calm, fill, freshId, h } from "../console/dom.js";
import { Transcript } from "../console/transcript.js";
import { clock, data, say } from "../console/words.js";
import { admit, ask, credential, notice, refused, userId } from "./access.js";
import { celebrate } from "./celebrate.js";
import { FlowView } from "./flow.js";
import { clearHints, showHint } from "./hints.js";
import { drillCards } from "./drills.js";
import { resultPage } from "./results.js";
import { languageFor, languageName, scenarioCards, spokenLanguages } from "./scenarios.js";
import { PracticeSession, fetchFeedback } from "./session.js";
import { Speech } from "./speech.js";

const RESUMED_SHOWN_MS = 6000;

const wish = new URLSearchParams(location.search);
const transcript = new Transcript();
const flow = new FlowView(byId("flow-phases"), (stepId) => session.complete(stepId));
const speech = new Speech(byId("words"), { spoken: () => utter(), fault: notice });

let io = null;
let session = null;
let started = null;
let endsAt = null;
let ticking = null;
let calmed = null;
let announced = null;

// --- choosing

async function enter() {
  if (!data.live) return ready();
  try {
    const { scenarios } = await ask(`/api/roleplay/scenarios?${new URLSearchParams({ language: data.language })}`);
    showScenarios(scenarios);
    await showDrills();
    if (wish.get("drill")) await playDrill({ id: wish.get("drill") });
  } catch (refusal) {
    byId("scenarios-state").textContent = say("choose.failed", { message: refusal.message });
  }
  return ready();
}

function ready() {
  if (!data.live) byId("scenarios-state").hidden = true;
  document.body.dataset.ready = "true";
}

function showScenarios(all) {
  const methodology = wish.get("methodology");
  const scenarios = all.filter((scenario) => !methodology || scenario.methodology === methodology);
  const languages = spokenLanguages(scenarios);
  fill(byId("talk-language"), languages.map((code) => h("option", { value: code }, languageName(code))));
  byId("talk-language").closest(".choice").hidden = languages.length < 2;
  byId("begin-at").hidden = !wish.get("step");
  byId("begin-at").textContent = say("choose.begin_at", { step: wish.get("step") ?? "" });
  fill(byId("scenarios"), scenarioCards(scenarios, (scenario) => begin(() => startScenario(scenario))));
  byId("scenarios-state").hidden = scenarios.length > 0;
  byId("scenarios-state").textContent = say("choose.none");
}

async function showDrills() {
  const query = new URLSearchParams({ userId: userId(), status: "open" });
  const found = await ask(`/api/drills?${query}`).catch(() => ({ drills: [] }));
  const cards = drillCards(found.drills, playDrill);
  byId("open-drills").hidden = cards.length === 0;
  fill(byId("drills"), cards);
}

function startScenario(scenario) {
  const language = languageFor(scenario, byId("talk-language").value || data.language);
  return ask("/api/roleplay/sessions/start", { method: "POST", body: {
    userId: userId(),
    scenarioId: scenario.id,
    language,
    avatar: false,
    idempotencyKey: freshId(),
    ...(wish.get("step") ? { startStepId: wish.get("step") } : {}),
    ...(wish.get("methodology") ? { methodology: wish.get("methodology") } : {}),
    ...(byId("keep-nothing").checked ? { storeTranscript: false } : {}),
  } });
}

const playDrill = (drill) => begin(() =>
  ask(`/api/drills/${encodeURIComponent(drill.id)}/start`, { method: "POST", body: {} }));

// --- a talk

/** Start with what `start` resolves to. */
async function begin(start) {
  notice("");
  phase("starting");
  try {
    started = await start();
    await showTalk();
  } catch (refusal) {
    phase("idle");
    if (refusal.status !== 401) notice(say("talk.not_started", { message: refusal.message }));
    return;
  }
  history.replaceState(null, "", `?${new URLSearchParams({ lang: data.language })}`);
  wish.delete("drill");
  session = new PracticeSession(io, credential(), started, userId());
  follow(session);
  session.connect();
}

async function showTalk() {
  const { scenario, methodology, language, drill } = started;
  const query = new URLSearchParams({ methodology: methodology.id, language: data.language });
  const techniques = await ask(`/api/roleplay/techniques?${query}`).catch(() => null);
  started.methodName = techniques?.name ?? methodology.name;
  data.strings.transcript.caller = scenario.who;
  byId("live-heading").textContent = scenario.title;
  byId("live-who").textContent = [scenario.who, scenario.role, scenario.company].filter(Boolean).join(", ");
  byId("briefing").open = true;
  byId("briefing").hidden = !scenario.briefing;
  byId("briefing-text").textContent = scenario.briefing ?? "";
  speech.language = language;
  transcript.clear();
  clearHints();
  flow.show(started.scenarioFlow, techniques);
  over("");
  busy(false);
  showSource({});
  byId("say").reset();
  byId("say-hint").textContent = isKept() ? "" : say("talk.not_kept");
  started.at = performance.now();
  endsAt = drill?.seconds ? started.at + drill.seconds * 1000 : null;
  if (started.opening) heard(started.opening.text);
  tickClock();
  phase("live");
  byId("words").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

const isKept = () => started.storeTranscript !== false;
const atMs = () => performance.now() - started.at;

/** The customer has said something. */
function heard(text) {
  transcript.add("caller", text, atMs())({ ok: true, stored: isKept() });
  byId("announcer").textContent = say("talk.said_by", { who: started.scenario.who, text });
}

function follow(mine) {
  const on = (kind, handle) => mine.addEventListener(kind, ({ detail }) => mine === session && handle(detail));
  on("connection", connection);
  on("joined", ({ scenarioFlow }) => scenarioFlow && flow.update(scenarioFlow));
  on("step", (moved) => flow.moved(moved));
  on("phase", ({ phaseId, nextPhaseId, unlockedSteps }) => {
    flow.unlocked(unlockedSteps ?? []);
    celebrate(flow.name(phaseId), nextPhaseId === null ? "" : flow.name(nextPhaseId));
  });
  on("hint", (hint) => showHint(hint, hint.stepId ? flow.stepName(hint.stepId) : ""));
  on("chunk", ({ text }) => transcript.grow("caller", text, atMs()));
  on("fault", ({ message }) => notice(say("talk.failed", { message: message || say("connection.lost") })));
  on("over", () => document.body.dataset.phase === "live" && byId("over").hidden && over(say("talk.over")));
  announced = new Promise((wake) => on("feedback", wake));
}

async function utter() {
  const text = byId("words").value.trim();
  if (!text || document.body.dataset.phase !== "live" || byId("send").disabled) return;
  const mine = session;
  speech.stop();
  notice("");
  byId("words").value = "";
  byId("briefing").open = false;
  busy(true);
  const told = transcript.add("agent", text, atMs());
  const reply = await mine.say(text, (ack) => told({ stored: isKept(), ...ack }));
  if (mine !== session) return;
  busy(false);
  if (reply === null) return;
  heard(reply.text);
  showSource(reply);
  if (reply.ended) over(say("talk.ended", { who: started.scenario.who }));
  mine.look();
}

/** Who plays the customer: a model or the built-in one. */
function showSource({ source, degraded }) {
  const shown = byId("answered-by");
  shown.hidden = !source;
  shown.className = `badge ${degraded ? "warn" : source}`;
  shown.textContent = say(`sources.${source}`);
  shown.title = degraded ? say("sources.degraded") : "";
}

/** While the customer answers, the next words can be typed and not yet sent. */
function busy(answering) {
  byId("send").disabled = answering;
  byId("say-hint").textContent = answering ? say("talk.waiting", { who: started.scenario.who }) : "";
}

/** Nothing more can be said, because of `text`; an empty one: something can. */
function over(text) {
  byId("over").hidden = text === "";
  byId("over-text").textContent = text;
  byId("say").hidden = text !== "";
  if (text === "") return;
  endsAt = null;
  clearInterval(ticking);
  speech.stop();
  byId("to-results").focus({ preventScroll: true });
}

function tickClock() {
  clearInterval(ticking);
  const show = () => {
    const left = endsAt === null ? null : endsAt - performance.now();
    byId("elapsed").textContent = clock(left ?? atMs());
    byId("elapsed").title = say(left === null ? "talk.elapsed" : "talk.left");
    if (left !== null && left <= 0) over(say("talk.time_over"));
  };
  show();
  ticking = setInterval(show, 500);
}

function connection({ state }) {
  if (state === "refused") {
    session.close();
    phase("idle");
    return refused();
  }
  const shown = state === "failed" ? "lost" : state;
  byId("connection").dataset.state = state === "resumed" ? "connected" : shown;
  byId("connection-text").textContent = say(`connection.${shown}`);
  if (state === "failed" && !session.wasReady) notice(say("connection.blocked", { origin: location.origin }));
  if (state === "connected" || state === "resumed") notice("");
  clearTimeout(calmed);
  if (state === "resumed") calmed = setTimeout(() => connection({ state: "connected" }), RESUMED_SHOWN_MS);
  return undefined;
}

// --- the end

async function stop() {
  byId("stop").disabled = byId("to-results").disabled = true;
  try {
    await result(await session.stop());
  } catch (refusal) {
    notice(say("talk.failed", { message: refusal.message }));
  }
  byId("stop").disabled = byId("to-results").disabled = false;
}

async function result(comes) {
  const mine = session;
  clearInterval(ticking);
  speech.stop();
  phase("ended");
  fill(byId("analysis-body"), h("p", { class: "card waiting", role: "status" }, say("result.analysing")));
  byId("analysis").focus({ preventScroll: true });
  scrollTo({ top: 0, behavior: calm() ? "auto" : "smooth" });
  try {
    const found = comes ? await fetchFeedback(mine.path, announced) : { insufficient: true };
    if (mine !== session) return;
    if (found === null) again(say("result.late"));
    else showResult(found, await replayedDrill());
  } catch (refusal) {
    if (mine === session) again(say("result.failed", { message: refusal.message }));
  }
}

function again(text) {
  const button = h("button", { type: "button", onclick: () => result(true) }, say("result.retry"));
  fill(byId("analysis-body"), h("div", { class: "card" }, h("p", {}, text), button));
}

/** What became of the moment that this talk played again, if it did. */
async function replayedDrill() {
  if (!started.drill) return null;
  const found = await ask(`/api/drills?${new URLSearchParams({ userId: userId() })}`).catch(() => null);
  return found?.drills.find(({ id }) => id === started.drill.id) ?? started.drill;
}

function showResult(found, drill) {
  fill(byId("analysis-body"), resultPage(found, {
    drill,
    flow,
    method: { name: started.methodName },
    play: (drill) => leave(() => playDrill(drill)),
    practise: (stepId) => leave(() => {
      wish.set("step", stepId);
      wish.set("methodology", started.methodology.id);
      return enter();
    }),
  }));
  byId("analysis").dataset.state = "ready";
}

/** Close this talk, then go on to something else. */
function leave(next) {
  session?.close();
  session = null;
  byId("analysis").dataset.state = "";
  byId("connection").dataset.state = "idle";
  phase("idle");
  scrollTo({ top: 0 });
  return next();
}

// --- what the page shows

function phase(name) {
  document.body.dataset.phase = name;
  byId("choose").hidden = name === "live" || name === "ended";
  byId("live").hidden = name !== "live";
  byId("analysis").hidden = name !== "ended";
  for (const button of byId("choose").querySelectorAll("button")) button.disabled = name === "starting";
}

byId("say").addEventListener("submit", (event) => {
  event.preventDefault();
  utter();
});
byId("stop").addEventListener("click", stop);
byId("to-results").addEventListener("click", stop);
byId("again").addEventListener("click", () => leave(() => {
  wish.delete("step");
  wish.delete("methodology");
  return enter();
}));
byId("options").addEventListener("submit", (event) => event.preventDefault());

async function start() {
  if (data.live) ({ io } = await import("socket.io-client"));
  admit(enter);
  if (byId("access").hidden === false) ready();
}

start();
