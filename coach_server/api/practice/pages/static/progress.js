// The progress page: figures, the curve, moments to play again, and the steps.

import { byId, fill, h } from "../console/dom.js";
import { data, number, say } from "../console/words.js";
import { admit, ask, userId } from "./access.js";
import { day, skillCurve } from "./curve.js";
import { drillCards } from "./drills.js";
import { stepGrid } from "./steps.js";

const wish = new URLSearchParams(location.search);
const somebody = wish.get("user");

async function load() {
  const user = somebody || userId();
  const query = new URLSearchParams({ language: data.language });
  if (wish.get("methodology")) query.set("methodology", wish.get("methodology"));
  byId("progress-state").hidden = false;
  byId("progress-state").textContent = say("progress.loading");
  try {
    const progress = await ask(`/api/roleplay/users/${encodeURIComponent(user)}/progress?${query}`);
    const [techniques, drills, methods] = await Promise.all([
      optional(`/api/roleplay/techniques?${query}`),
      optional(`/api/drills?${new URLSearchParams({ userId: user, status: "open" })}`),
      optional(`/api/methodologies?${new URLSearchParams({ language: data.language })}`),
    ]);
    show({ progress, techniques, drills: drills?.drills ?? [], methods: methods?.methodologies ?? [] });
  } catch (refusal) {
    byId("progress-state").textContent = say("progress.failed", { message: refusal.message });
  }
  document.body.dataset.ready = "true";
}

/** What the page can do without. */
const optional = (path) => ask(path).catch(() => null);

function show({ progress, techniques, drills, methods }) {
  byId("progress-state").hidden = true;
  byId("progress-body").hidden = false;
  byId("whose").hidden = !somebody;
  byId("whose").textContent = say("progress.whose", { user: somebody ?? "" });
  fill(byId("figures"), figures(progress, techniques));
  const points = progress.curve ?? [];
  byId("curve-empty").hidden = points.length > 0;
  fill(byId("curve"), points.length ? skillCurve(points) : []);
  const cards = drillCards(drills, play);
  byId("drills-lead").textContent = say(cards.length ? "drills.lead" : "drills.none");
  fill(byId("drills"), cards);
  fill(byId("steps"), stepGrid(progress, techniques, !somebody));
  chooser(methods, progress.methodology);
}

function figures(progress, techniques) {
  const at = progress.scenarioFlow.flatMap((phase) => phase.steps).find((step) => step.id === progress.currentStep);
  const named = (techniques?.phases ?? []).flatMap((phase) => phase.steps).find((step) => step.id === at?.id);
  const scored = progress.scoredSessions ?? progress.totalSessions;
  const rows = [
    ["progress.now", at ? `${at.nummer} ${named?.name ?? at.name}` : null],
    ["progress.sessions", number(progress.totalSessions)],
    ["progress.average", scored ? number(progress.averageScore) : null],
    ["progress.best", typeof progress.bestScore === "number" ? number(progress.bestScore) : null],
    ["progress.calls", progress.totalCalls ? number(progress.totalCalls) : null],
    ["progress.calls_average", typeof progress.averageCallScore === "number" ? number(progress.averageCallScore) : null],
    ["progress.time", progress.totalDurationSeconds
      ? say("progress.minutes", { count: number(Math.round(progress.totalDurationSeconds / 60)) }) : null],
    ["progress.last", progress.lastSessionAt ? day(progress.lastSessionAt) : null],
  ];
  return rows.filter(([, value]) => value !== null).map(([name, value]) =>
    h("div", { class: "card" }, h("dt", {}, say(name)), h("dd", { dir: "auto" }, value)));
}

function chooser(methods, chosen) {
  const select = byId("methodology");
  select.closest(".choice").hidden = methods.length < 2;
  fill(select, methods.map(({ id, name }) => h("option", { value: id, selected: id === chosen }, name)));
}

function play(drill) {
  location.assign(`/roleplay?${new URLSearchParams({ lang: data.language, drill: drill.id })}`);
}

byId("methodology").addEventListener("change", ({ target }) => {
  wish.set("methodology", target.value);
  history.replaceState(null, "", `?${wish}`);
  load();
});

admit(load);
if (byId("access").hidden === false) document.body.dataset.ready = "true";
