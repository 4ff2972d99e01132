// The customers to choose from, and the languages they speak.

import { h } from "../console/dom.js";
import { data, say } from "../console/words.js";

const LEVELS = ["onbewuste_onkunde", "bewuste_onkunde", "bewuste_kunde", "onbewuste_kunde"];

/** The name of a language in the reader's own. */
export function languageName(code) {
  try {
    return new Intl.DisplayNames([data.language], { type: "language" }).of(code) ?? code;
  } catch {
    return code;
  }
}

/** Every language that some customer speaks, the reader's own first. */
export function spokenLanguages(scenarios) {
  const codes = new Set(scenarios.flatMap((scenario) => scenario.languages ?? []));
  return [...codes].sort((one, other) => Number(other === data.language) - Number(one === data.language));
}

/** The language to speak with this customer: the one wished for if he can, else his first. */
export function languageFor(scenario, wished) {
  const codes = scenario.languages ?? [];
  return codes.length === 0 || codes.includes(wished) ? wished : codes[0];
}

/** `start(scenario)` is called when somebody chose. */
export function scenarioCards(scenarios, start) {
  return scenarios.map((scenario) => {
    const { title, who, role, company, sector } = scenario;
    return h("li", { class: "scenario card" },
      h("p", { class: "badges" }, difficulty(scenario.difficulty), sector ? h("bdi", { class: "badge" }, sector) : null),
      h("h2", { dir: "auto" }, title),
      h("p", { class: "muted", dir: "auto" }, [who, role, company].filter(Boolean).join(", ")),
      h("button", {
        type: "button", class: "primary start", "aria-label": say("choose.start_with", { who, title }),
        onclick: () => start(scenario),
      }, say("choose.start")));
  });
}

function difficulty(level) {
  if (!level) return null;
  const many = LEVELS.indexOf(level) + 1;
  const dots = LEVELS.map((_, at) => h("i", { class: at < many ? "full" : null }));
  return h("span", { class: "badge level", title: say("difficulty.label") },
    many ? h("span", { class: "dots", "aria-hidden": "true" }, dots) : null, say(`difficulty.${level}`));
}
