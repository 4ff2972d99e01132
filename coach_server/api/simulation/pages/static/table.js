// The list of sessions: heads that sort, a row a session, and the way to other pages. All are ordinary links.

import { h } from "../console/dom.js";
import { data, number, say } from "../console/words.js";
import { meter } from "../practice/figures.js";
import { address } from "./filters.js";
import { outcomeBadge } from "./outcome.js";
import { clip, lasted, when } from "./wording.js";

const COLUMNS = ["id", "trainee", "persona", "outcome", "score", "date", "duration"];
// What one wants to see first: the newest, the longest, the best; names from A on.
const FALLING = new Set(["score", "date", "duration"]);

export function heads() {
  const here = new URLSearchParams(location.search);
  const [sort, order] = [here.get("sort") ?? "date", here.get("order") ?? "desc"];
  return COLUMNS.map((column) => {
    const isSorted = column === sort;
    const first = FALLING.has(column) ? "desc" : "asc";
    const next = isSorted ? (order === "desc" ? "asc" : "desc") : first;
    const sorted = isSorted ? (order === "desc" ? "descending" : "ascending") : null;
    return h("th", { scope: "col", "aria-sort": sorted, class: `of-${column}` },
      h("a", { href: address({ sort: column, order: next, page: null }) }, named(column),
        h("span", { class: "arrow", "aria-hidden": "true" }, isSorted ? (order === "desc" ? "↓" : "↑") : "")));
  });
}

const named = (column) => say(`columns.${column}`);

export function row(session) {
  const way = `/dashboard/${encodeURIComponent(session.sessionId)}?${new URLSearchParams({ lang: data.language })}`;
  return h("tr", {},
    cell("id", h("a", { href: way, dir: "ltr" }, session.sessionId)),
    cell("trainee", name(session.traineeId)),
    cell("persona", name(session.personaName)),
    cell("outcome", outcomeBadge(session)),
    cell("score", score(session.score)),
    cell("date", h("time", { datetime: session.createdAt, dir: "ltr" }, when(session.createdAt))),
    cell("duration", lasted(session.durationMs)));
}

const cell = (column, ...children) =>
  h("td", { class: `of-${column}`, "data-label": named(column) }, h("div", { class: "cell" }, children));

/** Whatever somebody called himself: in its own direction, and no longer than the cell. */
const name = (text) => h("bdi", { class: "clipped", title: text?.length > 24 ? clip(text) : null }, clip(text, 400));

const score = (value) => (typeof value === "number"
  ? h("span", { class: "score-cell" }, h("b", {}, String(value)), meter(value)) : h("span", { class: "muted" }, "–"));

/** `{page, pages, total, pageSize}` as links. */
export function paging({ page, pages, total, pageSize }) {
  const first = (page - 1) * pageSize + 1;
  const gaps = { first: number(first), last: number(Math.min(total, page * pageSize)), total: number(total) };
  return [
    h("p", { class: "muted" }, say("board.shown", gaps)),
    h("p", { class: "ways" },
      way("board.previous", page > 1 ? page - 1 : null, "prev"),
      h("span", {}, say("board.page", { page: number(page), pages: number(pages) })),
      way("board.next", page < pages ? page + 1 : null, "next")),
  ];
}

function way(path, page, rel) {
  if (page === null) return h("span", { class: "button", "aria-disabled": "true" }, say(path));
  return h("a", { class: "button", rel, href: address({ page }) }, say(path));
}
