// Moments to play again, as cards; on the result and on the progress page.

import { h } from "../console/dom.js";
import { say } from "../console/words.js";

/** The cards of the open ones among `drills`. `play(drill)`: somebody wants that one. */
export function drillCards(drills, play) {
  return drills.filter((drill) => drill.status !== "closed").map((drill) => {
    const name = drill.techniqueName ?? drill.technique;
    const said = (drill.customerLines ?? []).at(-1);
    const moment = drill.momentName && drill.momentName !== name ? drill.momentName : null;
    return h("li", { class: "drill card" },
      moment ? h("p", { class: "over", dir: "auto" }, moment) : null,
      h("h3", {}, h("bdi", { class: "nummer" }, drill.technique), " ", h("span", { dir: "auto" }, name)),
      said ? h("blockquote", { class: "caller" },
        h("span", { class: "cite" }, say("drills.said")), h("span", { dir: "auto" }, said)) : null,
      drill.better ? h("p", { class: "better" },
        h("span", { class: "over" }, say("result.better")), " ", h("q", { dir: "auto" }, drill.better)) : null,
      drill.attempts ? h("p", { class: "muted" }, say("drills.attempts", { count: drill.attempts })) : null,
      h("button", {
        type: "button", class: "play-again", "aria-label": say("drills.play_named", { name }),
        onclick: () => play(drill),
      }, say("drills.play")));
  });
}
