// How the customer feels about it: 0 to 10, and which way it goes.

import { fill, h } from "../console/dom.js";
import { say } from "../console/words.js";
import { named } from "./wording.js";

const ARROWS = { rising: "↑", falling: "↓", stable: "→" };
const MOST = 10;

export class Mood {
  constructor(home) {
    this.home = home;
    this.show(null);
  }

  show(value, direction = "stable") {
    const isKnown = typeof value === "number";
    const text = isKnown ? `${say("mood.of_ten", { value })}, ${named("directions", direction)}` : say("mood.unknown");
    const steps = Array.from({ length: MOST }, (_, at) => h("i", { class: isKnown && at < value ? "full" : null }));
    fill(this.home,
      h("div", {
        class: "mood-bar", role: "meter", "aria-label": say("mood.heading"), "aria-valuemin": 0, "aria-valuemax": MOST,
        "aria-valuenow": isKnown ? value : 0, "aria-valuetext": text, "data-level": level(value),
      }, steps),
      h("p", { class: "mood-text" }, isKnown ? h("b", { dir: "ltr" }, `${value}/${MOST}`) : null, " ",
        isKnown ? h("span", { class: `mood-way ${direction}` }, `${ARROWS[direction] ?? ""} ${named("directions", direction)}`) : text));
  }
}

const level = (value) => (typeof value !== "number" ? "" : value <= 3 ? "low" : value >= 7 ? "high" : "middle");
