// One session: what it was worth, what was said, and how the customer's attitude moved with it.

import { byId, fill, h } from "../console/dom.js";
import { data, number, say } from "../console/words.js";
import { Refusal, ask } from "../practice/access.js";
import { languageName } from "../practice/scenarios.js";
import { download } from "./download.js";
import { Lines } from "./lines.js";
import { endedBy, outcomeBadge } from "./outcome.js";
import { checklist, details, remarks, worth } from "./score.js";
import { timeline } from "./timeline.js";
import { exportsOf, trail } from "./trail.js";
import { comeIn } from "./viewer.js";
import { clip, lasted, when } from "./wording.js";

const path = `/api/sessions/${encodeURIComponent(data.sessionId)}`;
const lines = new Lines();
const LOOK_AGAIN_MS = 3000;
const MOST_LOOKS = 20;
let looks = 0;
const cite = (where) => lines.cite(where);

async function load() {
  looks += 1;
  try {
    const found = await ask(path);
    show(found);
    if (found.analysisStatus === "pending" && looks < MOST_LOOKS) setTimeout(load, LOOK_AGAIN_MS);
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    byId("state").hidden = false;
    byId("state").textContent = refusal.status === 404 ? say("record.unknown") : say("record.failed", { message: refusal.message });
  }
  document.body.dataset.ready = "true";
}

function show(found) {
  byId("state").hidden = true;
  byId("record-body").hidden = false;
  byId("record-buttons").hidden = false;
  byId("files").disabled = found.status !== "ended";
  byId("report").disabled = found.status !== "ended" || found.analysisStatus === "pending";
  const name = clip(found.personaName ?? "", 80);
  byId("record-heading").textContent = `${found.sessionId} · ${name}`;
  document.title = `${found.sessionId}: Coach Server`;
  fill(byId("record-about"), outcomeBadge(found), " ", h("bdi", { class: "clipped" }, clip(found.traineeId, 120)),
    " · ", h("time", { dir: "ltr" }, when(found.createdAt)), " · ", endedBy(found.endTrigger) || say(`status.${found.status}`));
  fill(byId("figures"), figures(found));
  fill(byId("score"), worth(found.score) ?? h("p", { class: "notice plain", id: "no-score" }, why(found)));
  lines.customer = name;
  lines.merge(found.transcript ?? []);
  byId("lines-empty").textContent = say(found.storeTranscript === false ? "transcript.not_kept" : "transcript.none");
  timeline(byId("timeline"), found, cite);
  fill(byId("beside"), beside(found));
  fill(byId("trail"), trail(found.supervisorLogs) ?? []);
}

function why({ status, analysisStatus, score }) {
  if (status !== "ended") return say("score.still_running");
  if (analysisStatus === "pending") return say("score.pending");
  if (analysisStatus === "failed") return say("score.failed");
  return say(score?.insufficient || analysisStatus === "none" ? "score.insufficient" : "score.none");
}

function beside(found) {
  const score = found.score ?? {};
  return [checklist(score, cite), ...remarks(score, cite), ...details(score), exportsOf(found.exports)];
}

function figures(found) {
  const rows = [
    ["record.scenario", found.scenarioId],
    ["record.duration", lasted(found.durationMs)],
    ["record.exchanges", number(found.exchanges ?? 0)],
    ["record.attitude", typeof found.finalAttitude === "number" ? say("record.of_ten", { value: found.finalAttitude }) : null],
    ["record.language", languageName(found.language)],
    ["record.team", found.teamId],
    ["record.client", found.client],
  ];
  return rows.filter(([, value]) => value).map(([text, value]) =>
    h("div", { class: "card" }, h("dt", {}, say(text)), h("dd", { dir: "auto" }, h("span", { class: "clipped" }, clip(String(value), 200)))));
}

byId("report").addEventListener("click", ({ target }) =>
  download(`${path}/report`, `${data.sessionId}.pdf`, target));
byId("files").addEventListener("click", ({ target }) => download(`${path}/data`, `${data.sessionId}.zip`, target));

// Back to the list as it was.
const view = sessionStorage.getItem("coach-dashboard");
if (view?.startsWith("/dashboard?")) byId("back").href = view;

comeIn(load);
