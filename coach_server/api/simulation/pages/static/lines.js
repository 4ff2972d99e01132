// What was said, in the order in which it was said: a line may come after one that was spoken later.

import { byId, calm, fill, h } from "../console/dom.js";
import { clock, say } from "../console/words.js";

const key = ({ speaker, startTime }) => `${speaker} ${startTime}`;

export class Lines {
  /** `customer` may be set: the name above that side's lines. `isLive`: new lines are followed. */
  constructor(list = byId("lines")) {
    this.list = list;
    this.clear();
  }

  clear() {
    this.lines = [];
    this.marked = null;
    fill(this.list);
    byId("lines-empty").hidden = false;
  }

  /** Take over a whole transcript; what is shown already stays where it is. */
  merge(transcript) {
    for (const said of transcript) this.add(said);
  }

  /** A line `{speaker, text, startTime}`; one that is there is corrected. */
  add(said) {
    const known = this.lines.find((line) => key(line.said) === key(said));
    if (known) {
      known.said = said;
      known.text.textContent = said.text;
      return;
    }
    const line = this.row(said);
    const after = this.lines.findIndex((other) => other.said.startTime > said.startTime);
    if (after < 0) {
      this.list.append(line.row);
      this.lines.push(line);
    } else {
      this.lines[after].row.before(line.row);
      this.lines.splice(after, 0, line);
    }
    byId("lines-empty").hidden = true;
    this.follow();
  }

  row(said) {
    const isTrainee = said.speaker === "TRAINEE";
    const text = h("p", { dir: "auto" }, said.text);
    const who = isTrainee ? say(this.isLive ? "transcript.you" : "transcript.trainee") : this.customer || say("transcript.avatar");
    const row = h("li", { class: `line ${isTrainee ? "agent" : "caller"}` },
      h("p", { class: "line-head" }, h("bdi", { class: "who" }, who), " ", h("time", {}, clock(said.startTime * 1000))), text);
    return { said, row, text };
  }

  /** The line that holds `quote` nearest to `time`; without a quote the one that was being said then. */
  find({ time = null, quote = "", speaker = "" }) {
    const wanted = quote && this.lines.filter(({ said }) => said.text.includes(quote));
    const among = wanted && wanted.length ? wanted : this.lines.filter(({ said }) => !speaker || said.speaker === speaker);
    if (time === null) return wanted ? wanted[0] : undefined;
    const far = ({ said }) => Math.abs(said.startTime - time);
    return among.toSorted((one, other) => far(one) - far(other))[0];
  }

  /** Mark a line and bring it into view. False when there is none. */
  cite(where) {
    this.unmark();
    const line = this.find(where);
    if (!line) return false;
    const { text } = line.said;
    const at = where.quote ? text.indexOf(where.quote) : -1;
    if (at >= 0) fill(line.text, text.slice(0, at), h("mark", {}, where.quote), text.slice(at + where.quote.length));
    line.row.classList.add("cited");
    this.marked = line;
    this.list.scrollIntoView({ block: "nearest", behavior: calm() ? "auto" : "smooth" });
    const top = line.row.offsetTop - this.list.clientHeight / 2 + line.row.offsetHeight / 2;
    this.list.scrollTo({ top, behavior: calm() ? "auto" : "smooth" });
    this.list.focus({ preventScroll: true });
    return true;
  }

  unmark() {
    if (!this.marked) return;
    this.marked.text.textContent = this.marked.said.text;
    this.marked.row.classList.remove("cited");
    this.marked = null;
  }

  /** Stay at the newest line, unless the reader scrolled up to read something. */
  follow() {
    if (!this.isLive) return;
    const left = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight;
    if (left < 200) this.list.scrollTop = this.list.scrollHeight;
  }
}
