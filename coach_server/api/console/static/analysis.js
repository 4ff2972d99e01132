// The analysis after the call: fetched when it is ready, laid out for reading.

import { h } from "./dom.js";
import { pause } from "./outbox.js";
import { clock, dollars, number, percent, say } from "./words.js";

const MOST_TRIES = 30;
const FIRST_LOOK_MS = 3000;

/** The document of GET /api/conversations/{id}/analysis, asked for once it is `announced` (a promise) or should
 * be there; then as often as the server says that it is still being made. */
export async function fetchAnalysis(id, headers, announced) {
  await Promise.race([announced, pause(FIRST_LOOK_MS)]);
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    const answer = await fetch(`/api/conversations/${encodeURIComponent(id)}/analysis`, { headers, cache: "no-store" });
    const body = await answer.json();
    if (answer.ok) return body;
    if (answer.status !== 409 && answer.status !== 429 && answer.status !== 503) throw new Error(body.message);
    const seconds = Number(answer.headers.get("Retry-After")) || 2;
    await pause(seconds * 1000);
  }
  throw new Error("409");
}

/** The page of `document`. `usage`: of CONVERSATION_ENDED. `share`: the agent's share of the words, if known. */
export function analysisPage(document, usage, share) {
  const parts = [h("p", { class: "summary card" }, document.summary)];
  if (document.provisional) parts.push(h("p", { class: "muted" }, say("analysis.provisional")));
  parts.push(figures(document, usage, share));
  if (document.stage?.path?.length) parts.push(path(document));
  if (!document.insufficient) {
    parts.push(h("div", { class: "two" },
      h("div", { class: "stack" },
        remarks("strengths", document.strengths), objections(document.objections ?? [])),
      h("div", { class: "stack" },
        nextStep(document.nextStep), remarks("improvements", document.improvements),
        facts(document.facts ?? {}), ledger(document.tips?.ledger ?? []))));
  }
  return parts;
}

const card = (title, ...children) => h("section", { class: "card" }, h("h3", {}, title), ...children);

const quote = (cited, who = true) => cited?.quote
  ? h("blockquote", { class: cited.speaker },
    who ? h("span", { class: "cite" }, say(`transcript.${cited.speaker}`), " ", clock(cited.atMs)) : null,
    h("span", { dir: "auto" }, cited.quote))
  : null;

function figures(document, usage, share) {
  const conduct = document.conduct ?? {};
  const talk = conduct.talkShare ?? share;
  const asked = document.questions;
  const rows = [
    ["duration", clock(document.durationMs)],
    ["reached", document.stage ? say(`stages.${document.stage.reached}`) : null],
    ["talk_share", typeof talk === "number" ? `${percent(talk)}%` : null],
    ["questions", asked ? say("analysis.questions_of", asked) : null],
    ["tips", document.tips ? say("analysis.tips_of", document.tips) : null],
    ["monologue", conduct.longestMonologueWords
      ? say("analysis.monologue_of", { words: conduct.longestMonologueWords }) : null],
    ["pace", pace(conduct)],
    ["cost", cost(usage)],
  ];
  return h("dl", { class: "figures" }, rows.filter(([, value]) => value).map(([name, value]) =>
    h("div", { class: "card" }, h("dt", {}, say(`analysis.${name}`)), h("dd", {}, value))));
}

function pace(conduct) {
  const wpm = conduct.wordsPerMinute;
  return typeof wpm === "number" ? say("analysis.pace_of", { wpm: Math.round(wpm) }) : null;
}

function cost(usage) {
  if (!usage) return null;
  if (!usage.modelCalls) return say("analysis.cost_none");
  const tokens = number(usage.inputTokens + usage.outputTokens);
  return say("analysis.cost_of", { tokens, usd: dollars(usage.costMicroUsd) });
}

function path(document) {
  return card(say("analysis.path"), h("ol", { class: "path" }, document.stage.path.map((step) =>
    h("li", {}, h("b", {}, say(`stages.${step.stage}`)), " ", h("time", {}, clock(step.atMs))))));
}

function remarks(kind, found) {
  const items = (found ?? []).map((remark) => h("li", {},
    h("p", { class: "remark" }, remark.text),
    remark.advice ? h("p", { class: "advice" }, remark.advice) : null,
    (remark.evidence ?? []).map((cited) => quote(cited)),
    better(remark.betterLine)));
  return h("section", { class: `card ${kind}` }, h("h3", {}, say(`analysis.${kind}`)),
    items.length ? h("ul", { class: "remarks" }, items)
      : h("p", { class: "muted" }, say(`analysis.${kind}_none`)));
}

const better = (line) => line
  ? h("p", { class: "better" }, h("span", { class: "over" }, say("analysis.better")), " ", h("q", {}, line)) : null;

function objections(found) {
  const items = found.map((one) => h("li", {},
    h("p", {}, h("b", {}, say(`objections.${one.kind}`)), " ",
      h("span", { class: `badge met ${one.met}` }, say(`met.${one.met}`)), " ",
      h("span", { class: "muted" }, say(`aftermath.${one.aftermath}`))),
    quote(one), quote(one.response), better(one.betterLine)));
  return card(say("analysis.objections"), items.length ? h("ul", { class: "remarks" }, items)
    : h("p", { class: "muted" }, say("analysis.objections_none")));
}

function nextStep(step) {
  const title = say("analysis.next_step");
  if (!step?.proposed) return card(title, h("p", { class: "muted" }, say("analysis.none_agreed")));
  return card(title,
    h("p", {}, h("span", { class: `badge met ${step.agreed ? "answered" : "ignored"}` },
      say(step.agreed ? "analysis.agreed" : "analysis.proposed")), " ", step.when ? h("b", {}, step.when) : null),
    quote(step), quote(step.confirmation));
}

function facts(found) {
  const told = Object.entries(found).filter(([key]) => !key.endsWith("_known"));
  if (!told.length) return null;
  return card(say("analysis.facts"), h("dl", { class: "facts" }, told.map(([key, value]) =>
    h("div", {}, h("dt", {}, say(`facts.${key}`)), h("dd", { dir: "auto" }, value)))));
}

function ledger(entries) {
  if (!entries.length) return null;
  return card(say("analysis.taken"), h("ol", { class: "ledger" }, entries.map((entry) => h("li", {},
    h("p", {}, h("time", {}, clock(entry.atMs)), " ", h("b", {}, entry.heading ?? say(`stages.${entry.stage}`)), " ",
      h("span", { class: `badge fate ${entry.fate}` }, say(`fates.${entry.fate}`)),
      entry.clicked ? h("span", { class: "badge took" }, say("tip.chosen")) : null),
    entry.said?.quote ? h("p", { class: "said" },
      h("span", { class: "muted" }, say(entry.fate === "taken" ? "analysis.said" : "analysis.said_instead")), " ",
      h("q", { dir: "auto" }, entry.said.quote)) : null))));
}
