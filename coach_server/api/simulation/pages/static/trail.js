// What happened behind the scenes: the supervisor's trail and what was sent to other systems.

import { h } from "../console/dom.js";
import { clock, say } from "../console/words.js";
import { card } from "./score.js";
import { clip, named, when } from "./wording.js";

/** `supervisorLogs`: `{time, kind, …}`. */
export function trail(logs) {
  if (!logs?.length) return null;
  return h("details", { class: "card as-table trail" }, h("summary", {}, say("trail.heading", { count: logs.length })),
    h("table", {}, h("tbody", {}, logs.map(({ time, kind, ...rest }) => h("tr", {},
      h("td", {}, clock(time * 1000)), h("td", {}, named("trail", kind)), h("td", { dir: "auto" }, words(rest)))))));
}

const words = (found) => Object.entries(found).filter(([, value]) => value !== null && value !== "")
  .map(([name, value]) => `${name}: ${clip(typeof value === "object" ? JSON.stringify(value) : String(value), 240)}`).join(" · ");

export function exportsOf(found) {
  if (!found?.length) return null;
  return card(say("exports.heading"), "exports", h("ul", { class: "used" }, found.map((one) => h("li", {},
    h("span", {}, named("exports", one.status), one.errorCode ? h("span", { class: "muted", dir: "ltr" }, ` ${one.errorCode}`) : null),
    h("time", { class: "muted", dir: "ltr" }, when(one.sentAt ?? one.createdAt))))));
}
