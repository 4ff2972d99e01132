// What the list is narrowed to. It stands in the address, so that a view can be kept, shared and gone back to.

import { byId, fill, h } from "../console/dom.js";
import { data, say } from "../console/words.js";
import { clip } from "./wording.js";

const FIELDS = ["trainee", "persona", "outcome", "from", "to"];
const VIEW = ["sort", "order", "page"];
const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** The address of the page as it is now, with `changes`; null takes one away. */
export function address(changes = {}) {
  const here = new URLSearchParams(location.search);
  const query = new URLSearchParams({ lang: data.language });
  for (const name of [...FIELDS, ...VIEW]) {
    const value = name in changes ? changes[name] : here.get(name);
    if (value) query.set(name, value);
  }
  return `/dashboard?${query}`;
}

export const isNarrowed = () => FIELDS.some((name) => new URLSearchParams(location.search).get(name));

/** The same, as the server is asked: days are the reader's own, and the last one counts whole. */
export function wanted({ view = true } = {}) {
  const here = new URLSearchParams(location.search);
  const query = new URLSearchParams();
  for (const name of view ? [...FIELDS, ...VIEW] : FIELDS) {
    const value = here.get(name);
    if (value) query.set(name, name === "from" || name === "to" ? moment(value, name === "to") : value);
  }
  return query;
}

function moment(day, isLast) {
  if (!DAY.test(day)) return day;
  const [year, month, date] = day.split("-").map(Number);
  const at = new Date(year, month - 1, date + (isLast ? 1 : 0));
  return Number.isNaN(at.getTime()) ? day : at.toISOString();
}

/** Put the address's values into the form. */
export function showFilters() {
  const here = new URLSearchParams(location.search);
  const form = byId("filters");
  for (const name of FIELDS) {
    const control = form.elements[name];
    const value = here.get(name) ?? "";
    if (control.tagName === "SELECT" && value) offer(control, value, value);
    control.value = value;
  }
  for (const name of ["sort", "order"]) {
    form.elements[name].value = here.get(name) ?? "";
    form.elements[name].disabled = !here.get(name);
  }
  byId("clear").hidden = !isNarrowed();
}

/** The trainees and personas that there are. */
export function offerChoices({ trainees = [], personas = [] }) {
  rebuild(byId("by-trainee"), trainees.map((id) => ({ id, name: id })));
  rebuild(byId("by-persona"), personas);
}

function rebuild(select, entries) {
  const chosen = select.value;
  fill(select, h("option", { value: "" }, say("filters.all")));
  for (const { id, name } of entries) offer(select, id, name);
  if (chosen) offer(select, chosen, chosen);
  select.value = chosen;
}

function offer(select, value, name) {
  if (Array.from(select.options).some((option) => option.value === value)) return;
  select.append(h("option", { value }, clip(name, 60)));
}

/** Call `changed(address)` when the reader chose something. */
export function onFilters(changed) {
  const form = byId("filters");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const values = Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value]));
    changed(address({ ...values, page: null }));
  });
  form.addEventListener("change", ({ target }) => {
    if (target.tagName === "SELECT") form.requestSubmit();
  });
}
