// The hints beside the talk: the newest on top, the older ones quieter, no more than can be read.

import { byId, fill, h } from "../console/dom.js";
import { say } from "../console/words.js";

const MOST = 5;

export function clearHints() {
  fill(byId("hints"));
  byId("hints-empty").hidden = false;
}

/** `hint`: {stepId, hintText, type}. `name`: of the step, empty where it has none. */
export function showHint({ hintText, type }, name) {
  const kind = type === "warning" ? "warning" : "tip";
  const list = byId("hints");
  list.prepend(h("li", { class: "hint-card card", "data-kind": kind },
    h("p", { class: "over" }, say(`hints.${kind}`), name ? h("bdi", { class: "hint-step" }, name) : null),
    h("p", { dir: "auto" }, hintText)));
  while (list.children.length > MOST) list.lastElementChild.remove();
  byId("hints-empty").hidden = true;
}
