// Who looks at these pages. A key that somebody gave in this tab goes before the token that the page was handed.

import { admit, credential } from "../practice/access.js";
import { byId } from "../console/dom.js";
import { data, say } from "../console/words.js";

const KEY = "coach-credential";

/** Call `load` as soon as somebody may come in. */
export function comeIn(load) {
  const handed = data.credential;
  if (sessionStorage.getItem(KEY)) data.credential = null;
  byId("other-key").hidden = handed === null || data.credential === null;
  byId("other-key").addEventListener("click", () => {
    data.credential = null;
    byId("other-key").hidden = true;
    admit(load);
  });
  admit(load);
  if (!byId("access").hidden) document.body.dataset.ready = "true";
}

/** Whose sessions the server shows to this reader, as a sentence. The server decides; this only tells. */
export function whose() {
  const { token } = credential();
  const { role, team, sub } = token ? claims(token) : { role: "service" };
  if (role === "service" || role === "admin") return say("board.whose_all");
  if (role === "manager" && team) return say("board.whose_team", { team });
  return say("board.whose_own", { user: sub ?? "" });
}

function claims(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (sign) => sign.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}
