// What a talk was worth: the feedback document laid out for reading. A score that is null was not given and is
// shown as such; a 0 is a score.

import { h } from "../console/dom.js";
import { say } from "../console/words.js";
import { drillCards } from "./drills.js";
import { meter, ring } from "./figures.js";

const isScore = (value) => typeof value === "number";

/** `+7`, `−3`, `0`: with a real minus sign. */
export const signed = (delta) => (delta > 0 ? `+${delta}` : delta < 0 ? `−${-delta}` : "0");

/** The page of `found`. `drill`: what became of the moment that was played again, where it was one. `flow`: names of
 * steps and what is open. `play(drill)`, `practise(stepId)`: what next. */
export function resultPage(found, { drill, flow, method, play, practise }) {
  const parts = [drill ? replayed(drill, play) : null, honest(found, drill), score(found)];
  if (!found.method) return parts;
  parts.push(h("div", { class: "two" },
    h("div", { class: "stack" }, highlights(found.highlights ?? []), missed(found)),
    h("div", { class: "stack" }, advice(found, flow, practise), used(found, flow))));
  const drills = drillCards(found.drills ?? [], play);
  if (drills.length) {
    parts.push(h("section", { class: "open-drills" }, h("h2", {}, say("drills.heading")),
      h("p", { class: "muted" }, say("drills.lead")), h("ul", { class: "drills" }, drills)));
  }
  parts.push(h("p", { class: "muted judged" }, [
    say(found.source === "openai" ? "result.by_model" : "result.by_rules"), methodLine(found, method),
    found.sessionDuration ? say("result.duration", { time: found.sessionDuration }) : null,
  ].filter(Boolean).join(" · ")));
  return parts;
}

function replayed(drill, play) {
  const isClosed = drill.status === "closed";
  return h("section", { class: "card replayed", id: "replayed", "data-status": drill.status },
    h("p", { class: "remark" }, say(isClosed ? "result.drill_closed" : "result.drill_open")),
    isClosed ? null : h("button", { type: "button", onclick: () => play(drill) }, say("drills.play")));
}

/** What keeps the figures from being sure. A drill is always too short to be scored as a talk. */
function honest(found, drill) {
  const notes = [
    found.insufficient && !drill ? say("result.insufficient") : null, found.provisional ? say("result.provisional") : null,
  ].filter(Boolean);
  return notes.length ? h("div", { class: "notice plain", id: "honest" }, notes.map((note) => h("p", {}, note))) : null;
}

const methodLine = (found, method) => found.method
  ? say("result.method", { name: method?.name ?? found.method.id, version: found.method.version }) : null;

const card = (title, ...children) => h("section", { class: "card" }, h("h2", {}, title), ...children);

// --- figures

function score(found) {
  if (!isScore(found.overallScore)) return null;
  return h("section", { class: "card worth", "aria-label": say("result.overall") },
    h("div", { class: "overall" }, ring(found.overallScore), h("div", {}, deltaLine(found),
      isScore(found.band) ? h("p", { class: "muted" }, say("result.band", { points: found.band })) : null)),
    h("dl", { class: "parts", "aria-label": say("result.parts") },
      Object.entries(found.subScores ?? {}).map(([name, value]) => part(name, value, found))));
}

function deltaLine({ delta }) {
  if (!isScore(delta)) return h("p", { class: "delta" }, say("result.first"));
  const kind = delta > 0 ? "up" : delta < 0 ? "down" : "same";
  const text = delta === 0 ? [say("result.delta_same")] : around("result.delta", h("b", { dir: "ltr" }, signed(delta)));
  return h("p", { class: `delta ${kind}`, id: "delta" }, text);
}

/** A text with its `{delta}` as an element. */
function around(path, element) {
  const [before, after] = say(path, { delta: "\u0000" }).split("\u0000");
  return [before, element, after].filter((child) => child !== "");
}

function part(name, value, found) {
  const applies = isScore(value) && !(found.notApplicable ?? []).includes(name);
  const change = applies ? found.comparedToPrevious?.[name]?.delta : null;
  return h("div", { class: "part" }, h("dt", {}, say(`sub_scores.${name}`)),
    h("dd", {}, applies ? meter(value) : null,
      applies ? h("span", { class: "value" }, String(value)) : h("span", { class: "muted" }, say("result.not_applicable")),
      isScore(change) && change !== 0 ? h("span", { class: `change ${change > 0 ? "up" : "down"}`, dir: "ltr" }, signed(change)) : null));
}

// --- words

function highlights(found) {
  const items = found.map(({ type, text }) => h("li", { class: type === "good" ? "good" : "warning" },
    h("p", { class: "over" }, say(type === "good" ? "result.good" : "result.warning")),
    h("p", { dir: "auto" }, text)));
  return card(say("result.highlights"), items.length ? h("ul", { class: "remarks stood-out" }, items)
    : h("p", { class: "muted" }, say("result.highlights_none")));
}

function missed(found) {
  const moments = found.missedMoments ?? [];
  if (found.insufficient && !moments.length) return null;
  const items = moments.map((moment) => h("li", {},
    h("p", { class: "remark", dir: "auto" }, moment.name),
    moment.why ? h("p", { class: "muted", dir: "auto" }, moment.why) : null,
    quote(moment.customer), quote(moment.seller),
    moment.better ? h("p", { class: "better" },
      h("span", { class: "over" }, say("result.better")), " ", h("q", { dir: "auto" }, moment.better)) : null));
  return card(say("result.missed"), items.length ? h("ul", { class: "remarks" }, items)
    : h("p", { class: "muted" }, say("result.missed_none")));
}

function quote(cited) {
  if (!cited?.quote) return null;
  const isSeller = cited.speaker === "user" || cited.speaker === "agent";
  return h("blockquote", { class: isSeller ? "agent" : "caller" },
    h("span", { class: "cite" }, say(isSeller ? "result.you_said" : "result.customer_said")),
    h("span", { dir: "auto" }, cited.quote));
}

function advice(found, flow, practise) {
  const step = found.nextStepSuggestion;
  return card(say("result.advice"),
    found.advice ? h("p", { class: "advice-text", dir: "auto" }, found.advice) : null,
    step ? h("div", { class: "next" }, h("p", { class: "over" }, say("result.next_step")),
      h("p", {}, h("b", { dir: "auto" }, flow.stepName(step))),
      flow.isOpen(step) ? h("button", { type: "button", class: "practise-step", onclick: () => practise(step) },
        say("result.practise_step", { step })) : null) : null);
}

function used(found, flow) {
  const ids = found.techniquesUsed ?? [];
  return card(say("result.used"), ids.length ? h("ul", { class: "used" }, ids.map((id) => {
    const value = found.techniqueScores?.[id];
    return h("li", {}, h("span", { dir: "auto" }, flow.stepName(id)), " ",
      isScore(value) ? h("span", { class: "badge" }, String(value)) : null);
  })) : h("p", { class: "muted" }, say("result.used_none")));
}
