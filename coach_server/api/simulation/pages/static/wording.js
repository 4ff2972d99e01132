// Dates, durations and names of things as the reader writes them.

import { data, say } from "../console/words.js";

// Days before months, as all of our readers write them.
const LOCALE = data.language === "en" ? "en-GB" : data.language;

const dates = new Intl.DateTimeFormat(LOCALE, {
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

// Marks that turn the direction of what follows, and control characters: a name has no use for them.
const TRICKS = /[\u0000-\u001f\u007f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu;

/** A name or title in one line, and no more of it than the place can bear. */
export function clip(text, most = 200) {
  const plain = String(text ?? "").replace(TRICKS, " ").trim();
  return plain.length > most ? `${plain.slice(0, most)}…` : plain;
}
