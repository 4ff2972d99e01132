// The steps of the method as a grid: what was tried, how well, and what has gone stale.

import { h } from "../console/dom.js";
import { data, say } from "../console/words.js";
import { meter } from "./figures.js";
import { stepTexts } from "./flow.js";

/** The phases of a progress document. `techniques`: names in the language of the page. `practise`: whether the
 * reader may start a step from here. */
export function stepGrid(progress, techniques, practise) {
  const texts = stepTexts(techniques);
  const names = new Map((techniques?.phases ?? []).map((phase) => [phase.id, phase.name]));
  return progress.scenarioFlow.map((phase) => h("section", { class: "card phase-card" },
    h("h3", { dir: "auto" }, names.get(phase.id) ?? phase.name),
    h("ul", {}, phase.steps.map((step) =>
      row(step, texts.get(step.id)?.name ?? step.name, progress.stepProgress?.[step.id] ?? {}, link(step, progress, practise))))));
}

function row(step, name, made, go) {
  const tried = made.attempts > 0;
  return h("li", { class: "grid-step", "data-status": step.status },
    h("p", { class: "grid-name" }, h("span", { class: "mark", "aria-hidden": "true" }),
      h("span", { class: "nummer" }, step.nummer), " ", h("span", { dir: "auto" }, name),
      h("span", { class: "unseen" }, say(`statuses.${step.status}`))),
    typeof made.bestScore === "number" ? meter(made.bestScore) : null,
    h("p", { class: "grid-figures muted" },
      tried ? [figure(say("progress.best_of", { score: made.bestScore ?? "–" })),
        figure(say("progress.average_of", { score: made.averageScore ?? "–" })),
        h("span", { title: say("progress.attempts_long", { count: made.attempts }) }, say("progress.attempts", { count: made.attempts }))]
        : step.status === "completed" ? say("flow.ticked")
          : say(step.status === "locked" ? "statuses.locked" : "progress.untried"),
      made.stale ? h("span", { class: "badge warn", title: say("progress.stale_hint") }, say("progress.stale")) : null,
      go));
}

const figure = (text) => h("span", {}, text);

function link(step, { methodology }, practise) {
  if (!practise || step.status === "locked") return null;
  const wish = new URLSearchParams({ lang: data.language, step: step.id, ...(methodology ? { methodology } : {}) });
  return h("a", { href: `/roleplay?${wish}`, "aria-label": say("progress.practise_named", { step: step.nummer }) },
    say("progress.practise"));
}
