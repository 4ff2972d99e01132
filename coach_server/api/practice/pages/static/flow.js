// The sales flow beside the talk: phases and steps with their states, and what a step is for on a click.

import { fill, h } from "../console/dom.js";
import { say } from "../console/words.js";

const COLOUR = /^#[0-9a-f]{6}$/i;

/** What `GET techniques` tells of each step, by id. */
export function stepTexts(techniques) {
  const steps = (techniques?.phases ?? []).flatMap((phase) => phase.steps ?? []);
  return new Map(steps.map((step) => [step.id, step]));
}

export class FlowView {
  /** `tick(stepId)` resolves to whether the step may count as done by hand. */
  constructor(home, tick) {
    this.home = home;
    this.tick = tick;
    this.clear();
  }

  clear() {
    this.steps = new Map();
    this.phases = new Map();
    fill(this.home);
  }

  /** Show the phases of `scenarioFlow`. `techniques`: in the language of the page; where it lacks a step, the
   * flow's own words are shown. */
  show(scenarioFlow, techniques) {
    this.clear();
    const texts = stepTexts(techniques);
    const named = new Map((techniques?.phases ?? []).map((phase) => [phase.id, phase]));
    fill(this.home, scenarioFlow.map((phase) => this.phase({ ...phase, ...naming(named.get(phase.id)) }, texts)));
    this.settle();
  }

  /** Take over the states of a newer flow. */
  update(scenarioFlow) {
    for (const phase of scenarioFlow) for (const step of phase.steps) this.set(step.id, step.status);
    this.settle();
  }

  moved({ currentStepId, previousStepId, status }) {
    this.set(previousStepId, status);
    this.set(currentStepId, "current");
    this.settle();
  }

  unlocked(stepIds) {
    for (const id of stepIds) if (this.steps.get(id)?.status === "locked") this.set(id, "upcoming");
    this.settle();
  }

  name(phaseId) {
    return this.phases.get(phaseId)?.name ?? "";
  }

  /** `2.1.3 Name`, or the id alone. */
  stepName(stepId) {
    const step = this.steps.get(stepId);
    return step ? `${stepId} ${step.name}` : stepId;
  }

  isOpen(stepId) {
    return this.steps.has(stepId) && this.steps.get(stepId).status !== "locked";
  }

  // --- building

  phase(phase, texts) {
    const count = h("span", { class: "count" });
    const steps = phase.steps.map((step) => this.step(step, texts.get(step.id)));
    const themes = phase.themas?.length
      ? h("p", { class: "themes muted" }, say("flow.themes"), ": ", h("bdi", {}, phase.themas.join(", "))) : null;
    const box = h("details", { class: "phase" },
      h("summary", {}, h("span", { class: "phase-name", dir: "auto" }, phase.name), " ", count),
      phase.uitleg ? h("p", { class: "phase-about muted", dir: "auto" }, phase.uitleg) : null,
      themes, h("ol", {}, steps));
    if (COLOUR.test(phase.color)) box.style.setProperty("--phase", phase.color);
    this.phases.set(phase.id, { name: phase.name, box, count, ids: phase.steps.map((step) => step.id) });
    return box;
  }

  step(step, text) {
    const name = text?.name ?? step.name;
    const state = h("span", { class: "state unseen" });
    const more = h("div", { class: "more", id: `about-${step.id}`, hidden: true });
    const button = h("button", {
      type: "button", class: "step-name", "aria-expanded": "false", "aria-controls": more.id,
      onclick: () => this.toggle(step.id),
    },
    h("span", { class: "mark", "aria-hidden": "true" }), h("span", { class: "nummer" }, step.nummer), " ",
    h("span", { class: "name", dir: "auto" }, name), " ", state);
    const row = h("li", { class: "step" }, button, more);
    this.steps.set(step.id, { name, step, text, row, button, state, more, status: "" });
    this.set(step.id, step.status);
    return row;
  }

  set(id, status) {
    const known = this.steps.get(id);
    if (!known || !status) return;
    known.status = status;
    known.row.dataset.status = status;
    known.state.textContent = say(`statuses.${status}`);
    if (status === "current") known.button.setAttribute("aria-current", "step");
    else known.button.removeAttribute("aria-current");
    if (!known.more.hidden) this.describe(known);
  }

  /** Counts, and the phase that is open to read: the one with the current step, once it moves there. */
  settle() {
    for (const phase of this.phases.values()) {
      const done = phase.ids.filter((id) => this.steps.get(id).status === "completed").length;
      phase.count.textContent = say("flow.of", { done, all: phase.ids.length });
      const isHere = phase.ids.some((id) => this.steps.get(id).status === "current");
      phase.box.dataset.state = done === phase.ids.length ? "completed" : isHere ? "current" : "";
      if (isHere && this.here !== phase) {
        if (this.here) this.here.box.open = false;
        phase.box.open = true;
        this.here = phase;
      }
    }
  }

  // --- what a step is for

  toggle(id) {
    const known = this.steps.get(id);
    known.more.hidden = !known.more.hidden;
    known.button.setAttribute("aria-expanded", String(!known.more.hidden));
    if (!known.more.hidden) this.describe(known);
  }

  describe({ step, text, more, status }) {
    fill(more,
      h("p", { class: "muted" }, say(`statuses.${status}`), " · ", h("bdi", {}, step.duration),
        step.isVerplicht ? ` · ${say("flow.required")}` : null),
      about("flow.goal", text?.doel), about("flow.what", text?.wat), about("flow.when", text?.wanneer),
      about("flow.how", (text?.hoe ?? [])[0]), about("flow.example", (text?.voorbeelden ?? [])[0]),
      status === "locked" ? h("p", { class: "muted" }, say("flow.locked")) : null,
      status === "current" || status === "upcoming"
        ? h("button", { type: "button", class: "tick-off", onclick: (event) => this.done(step.id, event.target) },
          say("flow.done")) : null);
  }

  async done(id, button) {
    button.disabled = true;
    if (await this.tick(id)) {
      this.set(id, "completed");
      this.settle();
    } else {
      button.disabled = false;
    }
  }
}

const naming = (phase) => phase ? { name: phase.name, themas: phase.themas, uitleg: phase.uitleg } : {};

const about = (title, words) => words
  ? h("p", {}, h("b", {}, say(title)), " ", h("span", { dir: "auto" }, words)) : null;
