// Who may come in, and every request of these pages with that credential. A key that somebody types stays in the
// tab, as on the console page.

import { byId, freshId } from "../console/dom.js";
import { data, say } from "../console/words.js";

const KEY = "coach-credential";
const USER = "practice-user";

/** What the server answered instead of what was asked for. `status` 0: it did not answer. */
export class Refusal extends Error {
  constructor(status, { code = "", message = "", retryAfterMs = 0 } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** {token} or {apiKey}, or null when the page must ask. */
export function credential() {
  if (data.credential) return { token: data.credential.token };
  const key = sessionStorage.getItem(KEY);
  if (!key) return null;
  return key.split(".").length === 3 ? { token: key } : { apiKey: key };
}

/** Who practises: the user of the token. Somebody with a bare API key gets an id that this browser remembers. */
export function userId() {
  const { token } = credential();
  return token ? subject(token) : ownId();
}

function subject(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (sign) => sign.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)).sub;
  } catch {
    return "";
  }
}

function ownId() {
  const known = localStorage.getItem(USER);
  if (known) return known;
  const made = `practice-${freshId().slice(0, 12)}`;
  localStorage.setItem(USER, made);
  return made;
}

function headers() {
  const { token, apiKey } = credential();
  return token ? { Authorization: `Bearer ${token}` } : { "x-api-key": apiKey };
}

/** The JSON of an answer. Rejects with a Refusal; a 401 asks for another key as well. */
export async function ask(path, { method = "GET", body } = {}) {
  const sent = body === undefined ? {} : { "Content-Type": "application/json" };
  const wish = { method, headers: { ...headers(), ...sent }, cache: "no-store", body: body && JSON.stringify(body) };
  const answer = await fetch(path, wish).catch(() => null);
  if (answer === null) throw new Refusal(0, { message: say("connection.lost") });
  const found = await answer.json().catch(() => ({}));
  if (answer.ok) return found;
  if (answer.status === 401) refused();
  const retryAfterMs = 1000 * (Number(answer.headers.get("Retry-After")) || 0);
  throw new Refusal(answer.status, { ...found, retryAfterMs });
}

let entered = () => {};

/** Call `enter` at once, or as soon as somebody has given a key. */
export function admit(enter) {
  entered = enter;
  showForget();
  if (credential() === null) askForKey();
  else enter();
}

/** The credential is not good (any more). */
export function refused() {
  if (data.credential) {
    notice(say("access.expired"), true);
    return;
  }
  sessionStorage.removeItem(KEY);
  askForKey(say("access.refused"));
}

export function notice(text, reload = false) {
  byId("notice-text").textContent = text;
  byId("notice-reload").hidden = !reload;
  byId("notice").hidden = text === "";
}

function askForKey(fault = "") {
  byId("access").hidden = false;
  byId("access-fault").textContent = fault;
  byId("access-key").focus();
  showForget();
}

function showForget() {
  byId("forget").hidden = data.credential !== null || sessionStorage.getItem(KEY) === null;
}

byId("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("access-key").value.trim());
  byId("access-key").value = "";
  byId("access").hidden = true;
  showForget();
  entered();
});
byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});
byId("notice-reload").addEventListener("click", () => location.reload());
