// Small pictures of a score of 100: a bar and a ring. The figure itself always stands beside them as text.

import { h } from "../console/dom.js";
import { say } from "../console/words.js";

const NS = "http://www.w3.org/2000/svg";
const RADIUS = 52;
const AROUND = 2 * Math.PI * RADIUS;

/** An element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children.flat());
  return element;
}

export function meter(score) {
  const bar = h("i", {});
  bar.style.inlineSize = `${score}%`;
  return h("span", { class: "meter", "aria-hidden": "true" }, bar);
}

export function ring(score) {
  const circle = { cx: 60, cy: 60, r: RADIUS };
  const part = `${(score / 100) * AROUND} ${AROUND}`;
  return h("div", { class: "ring", role: "img", "aria-label": say("result.of_100", { score }) },
    svg("svg", { viewBox: "0 0 120 120", "aria-hidden": "true" },
      svg("circle", { class: "ring-all", ...circle }),
      svg("circle", { class: "ring-full", ...circle, "stroke-dasharray": part })),
    h("b", { id: "overall-score", "aria-hidden": "true" }, String(score)));
}
