// The skill curve: every scored talk in the order in which it was held, practice and real calls as two lines.
// Drawn as SVG by hand; the figures stand in a table beside it for whoever does not see it.

import { h } from "../console/dom.js";
import { data, say } from "../console/words.js";
import { svg } from "./figures.js";

const WIDE = 760;
const HIGH = 260;
const LEFT = 36;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 34;
const MOST_DATES = 6;

export const day = (iso) =>
  new Intl.DateTimeFormat(data.language, { day: "numeric", month: "short" }).format(new Date(iso));

const isReal = ({ kind }) => kind === "call";

/** The drawing, its legend and the table of `points` [{at, score, kind}], oldest first. */
export function skillCurve(points) {
  const placed = points.map((point, at) => ({ ...point, x: x(at, points.length), y: y(point.score) }));
  const lines = [["practice", placed.filter((point) => !isReal(point))], ["real", placed.filter(isReal)]];
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "curve", role: "img", "aria-label": alternative(points) },
    grid(), dates(placed), lines.map(([name, series]) => line(name, series)));
  return [legend(lines), h("div", { class: "curve-box", dir: "ltr" }, drawing), table(points)];
}

const x = (at, count) => (count === 1 ? (LEFT + WIDE - RIGHT) / 2 : LEFT + (at / (count - 1)) * (WIDE - LEFT - RIGHT));
const y = (score) => TOP + (1 - score / 100) * (HIGH - TOP - BOTTOM);

function alternative(points) {
  const last = points.at(-1);
  return say("progress.curve_alt", { first: day(points[0].at), last: day(last.at), count: points.length, score: last.score });
}

function grid() {
  return [0, 25, 50, 75, 100].map((score) => svg("g", { class: "grid" },
    svg("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(score), y2: y(score) }),
    svg("text", { x: LEFT - 8, y: y(score) + 4, "text-anchor": "end" }, String(score))));
}

/** A date below the first talk of a day, as many as fit. */
function dates(placed) {
  const gap = (WIDE - LEFT - RIGHT) / MOST_DATES;
  const shown = [];
  for (const point of placed) {
    const before = shown.at(-1);
    if (before && (day(before.at) === day(point.at) || point.x - before.x < gap)) continue;
    shown.push(point);
  }
  return shown.map((point) => svg("text", {
    class: "date", x: point.x, y: HIGH - 10, "text-anchor": anchor(point.x),
  }, day(point.at)));
}

const anchor = (at) => (at < LEFT + 20 ? "start" : at > WIDE - RIGHT - 20 ? "end" : "middle");

function line(name, series) {
  const path = series.map((point) => `${point.x.toFixed(1)},${point.y.toFixed(1)}`).join(" ");
  return svg("g", { class: "series", "data-series": name },
    series.length > 1 ? svg("polyline", { points: path }) : [],
    series.map((point) => mark(name, point)));
}

/** A dot for practice, a square for a real call: the lines differ without their colours too. */
function mark(name, { x: cx, y: cy, at, score, kind }) {
  const told = svg("title", {}, `${day(at)}: ${score} (${say(`kinds.${kind}`)})`);
  return name === "real" ? svg("rect", { x: cx - 5, y: cy - 5, width: 10, height: 10 }, told)
    : svg("circle", { cx, cy, r: 5 }, told);
}

function legend(lines) {
  return h("p", { class: "legend-line" }, lines.filter(([, series]) => series.length).map(([name]) =>
    h("span", { class: "key", "data-series": name }, say(name === "real" ? "progress.real" : "progress.practice"))));
}

function table(points) {
  const head = ["progress.date", "progress.kind", "progress.score"];
  return h("details", { class: "as-table" }, h("summary", {}, say("progress.table")),
    h("table", {}, h("thead", {}, h("tr", {}, head.map((path) => h("th", { scope: "col" }, say(path))))),
      h("tbody", {}, [...points].reverse().map(({ at, kind, score }) => h("tr", {},
        h("td", {}, day(at)), h("td", {}, say(`kinds.${kind}`)), h("td", {}, String(score)))))));
}
