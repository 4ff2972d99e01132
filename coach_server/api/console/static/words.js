// The page's texts and how figures are written in the reader's language.

export const data = JSON.parse(document.getElementById("data").textContent);

/** The text at `path` ("tip.next"), with `{gaps}` filled. An unknown path comes back as its last word. */
export function say(path, gaps = {}) {
  const found = path.split(".").reduce((table, key) => table?.[key], data.strings);
  const text = typeof found === "string" ? found : path.slice(path.lastIndexOf(".") + 1).replaceAll("_", " ");
  return text.replace(/\{(\w+)\}/g, (gap, name) => String(gaps[name] ?? gap));
}

export function clock(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

export const percent = (share) => Math.round(share * 100);

export const countWords = (text) => text.split(/\s+/u).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;

export const number = (value) => new Intl.NumberFormat(data.language).format(value);

export const dollars = (microUsd) =>
  new Intl.NumberFormat(data.language, { minimumFractionDigits: 4, maximumFractionDigits: 4 }).format(
    microUsd / 1e6,
  );
