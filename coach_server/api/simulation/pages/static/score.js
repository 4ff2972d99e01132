// What a session was worth: the seed's shape first, and what the server tells beside it where it does. Whatever is
// not there is left out; a 0 is a score.

import { h } from "../console/dom.js";
import { clock, say } from "../console/words.js";
import { meter, ring } from "../practice/figures.js";
import { named } from "./wording.js";

const isScore = (value) => typeof value === "number";
const textOf = (item) => (typeof item === "string" ? item : item?.text ?? item?.reason ?? item?.quote ?? item?.word ?? item?.id ?? "");

export const card = (title, id, ...children) => h("section", { class: "card", id }, h("h2", {}, title), ...children);

/** The figures and the summary. `score` null: there is none (yet). */
export function worth(score) {
  if (!score || score.insufficient || !isScore(score.overall)) return null;
  return h("section", { class: "card worth", "aria-label": say("score.heading") },
    h("div", { class: "overall" }, ring(score.overall), h("div", {},
      score.summary ? h("p", { class: "summed", dir: "auto" }, score.summary) : null,
      score.provisional ? h("p", { class: "muted", id: "provisional" }, say("score.provisional")) : null)),
    h("dl", { class: "parts", "aria-label": say("score.parts") },
      Object.entries(score.categories ?? {}).map(([name, value]) => part(name, value))));
}

function part(name, value) {
  return h("div", { class: "part" }, h("dt", {}, named("categories", name)),
    h("dd", {}, isScore(value) ? meter(value) : null,
      h("span", { class: isScore(value) ? "value" : "muted" }, isScore(value) ? String(Math.round(value)) : say("score.no_figure"))));
}

/** What was good, what could be better, what went wrong. */
export function remarks(score) {
  return [
    list("score.highlights", "highlights", "strengths", score.highlights),
    list("score.improvements", "improvements", "improvements", score.improvements),
    list("score.fails", "fails", "failures", score.fails),
  ].filter(Boolean);
}

function list(title, id, kind, items) {
  if (!items?.length) return null;
  return h("section", { class: `card ${kind}`, id }, h("h2", {}, say(title)),
    h("ul", { class: "bullets" }, items.map((item) => h("li", {}, h("span", { dir: "auto" }, textOf(item))))));
}

/** `cite({time, quote, speaker})` shows the line. */
export function evidence(score, cite) {
  const items = (score.evidence ?? []).filter((item) => item?.quote);
  if (!items.length) return null;
  return card(say("score.evidence"), "evidence", h("ul", { class: "cited-list" }, items.map((item) =>
    h("li", {}, h("span", { class: "over" }, named("categories", item.criterion ?? "evidence")), quoteButton(item, cite)))));
}

function quoteButton({ quote, time, speaker }, cite) {
  const at = isScore(time) ? h("time", {}, clock(time * 1000)) : null;
  return h("button", { type: "button", class: "because", title: say("score.show"), onclick: () => cite({ time: isScore(time) ? time : null, quote, speaker }) },
    h("q", { dir: "auto" }, quote), " ", at);
}

/** The sales steps; each with what shows it. */
export function checklist(score, cite) {
  const steps = score.checklist ?? [];
  if (!steps.length) return null;
  return card(say("score.checklist"), "checklist", h("ul", { class: "checks" }, steps.map((step) =>
    h("li", { "data-check": step.state },
      h("span", { class: "tick-mark", "aria-hidden": "true" }),
      h("div", {}, h("p", {}, h("span", { dir: "auto" }, step.name ?? named("steps", step.id)), " ",
        h("span", { class: "over" }, named("checks", step.state))),
      step.quote ? quoteButton(step, cite) : null)))));
}

/** Checks and wording: whatever the server tells of it, row by row. */
export function details(score) {
  return [table("score.compliance", "compliance", score.compliance), table("score.phases", "phases", score.phaseHandling)]
    .filter(Boolean);
}

function table(title, id, found) {
  const rows = found && typeof found === "object" ? Object.entries(found).filter(([, value]) => told(value) !== null) : [];
  if (!rows.length) return null;
  return card(say(title), id, h("dl", { class: "facts" }, rows.map(([name, value]) =>
    h("div", {}, h("dt", {}, named("facts", name)), h("dd", { dir: "auto" }, told(value))))));
}

function told(value) {
  if (value === null || value === undefined || value === "") return null;
  if (typeof value === "boolean") return say(value ? "facts.yes" : "facts.no");
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return named("facts", value);
  if (Array.isArray(value)) return value.length ? value.map(textOf).join(", ") : say("facts.nothing");
  const inner = Object.entries(value).map(([name, one]) => `${named("facts", name)}: ${told(one) ?? "–"}`);
  return inner.length ? inner.join(", ") : null;
}
