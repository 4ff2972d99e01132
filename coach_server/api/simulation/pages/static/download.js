// Files behind the reader's credential: fetched with it, then handed to the browser. A plain link could not carry it.

import { Refusal, credential, notice } from "../practice/access.js";
import { h } from "../console/dom.js";
import { say } from "../console/words.js";

/** Save what `path` answers under `name`. `button` is busy meanwhile; a refusal is told on the page. */
export async function download(path, name, button) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    save(await file(path), name);
    notice("");
  } catch (refusal) {
    notice(say("record.file_failed", { message: refusal.message }));
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

async function file(path) {
  const { token, apiKey } = credential();
  const headers = token ? { Authorization: `Bearer ${token}` } : { "x-api-key": apiKey };
  const answer = await fetch(path, { headers, cache: "no-store" }).catch(() => null);
  if (answer === null) throw new Refusal(0, { message: say("connection.lost") });
  if (!answer.ok) throw new Refusal(answer.status, await answer.json().catch(() => ({})));
  return answer.blob();
}

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
