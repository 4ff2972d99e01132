// How a session ended, as a badge and as a sentence.

import { h } from "../console/dom.js";
import { say } from "../console/words.js";
import { named } from "./wording.js";

const STATES = ["created", "active"];

/** The outcome, or while there is none the state. */
export function outcomeBadge({ outcome, status }) {
  const isOpen = STATES.includes(status);
  const text = isOpen ? named("status", status) : named("outcomes", outcome ?? "none");
  return h("span", { class: "badge outcome", "data-outcome": isOpen ? status : outcome ?? "none" }, text);
}

/** Who ended it. `trigger`: as the server tells it, `supervisor:converted`. */
export function endedBy(trigger) {
  if (!trigger) return "";
  const [who] = trigger.split(":");
  return say(`triggers.${who}`);
}
