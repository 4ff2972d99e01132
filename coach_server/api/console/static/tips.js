// The tip on screen, large; how it grows while a model writes; the stage bar; the tips that came before.

import { byId, fill, h } from "./dom.js";
import { clock, data, say } from "./words.js";

export class Tips {
  /** `on.select(recommendationId, option)`, `on.because()`. */
  constructor(on) {
    this.on = on;
    this.panel = byId("tip");
    byId("tip-because").addEventListener("click", () => on.because());
    byId("coach").addEventListener("keydown", (event) => this.key(event));
    this.clear();
  }

  clear() {
    this.current = null;
    this.earlier = [];
    this.panel.hidden = true;
    byId("tip-empty").hidden = false;
    byId("earlier").hidden = true;
    byId("announcer").textContent = "";
    fill(byId("earlier-tips"));
    this.stage(null);
  }

  /** A new tip. `atMs`: when in the call. */
  show(tip, atMs) {
    if (this.current) this.keep(this.current);
    this.current = { ...tip, atMs, chosen: null, streamed: ["", "", ""], writing: false };
    this.panel.hidden = false;
    byId("tip-empty").hidden = true;
    this.render();
    this.panel.classList.remove("fresh");
    void this.panel.offsetWidth; // starts the entrance anew
    this.panel.classList.add("fresh");
    byId("announcer").textContent = say("tip.announce", { heading: tip.heading, context: tip.context });
  }

  /** The same tip, better: the model has finished writing it. */
  update(tip) {
    const known = this.find(tip.recommendationId);
    if (!known) return;
    Object.assign(known, tip, { writing: false, streamed: ["", "", ""] });
    if (known === this.current) this.render();
    else this.renderEarlier();
  }

  /** A piece of what the model writes; the first one takes the place of the draft. */
  chunk({ recommendationId, option, delta }) {
    const tip = this.current;
    if (!tip || tip.recommendationId !== recommendationId || !tip.options[option - 1]) return;
    tip.streamed[option - 1] += delta;
    if (!tip.writing) {
      tip.writing = true;
      this.badges(tip);
    }
    const card = byId("tip-options").children[option - 1];
    card.classList.add("streaming");
    card.querySelector(".script-text").textContent = tip.streamed[option - 1];
  }

  chosen({ recommendationId, selectedOption }) {
    const tip = this.find(recommendationId);
    if (!tip) return;
    tip.chosen = selectedOption;
    if (tip === this.current) {
      this.options(tip);
      this.hint(say("tip.captured"));
    } else {
      this.renderEarlier();
    }
  }

  /** The call is over: the cards stay to be read. */
  freeze() {
    for (const card of byId("tip-options").children) card.disabled = true;
  }

  hint(text) {
    byId("tip-hint").textContent = text ?? say("tip.keys");
  }

  find(id) {
    return [this.current, ...this.earlier].find((tip) => tip?.recommendationId === id);
  }

  // --- the tip on screen

  render() {
    const tip = this.current;
    this.badges(tip);
    byId("tip-heading").textContent = tip.heading;
    byId("tip-context").textContent = tip.context;
    byId("tip-because").hidden = !tip.why;
    byId("tip-why").textContent = tip.why ?? "";
    this.options(tip);
    this.hint(null);
    this.stage(tip.stage);
  }

  badges(tip) {
    const source = tip.writing ? say("tip.writing") : say(`sources.${tip.source}`);
    fill(byId("tip-badges"),
      h("span", { class: "badge stage" }, say(`stages.${tip.stage}`)),
      h("span", { class: `badge source ${tip.source}${tip.writing ? " writing" : ""}` }, source),
      tip.degraded ? h("span", { class: "badge warn", title: say("tip.degraded_hint") }, say("tip.degraded")) : null,
      h("span", { class: "badge plain" }, say(`triggers.${tip.trigger}`)),
      h("span", { class: "badge plain latency" }, say("tip.latency", { ms: tip.latencyMs })),
      h("time", { class: "badge plain" }, clock(tip.atMs)),
    );
  }

  options(tip) {
    const cards = tip.options.map((option, index) => this.card(tip, option, index + 1));
    const list = byId("tip-options");
    const focused = [...list.children].indexOf(document.activeElement);
    fill(list, cards);
    cards[focused]?.focus();
  }

  card(tip, option, number) {
    const isChosen = tip.chosen === number;
    return h("button", {
      type: "button",
      class: "option",
      "aria-pressed": String(isChosen),
      onclick: () => this.on.select(tip.recommendationId, number),
    },
      h("span", { class: "option-head" },
        h("kbd", { "aria-hidden": "true" }, String(number)),
        h("b", {}, say(`labels.${option.label}`)), " ",
        h("span", { class: "muted" }, isChosen ? say("tip.chosen") : say(`label_hints.${option.label}`))),
      h("span", { class: "script-text", dir: "auto" }, option.script));
  }

  key(event) {
    const number = Number(event.key);
    const typing = event.target.closest("input, select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !(number >= 1 && number <= 3)) return;
    if (!this.current) return;
    event.preventDefault();
    this.on.select(this.current.recommendationId, number);
  }

  // --- the stage bar

  stage(stage) {
    const reached = data.stages.indexOf(stage);
    for (const item of byId("stages").children) {
      const place = data.stages.indexOf(item.dataset.stage);
      item.classList.toggle("past", place < reached);
      if (place === reached) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
  }

  // --- the tips before

  keep(tip) {
    this.earlier.unshift(tip);
    this.renderEarlier();
  }

  renderEarlier() {
    byId("earlier").hidden = this.earlier.length === 0;
    fill(byId("earlier-tips"), this.earlier.map((tip) => this.past(tip)));
  }

  past(tip) {
    const scripts = tip.options.map((option, index) =>
      h("li", { class: tip.chosen === index + 1 ? "was-chosen" : "" },
        h("b", {}, say(`labels.${option.label}`)), " ", h("span", { dir: "auto" }, option.script)));
    return h("li", {}, h("details", {},
      h("summary", {},
        h("time", {}, clock(tip.atMs)), " ", h("b", {}, tip.heading), " ",
        h("span", { class: "muted" }, say(`stages.${tip.stage}`)),
        tip.chosen ? h("span", { class: "badge took" }, say("tip.chosen")) : null),
      h("p", {}, tip.context), h("ol", { class: "past-options" }, scripts)));
  }
}
