// Dates, durations and names of things as the reader writes them.

import { data, say } from "../console/words.js";

const dates = new Intl.DateTimeFormat(data.language, {
  day: "2-digit", month: "2-digit", year: "numeric", hour: "2-digit", minute: "2-digit",
});

export const when = (iso) => (iso ? dates.format(new Date(iso)) : "");

/** `4:05`, from an hour on `1:04:05`; of null a dash. */
export function lasted(ms) {
  if (typeof ms !== "number") return "–";
  const seconds = Math.round(ms / 1000);
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const tail = String(seconds % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/** Hours and minutes of many sessions together. */
export function altogether(ms) {
  const minutes = Math.round(ms / 60_000);
  return minutes < 60 ? say("stats.minutes", { count: minutes })
    : say("stats.hours", { hours: Math.floor(minutes / 60), minutes: minutes % 60 });
}

export const percentOf = (share) =>
  new Intl.NumberFormat(data.language, { style: "percent", maximumFractionDigits: 0 }).format(share);

/** The text of `section.name`, or the name itself as words when a newer server knows more than this page. */
export const named = (section, name) => say(`${section}.${name}`);

/** No more of a text than a title can bear. */
export const clip = (text, most = 200) => (text.length > most ? `${text.slice(0, most)}…` : text);
