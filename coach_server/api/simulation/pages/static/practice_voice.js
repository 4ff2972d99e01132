// Practise by voice: choose a customer, talk or type, and read what it was worth. The simulation's browser client.

import { byId, calm, fill, h } from "../console/dom.js";
import { clock, data, say } from "../console/words.js";
import { Refusal, ask, notice, userId } from "../practice/access.js";
import { languageFor, languageName, spokenLanguages } from "../practice/scenarios.js";
import { Lines } from "./lines.js";
import { Microphone, mayListen } from "./microphone.js";
import { Mood } from "./mood.js";
import { endedBy, outcomeBadge } from "./outcome.js";
import { Relay } from "./relay.js";
import { checklist, remarks, worth } from "./score.js";
import { Speaker } from "./speaker.js";
import { comeIn } from "./viewer.js";

const LOOK_AGAIN_MS = 2500;
const MOST_LOOKS = 40;

const lines = new Lines();
const mood = new Mood(byId("mood"));
const speaker = new Speaker((isSpeaking) => speaking(isSpeaking));
const microphone = new Microphone({
  heard: (samples, level) => heard(samples, level),
  lost: () => showMicrophone(say("talk.microphone_lost")),
});

let session = null;
let relay = null;
let ended = null;
let score = null;
let begunAt = null;
let ticking = null;
let pending = null;
let looking = null;

lines.isLive = true;

// --- choosing

async function enter() {
  try {
    const { scenarios } = await ask(`/api/scenarios?${new URLSearchParams({ language: data.language })}`);
    showScenarios(scenarios);
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    byId("scenarios-state").textContent = refusal.status === 401 ? "" : say("choose.failed", { message: refusal.message });
  }
  byId("with-microphone").disabled = !mayListen();
  byId("with-microphone").checked = mayListen();
  document.body.dataset.ready = "true";
}

function showScenarios(scenarios) {
  const languages = spokenLanguages(scenarios);
  fill(byId("talk-language"), languages.map((code) => h("option", { value: code }, languageName(code))));
  byId("talk-language").closest(".choice").hidden = languages.length < 2;
  byId("talk-language").onchange = () => showCards(scenarios);
  byId("scenarios-state").hidden = scenarios.length > 0;
  byId("scenarios-state").textContent = say("choose.none");
  showCards(scenarios);
}

/** Only customers who speak the language one wants to talk. */
function showCards(scenarios) {
  const wished = byId("talk-language").value;
  fill(byId("scenarios"), scenarios.filter((scenario) => languageFor(scenario, wished) === wished).map(scenarioCard));
}

function scenarioCard(scenario) {
  const { title, description, persona } = scenario;
  return h("li", { class: "scenario card" },
    h("p", { class: "badges" }, h("bdi", { class: "badge" }, persona?.type ?? ""),
      h("span", { class: "badge plain" }, (scenario.languages ?? []).map(languageName).join(", "))),
    h("h2", { dir: "auto" }, title),
    h("p", { class: "muted", dir: "auto" }, description ?? ""),
    h("button", { type: "button", class: "primary start", "aria-label": say("choose.start_with", { who: persona?.name ?? "", title }),
      onclick: () => begin(scenario) }, say("choose.start_who", { who: persona?.name ?? "" })));
}

// --- a talk

async function begin(scenario) {
  notice("");
  // Both need the click: the sound to be allowed, the microphone to be asked for at a moment one expects it.
  speaker.open();
  const language = languageFor(scenario, byId("talk-language").value || data.language);
  phase("starting");
  try {
    session = await ask("/api/sessions", { method: "POST", body: {
      scenarioId: scenario.id, traineeId: userId(), language, client: "web",
      ...(byId("keep-nothing").checked ? { storeTranscript: false } : {}),
    } });
  } catch (refusal) {
    phase("idle");
    if (refusal.status !== 401) notice(say("talk.not_started", { message: refusal.message }));
    return;
  }
  showTalk({ ...scenario, ...session.scenario });
  if (byId("with-microphone").checked) await listen();
  else showMicrophone("");
  relay = new Relay(session.wsUrl, { tell: take, changed: connection, isOver });
  relay.connect();
}

function showTalk(scenario) {
  ended = score = pending = looking = begunAt = null;
  lines.clear();
  lines.customer = session.persona?.name ?? scenario.persona?.name ?? "";
  mood.show(session.persona?.initialAttitude ?? null);
  byId("live-heading").textContent = scenario.title ?? "";
  byId("live-who").textContent = [lines.customer, session.persona?.type].filter(Boolean).join(", ");
  fill(byId("goal-body"), [scenario.setting, scenario.goal].filter((text) => typeof text === "string" && text)
    .map((text) => h("p", { dir: "auto" }, text)),
  scenario.success?.length ? h("ul", { class: "bullets" }, scenario.success.map((text) => h("li", {}, h("span", { dir: "auto" }, text)))) : null);
  byId("elapsed").textContent = "0:00";
  byId("result").hidden = true;
  phase("live");
  byId("words").focus({ preventScroll: true });
}

function phase(name) {
  document.body.dataset.phase = name;
  byId("choose").hidden = name !== "idle";
  byId("live").hidden = name !== "live" && name !== "ended";
  byId("say").hidden = name === "ended";
  byId("goal").hidden = name === "ended";
  for (const id of ["stop", "microphone"]) byId(id).hidden = name === "ended";
  byId("again").hidden = name !== "ended";
  byId("scenarios").inert = name === "starting";
  if (name === "idle") connectionShown("idle");
}

function take(frame) {
  switch (frame.type) {
    case "ready": return ready();
    case "audio": return speaker.play(frame.data);
    case "transcript": return transcribed(frame);
    case "attitude": return mood.show(frame.value, frame.direction);
    case "interrupted": return speaker.stop();
    case "session_ended": return over(frame);
    case "score": return scored(frame.data);
    case "error": return fault(frame);
    default: return undefined;
  }
}

async function ready() {
  if (begunAt === null) {
    begunAt = performance.now();
    ticking = setInterval(tick, 500);
    return;
  }
  // Back after a gap: what was said meanwhile, as far as it is kept.
  notice("");
  giveBack();
  const found = await ask(own()).catch(() => null);
  if (found?.transcript) lines.merge(found.transcript);
}

const own = () => `/api/sessions/${encodeURIComponent(session.sessionId)}`;

function tick() {
  byId("elapsed").textContent = clock(performance.now() - begunAt);
}

function transcribed(said) {
  if (said.speaker === "TRAINEE" && pending !== null) settle();
  lines.add(said);
  if (said.speaker === "AVATAR") byId("announcer").textContent = `${lines.customer}: ${said.text}`;
}

/** Only what is about this talk as a whole; the rest is told in passing. */
function fault({ code, message }) {
  if (code === "VOICE_LOST") notice(say("talk.voice_lost"));
  else notice(say("talk.failed", { message: message ?? code ?? "" }));
}

// --- the connection

function connection(state) {
  connectionShown(state);
  if (state === "lost") speaker.stop();
  if (state === "gone") again();
  if (state === "taken") finish(() => notice(say("connection.taken")));
  if (state === "over" && !score) lookUp();
  byId("send").disabled = state !== "ready";
}

function connectionShown(state) {
  const shown = { ready: "connected", gone: "lost", taken: "lost", over: "idle" }[state] ?? state;
  byId("connection").dataset.state = shown;
  byId("connection-text").textContent = say(`connection.${shown}`);
}

/** The server did not answer for a while: the reader says when to try again. */
function again() {
  byId("say-hint").replaceChildren(say("connection.gone"), " ",
    h("button", { type: "button", class: "quiet", onclick: () => { byId("say-hint").replaceChildren(); relay.again(); } }, say("connection.retry")));
}

async function isOver() {
  const found = await ask(own()).catch(() => null);
  return found?.status === "ended";
}

// --- speaking and typing

async function listen() {
  if (!mayListen()) return showMicrophone(say("talk.microphone_insecure"));
  try {
    await microphone.open();
    showMicrophone("");
  } catch (refusal) {
    const path = { NotAllowedError: "talk.microphone_refused", NotFoundError: "talk.microphone_none" }[refusal?.name];
    showMicrophone(say(path ?? "talk.microphone_failed"));
  }
  return undefined;
}

function heard(samples, level) {
  byId("level").value = Math.min(1, level * 6);
  relay?.audio(samples);
}

function showMicrophone(hint) {
  byId("microphone").setAttribute("aria-pressed", String(microphone.isOpen));
  byId("microphone").dataset.live = String(microphone.isLive);
  byId("microphone-text").textContent = say(microphone.isOpen ? "talk.microphone_on" : "talk.microphone_off");
  byId("level").hidden = !microphone.isOpen;
  byId("say-hint").textContent = hint || (microphone.isOpen ? say("talk.listening") : "");
}

function speaking(isSpeaking) {
  byId("speaking").hidden = !isSpeaking;
  byId("speaking").textContent = say("talk.speaking", { who: lines.customer });
}

function utter() {
  const text = byId("words").value.trim();
  if (!text || pending !== null) return;
  speaker.open();
  if (!relay.send({ type: "text", text })) {
    byId("say-hint").textContent = say("talk.not_sent");
    return;
  }
  pending = text;
  byId("words").value = "";
  byId("say-hint").textContent = say("talk.sending");
}

/** The words that were typed are in the talk. */
function settle() {
  pending = null;
  showMicrophone("");
}

/** What was on its way when the line broke may not have come: the reader decides whether to say it again. */
function giveBack() {
  if (pending === null) return;
  if (!byId("words").value) byId("words").value = pending;
  pending = null;
  byId("say-hint").textContent = say("talk.given_back");
}

// --- the end

function over({ outcome, endTrigger }) {
  ended = { outcome, endTrigger };
  finish(showResult);
}

function finish(show) {
  clearInterval(ticking);
  microphone.close();
  showMicrophone("");
  byId("level").value = 0;
  phase("ended");
  show();
}

function showResult(why = "") {
  const state = score ? worth(score) : h("p", { class: why ? "" : "waiting" }, why || say("score.pending"));
  const cite = (where) => lines.cite(where);
  byId("result").hidden = false;
  byId("result").dataset.state = score || why ? "ready" : "waiting";
  fill(byId("result"),
    h("section", { class: "card ended-card" },
      h("p", {}, outcomeBadge({ outcome: ended.outcome, status: "ended" }), " ", endedBy(ended.endTrigger)),
      score ? null : state,
      h("p", {}, h("a", { href: `/dashboard/${encodeURIComponent(session.sessionId)}?${new URLSearchParams({ lang: data.language })}` }, say("talk.to_record")))),
    score ? state : null,
    score ? h("div", { class: "result-columns" }, checklist(score, cite), ...remarks(score, cite)) : null);
  byId("live").scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
}

function scored(found) {
  if (found.insufficient) return showResult(say("score.insufficient"));
  score = found;
  return ended ? showResult() : undefined;
}

/** The line is closed and the score has not come by it: look whether it is there, or whether there will be none. */
async function lookUp() {
  if (looking) return;
  looking = session;
  for (let looks = 0; looks < MOST_LOOKS && looking === session && !score; looks += 1) {
    const found = await ask(own()).catch(() => null);
    if (looking !== session) return;
    if (found?.status === "ended") {
      if (!ended) over({ outcome: found.outcome, endTrigger: found.endTrigger });
      if (found.score && !found.score.insufficient) return scored(found.score);
      if (found.analysisStatus === "none" || found.score?.insufficient) return showResult(say("score.insufficient"));
      if (found.analysisStatus === "failed") return showResult(say("score.failed"));
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
  if (!score && ended) showResult(say("score.late"));
}

// --- the controls

byId("say").addEventListener("submit", (event) => {
  event.preventDefault();
  utter();
});
byId("microphone").addEventListener("click", async () => {
  speaker.open();
  if (!microphone.isOpen) return listen();
  microphone.close();
  byId("level").value = 0;
  return showMicrophone("");
});
byId("stop").addEventListener("click", () => {
  speaker.stop();
  if (!relay.send({ type: "end_session" })) notice(say("talk.not_ended"));
});
byId("again").addEventListener("click", () => {
  looking = null;
  relay.close();
  notice("");
  phase("idle");
});
window.addEventListener("pagehide", () => microphone.close());

comeIn(enter);
