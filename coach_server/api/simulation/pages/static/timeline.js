// Attitude, talk and events of a session on one clock, drawn as SVG by hand. The figures stand in a table beside it
// for whoever does not see it.

import { h } from "../console/dom.js";
import { clock, number, say } from "../console/words.js";
import { svg } from "../practice/figures.js";
import { named } from "./wording.js";

const LEFT = 30;
const RIGHT = 14;
const TOP = 12;
const CURVE = 150;
const LANE = 30;
const AXIS = 24;
const STEPS_S = [10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
const TICK_PX = 70;
// Entries of the supervisor's trail that are moments of the talk; the others only say what it thought.
const MOMENTS = new Set(["forced", "tool", "end"]);

/** The drawing of a session's document in `home`, as wide as that is. `cite(where)` shows a line. */
export function timeline(home, session, cite) {
  const found = read(session);
  const box = h("div", { class: "clock-box", dir: "ltr" });
  home.replaceChildren(...(found.moods.length || found.lines.length || found.events.length
    ? [box, legend(found), table(found)] : [h("p", { class: "muted" }, say("timeline.none"))]));
  let wide = 0;
  const draw = () => {
    const now = Math.round(box.clientWidth);
    if (now < 60 || now === wide) return;
    wide = now;
    box.replaceChildren(picture(found, wide, cite));
  };
  draw();
  new ResizeObserver(draw).observe(box);
}

function read(session) {
  const moods = session.attitude ?? [];
  const lines = session.transcript ?? [];
  const marks = (session.supervisorLogs ?? []).filter(({ kind }) => MOMENTS.has(kind))
    .map(({ time, kind }) => ({ time, kind: "supervisor", name: named("trail", kind) }));
  const own = (session.events ?? []).map((event) => ({
    time: event.time, kind: event.type === "ERROR" ? "error" : event.type === "SYSTEM" || event.type === "SUPERVISOR" ? "supervisor" : "client",
    name: `${named("events", event.type)}${about(event.data)}`,
  }));
  const events = [...own, ...marks].filter(({ time }) => Number.isFinite(time)).sort((one, other) => one.time - other.time);
  const ends = [...moods.map(({ time }) => time), ...lines.map(({ endTime }) => endTime), ...events.map(({ time }) => time)];
  return { moods, lines, events, length: Math.max((session.durationMs ?? 0) / 1000, 1, ...ends.filter(Number.isFinite)) };
}

function about(data) {
  const words = data && typeof data === "object" ? Object.values(data).filter((value) => typeof value === "string").slice(0, 2) : [];
  return words.length ? ` (${words.map((word) => word.slice(0, 60)).join(", ")})` : "";
}

function picture(found, wide, cite) {
  const high = TOP + CURVE + 3 * LANE + AXIS;
  const x = (time) => LEFT + (Math.min(time, found.length) / found.length) * (wide - LEFT - RIGHT);
  const drawing = svg("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, class: "clock", role: "img", "aria-label": alternative(found) },
    ticks(found.length, wide, x), scale(wide), lane(0, "transcript.avatar"), lane(1, "transcript.trainee"), lane(2, "timeline.events"),
    found.lines.map((said) => strip(said, x)), curve(found, x), found.events.map((event) => mark(event, x)));
  drawing.addEventListener("click", (event) => {
    const at = event.clientX - drawing.getBoundingClientRect().left;
    cite({ time: Math.max(0, ((at - LEFT) / (wide - LEFT - RIGHT)) * found.length) });
  });
  return drawing;
}

const alternative = ({ moods, events, length }) => say("timeline.alt", {
  length: clock(length * 1000), from: moods.length ? number(Math.round(moods[0].value)) : "–",
  to: moods.length ? number(Math.round(moods.at(-1).value)) : "–", events: number(events.length),
});

const y = (value) => TOP + (1 - value / 10) * CURVE;
const laneTop = (at) => TOP + CURVE + 10 + at * LANE;

function scale(wide) {
  return [0, 5, 10].map((value) => svg("g", { class: "grid" },
    svg("line", { x1: LEFT, x2: wide - RIGHT, y1: y(value), y2: y(value) }),
    svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, String(value))));
}

function ticks(length, wide, x) {
  const most = Math.max(1, Math.floor((wide - LEFT - RIGHT) / TICK_PX));
  const step = STEPS_S.find((seconds) => length / seconds <= most) ?? Math.ceil(length / most / 3600) * 3600;
  const bottom = TOP + CURVE + 3 * LANE + 6;
  const made = [];
  for (let time = 0; time <= length; time += step) {
    const anchor = time === 0 ? "start" : x(time) > wide - RIGHT - 20 ? "end" : "middle";
    made.push(svg("g", { class: "tick-line" }, svg("line", { x1: x(time), x2: x(time), y1: TOP, y2: bottom }),
      svg("text", { x: x(time), y: bottom + 14, "text-anchor": anchor }, clock(time * 1000))));
  }
  return made;
}

const lane = (at, path) => svg("text", { class: "lane", x: LEFT, y: laneTop(at) + 10 }, say(path));

function strip({ speaker, startTime, endTime, text }, x) {
  const at = speaker === "TRAINEE" ? 1 : 0;
  const wide = Math.max(3, x(endTime) - x(startTime));
  return svg("rect", { class: `strip ${speaker === "TRAINEE" ? "trainee" : "avatar"}`, x: x(startTime), y: laneTop(at) + 14, width: wide, height: 9, rx: 2 },
    svg("title", {}, `${clock(startTime * 1000)} ${text.slice(0, 160)}`));
}

/** A value holds until the next one. */
function curve({ moods, length }, x) {
  if (!moods.length) return [];
  const points = moods.flatMap(({ time, value }, at) => {
    const corner = `${x(time).toFixed(1)},${y(value).toFixed(1)}`;
    return at === 0 ? [corner] : [`${x(time).toFixed(1)},${y(moods[at - 1].value).toFixed(1)}`, corner];
  });
  points.push(`${x(length).toFixed(1)},${y(moods.at(-1).value).toFixed(1)}`);
  return svg("g", { class: "attitude" }, svg("polyline", { points: points.join(" ") }),
    moods.map(({ time, value, direction }) => svg("circle", { cx: x(time), cy: y(value), r: 4 },
      svg("title", {}, `${clock(time * 1000)}: ${number(Math.round(value * 10) / 10)} (${named("directions", direction)})`))));
}

/** Three shapes, so that they differ without their colours too. */
function mark({ time, kind, name }, x) {
  const [cx, cy] = [x(time), laneTop(2) + 18];
  const told = svg("title", {}, `${clock(time * 1000)} ${name}`);
  if (kind === "error") return svg("path", { class: "event error", d: `M${cx} ${cy - 6}l6 11h-12z` }, told);
  if (kind === "supervisor") return svg("rect", { class: "event supervisor", x: cx - 4, y: cy - 4, width: 8, height: 8 }, told);
  return svg("circle", { class: "event client", cx, cy, r: 5 }, told);
}

function legend({ moods, events }) {
  const kinds = ["client", "supervisor", "error"].filter((kind) => events.some((event) => event.kind === kind));
  return h("p", { class: "legend-line" },
    moods.length ? h("span", { class: "key", "data-kind": "attitude" }, say("timeline.attitude")) : null,
    kinds.map((kind) => h("span", { class: "key", "data-kind": kind }, say(`timeline.${kind}`))));
}

function table({ moods, events }) {
  const rows = [
    ...moods.map(({ time, value, direction }) => [time, `${say("timeline.attitude")} ${number(Math.round(value * 10) / 10)} (${named("directions", direction)})`]),
    ...events.map(({ time, name }) => [time, name]),
  ].sort(([one], [other]) => one - other);
  return h("details", { class: "as-table" }, h("summary", {}, say("timeline.table")),
    h("table", {}, h("tbody", {}, rows.map(([time, what]) => h("tr", {}, h("td", {}, clock(time * 1000)), h("td", { dir: "auto" }, what))))));
}
