// The dashboard: figures, filters, the list. The address says what is shown; a click changes the address.

import { byId, fill, h } from "../console/dom.js";
import { number, say } from "../console/words.js";
import { Refusal, ask } from "../practice/access.js";
import { download } from "./download.js";
import { address, isNarrowed, offerChoices, onFilters, showFilters, wanted } from "./filters.js";
import { heads, paging, row } from "./table.js";
import { comeIn, whose } from "./viewer.js";
import { altogether, named, percentOf } from "./wording.js";

const OUTCOMES = ["converted", "rejected", "walked_away", "compliance_fail"];

let latest = 0;

async function load() {
  const turn = (latest += 1);
  sessionStorage.setItem("coach-dashboard", address());
  showFilters();
  byId("whose").textContent = whose();
  byId("table-box").setAttribute("aria-busy", "true");
  try {
    const found = await ask(`/api/dashboard?${wanted()}`);
    if (turn === latest) show(found);
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    if (turn === latest) failed(refusal);
  }
  byId("table-box").removeAttribute("aria-busy");
  document.body.dataset.ready = "true";
}

function failed(refusal) {
  fill(byId("rows"));
  for (const id of ["table-box", "pages", "nothing", "stats", "share"]) byId(id).hidden = true;
  byId("state").hidden = false;
  byId("state").textContent = refusal.status === 401 ? "" : say("board.failed", { message: refusal.message });
}

function show(found) {
  const { sessions, total, stats, choices } = found;
  offerChoices(choices ?? {});
  showFilters();
  showStats(stats);
  byId("state").hidden = true;
  byId("table-box").hidden = sessions.length === 0;
  byId("pages").hidden = sessions.length === 0;
  byId("nothing").hidden = sessions.length > 0;
  byId("csv").disabled = total === 0;
  if (sessions.length === 0) return nothing(total);
  fill(byId("heads"), heads());
  fill(byId("rows"), sessions.map(row));
  fill(byId("pages"), paging(found));
}

/** No session at all, none that fits, or a page behind the last one. */
function nothing(total) {
  const way = byId("nothing-way");
  if (total > 0 || isNarrowed()) {
    byId("nothing-text").textContent = say("board.none_fit");
    way.textContent = say(total > 0 ? "board.first_page" : "filters.reset");
    way.href = total > 0 ? address({ page: null })
      : address({ trainee: null, persona: null, outcome: null, from: null, to: null, page: null });
  } else {
    byId("nothing-text").textContent = say("board.none");
  }
}

function showStats(stats) {
  const rows = [
    ["stats.sessions", number(stats.totalSessions)],
    ["stats.average", typeof stats.averageScore === "number" ? number(stats.averageScore) : "–"],
    ["stats.conversion", typeof stats.conversionRate === "number" ? percentOf(stats.conversionRate) : "–"],
    ["stats.time", altogether(stats.totalDurationMs ?? 0)],
  ];
  byId("stats").hidden = false;
  fill(byId("stats"), rows.map(([path, value]) => h("div", { class: "card" }, h("dt", {}, say(path)), h("dd", {}, value))));
  showShare(stats.outcomes ?? {});
}

function showShare(outcomes) {
  const counted = OUTCOMES.map((outcome) => [outcome, outcomes[outcome] ?? 0]).filter(([, count]) => count > 0);
  const all = counted.reduce((sum, [, count]) => sum + count, 0);
  byId("share").hidden = all === 0;
  const bar = counted.map(([outcome, count]) => {
    const part = h("i", { "data-outcome": outcome });
    part.style.flexGrow = String(count);
    return part;
  });
  fill(byId("share"), h("div", { class: "share-stack", "aria-hidden": "true" }, bar),
    h("ul", { class: "share-key" }, counted.map(([outcome, count]) =>
      h("li", { "data-outcome": outcome }, named("outcomes", outcome), " ", h("b", {}, number(count)), " ",
        h("span", { class: "muted" }, percentOf(count / all))))));
}

// --- moving about

/** Show another view without loading the page again. */
function go(to) {
  history.pushState(null, "", to);
  load();
}

/** A plain click on one of our own links; anything else is the browser's. */
function followed(event) {
  const link = event.target.closest("a");
  const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || !link.getAttribute("href").startsWith("/dashboard?")) return;
  event.preventDefault();
  go(link.getAttribute("href"));
}

for (const id of ["heads", "pages", "filters", "nothing"]) byId(id).addEventListener("click", followed);
window.addEventListener("popstate", load);
onFilters(go);
byId("csv").addEventListener("click", ({ target }) =>
  download(`/api/dashboard/csv?${wanted({ view: false })}`, `sessions ${new Date().toISOString().slice(0, 10)}.csv`, target));

comeIn(load);
