// A phase is completed: a word about it, and a little confetti for whoever likes things to move.

import { byId, calm, fill, h } from "../console/dom.js";
import { say } from "../console/words.js";

const SHOWN_MS = 3600;
const PIECES = 36;
const COLOURS = ["teal", "amber-line", "green", "mark", "line-strong"];

let hiding = null;

/** `next`: the name of the phase that is open now, empty after the last. */
export function celebrate(phase, next) {
  byId("cheer-over").textContent = say("cheer.over");
  byId("cheer-name").textContent = phase;
  byId("cheer-next").textContent = next ? say("cheer.next", { phase: next }) : say("cheer.last");
  fill(byId("confetti"), calm() ? [] : Array.from({ length: PIECES }, piece));
  byId("celebration").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => {
    byId("celebration").hidden = true;
  }, SHOWN_MS);
}

/** Spread evenly, so that no two look the same and none needs chance. */
function piece(_, number) {
  const made = h("i", {});
  made.style.setProperty("--at", `${(number * 61) % 100}%`);
  made.style.setProperty("--drift", `${((number * 37) % 21) - 10}rem`);
  made.style.setProperty("--turn", `${((number * 83) % 720) + 180}deg`);
  made.style.setProperty("--late", `${(number * 29) % 500}ms`);
  made.style.setProperty("--colour", `var(--${COLOURS[number % COLOURS.length]})`);
  return made;
}
