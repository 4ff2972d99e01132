// What a session was worth: the seed's shape, and what the server tells beside it. A remark that has a quote leads to
// the line in the talk. Whatever is not there is left out; a 0 is a score.

import { h } from "../console/dom.js";
import { clock, say } from "../console/words.js";
import { meter, ring } from "../practice/figures.js";
import { named } from "./wording.js";

const isScore = (value) => typeof value === "number";

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

/** What was good, what could be better, what went wrong. `cite({time, quote, speaker})` shows the line. */
export function remarks(score, cite) {
  const fails = new Set(score.fails ?? []);
  const all = score.remarks ?? plain(score);
  const warnings = all.filter(({ type }) => type === "warning");
  return [
    list("score.highlights", "highlights", "strengths", all.filter(({ type }) => type === "good"), cite),
    list("score.fails", "fails", "failures", warnings.filter(({ text }) => fails.has(text)), cite),
    list("score.improvements", "improvements", "improvements", warnings.filter(({ text }) => !fails.has(text)), cite),
  ].filter(Boolean);
}

/** The seed's own lists, which have no quotes. */
const plain = ({ highlights = [], improvements = [] }) => [
  ...highlights.map((text) => ({ type: "good", text })), ...improvements.map((text) => ({ type: "warning", text })),
];

function list(title, id, kind, items, cite) {
  if (!items.length) return null;
  return h("section", { class: `card ${kind}`, id }, h("h2", {}, say(title)),
    h("ul", { class: "bullets" }, items.map((item) => h("li", {}, h("span", { dir: "auto" }, item.text),
      item.quote ? quoteButton(item, cite, item.text.includes(item.quote)) : null))));
}

/** `isTold`: the text above it holds the quote already. */
function quoteButton({ quote, time, speaker }, cite, isTold = false) {
  const at = isScore(time) ? h("time", {}, clock(time * 1000)) : null;
  return h("button", {
    type: "button", class: isTold ? "because brief" : "because", title: say("score.show"),
    onclick: () => cite({ time: isScore(time) ? time : null, quote, speaker }),
  }, isTold ? say("score.show") : h("q", { dir: "auto" }, quote), " ", at);
}

/** The sales steps; each with what shows it. */
export function checklist(score, cite) {
  const steps = score.steps ?? [];
  if (!steps.length) return null;
  return card(say("score.checklist"), "checklist", h("ul", { class: "checks" }, steps.map((step) =>
    h("li", { "data-check": step.state },
      h("span", { class: "tick-mark", "aria-hidden": "true" }),
      h("div", {}, h("p", {}, h("span", { dir: "auto" }, step.name ?? step.id), " ",
        h("span", { class: "over" }, named("checks", step.state))),
      step.quote ? quoteButton(step, cite) : null)))));
}

/** Rules and phases, row by row. */
export function details(score) {
  return [table("score.compliance", "compliance", rules(score.complianceDetails ?? {})),
    table("score.phases", "phases", Object.entries(score.phaseHandling ?? {}))].filter(Boolean);
}

/** The two checks of the trade by their names, or a trade's own where it has neither; then the words, and how far
 * the score could still rise. */
function rules({ ageVerification, smokerCheck, checks, forbiddenWords, cap }) {
  const known = ageVerification || smokerCheck
    ? [["ageVerification", ageVerification], ["smokerCheck", smokerCheck]] : Object.entries(checks ?? {});
  const words = forbiddenWords?.map(({ word, quote }) => (quote ? `${word} (“${quote}”)` : word));
  return [...known, ["forbiddenWords", words], ["cap", cap]];
}

function table(title, id, rows) {
  const filled = rows.filter(([, value]) => value !== null && value !== undefined);
  if (!filled.length) return null;
  return card(say(title), id, h("dl", { class: "facts" }, filled.map(([name, value]) =>
    h("div", {}, h("dt", {}, named("facts", name)), h("dd", { dir: "auto" }, told(value))))));
}

function told(value) {
  if (typeof value === "boolean") return say(value ? "facts.yes" : "facts.no");
  if (Array.isArray(value)) return value.length ? value.map((one) => String(one).replaceAll("_", " ")).join(", ") : say("facts.nothing");
  return typeof value === "string" ? named("facts", value) : String(value);
}
