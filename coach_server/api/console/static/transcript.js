// The two-sided transcript and the talk share. Lines are text nodes; the quote behind a tip is marked in them.

import { byId, calm, fill, h } from "./dom.js";
import { clock, countWords, percent, say } from "./words.js";

export class Transcript {
  constructor() {
    this.list = byId("lines");
    this.clear();
  }

  clear() {
    this.lines = [];
    this.growing = null;
    this.words = { agent: 0, caller: 0 };
    fill(this.list);
    byId("lines-empty").hidden = false;
    this.showShare();
  }

  /** Somebody is speaking; the line grows until `add` makes it final. */
  grow(speaker, text, atMs) {
    if (this.growing === null || this.growing.speaker !== speaker) {
      this.growing?.row.remove();
      this.growing = this.row(speaker, atMs);
      this.growing.row.classList.add("growing");
      this.growing.state.textContent = say("transcript.speaking");
    }
    this.growing.text.textContent = text;
    this.follow();
  }

  /** A finished line. Returns what tells how the server took it. */
  add(speaker, text, atMs) {
    const line = this.growing?.speaker === speaker ? this.growing : this.row(speaker, atMs);
    if (line === this.growing) this.growing = null;
    line.row.classList.remove("growing");
    line.said = text;
    line.text.textContent = text;
    line.state.textContent = say("transcript.sending");
    line.row.dataset.state = "sending";
    this.lines.push(line);
    this.words[speaker] += countWords(text);
    this.showShare();
    this.follow();
    return (ack) => {
      line.row.dataset.state = ack.ok ? "saved" : "refused";
      const heard = ack.stored === false ? "transcript.heard" : "transcript.saved";
      line.state.textContent = ack.ok ? say(heard) : say("transcript.refused", { message: ack.message ?? "" });
    };
  }

  row(speaker, atMs) {
    const text = h("p", { dir: "auto" });
    const state = h("span", { class: "state" });
    const who = h("span", { class: "who" }, say(`transcript.${speaker}`));
    const row = h("li", { class: `line ${speaker}` },
      h("p", { class: "line-head" }, who, " ", h("time", {}, clock(atMs)), " ", state), text);
    if (this.growing) this.growing.row.before(row);
    else this.list.append(row);
    byId("lines-empty").hidden = true;
    return { speaker, row, text, state, said: "" };
  }

  /** Mark `quote` in the last line that has it; true when there is one. */
  mark(quote) {
    this.unmark();
    const line = quote && this.lines.findLast((one) => one.said.includes(quote));
    if (!line) return false;
    const at = line.said.indexOf(quote);
    fill(line.text, line.said.slice(0, at), h("mark", {}, quote), line.said.slice(at + quote.length));
    this.marked = line;
    return true;
  }

  unmark() {
    if (this.marked) this.marked.text.textContent = this.marked.said;
    this.marked = null;
  }

  showMarked() {
    this.scrollTo(this.marked?.row);
    this.list.focus({ preventScroll: true });
  }

  scrollTo(row) {
    if (!row) return;
    const top = row.offsetTop - this.list.clientHeight / 2 + row.offsetHeight / 2;
    this.list.scrollTo({ top, behavior: calm() ? "auto" : "smooth" });
  }

  /** Stay at the newest line, unless the reader scrolled up to read something. */
  follow() {
    const left = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight;
    if (left < 160) this.list.scrollTop = this.list.scrollHeight;
  }

  get share() {
    const all = this.words.agent + this.words.caller;
    return all ? this.words.agent / all : null;
  }

  showShare() {
    const share = this.share;
    const agent = share === null ? 0 : percent(share);
    const text = share === null ? say("transcript.share_none")
      : say("transcript.share_of", { agent, customer: 100 - agent });
    byId("share-text").textContent = text;
    const meter = byId("share");
    meter.setAttribute("aria-valuenow", String(agent));
    meter.setAttribute("aria-valuetext", text);
    meter.dataset.known = String(share !== null);
    byId("share-agent").style.width = `${agent}%`;
  }
}
