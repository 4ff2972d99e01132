// Behaves as the web client of the roleplay does (contract roleplay-hugo.md §1): REST by fetch, Socket.IO by
// the npm client, bare payloads, a stop without body and without Content-Type, and feedback by polling until the
// first success. Commands come as JSON lines on stdin, what happens goes out as JSON lines on stdout.
import readline from "node:readline";
import { io } from "socket.io-client";

const [base, auth] = process.argv.slice(2);
const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const HEARD = ["step:updated", "phase:completed", "feedback:ready", "hint:show", "roleplay:reply", "ERROR"];
let socket = null;

function connect(options) {
  socket = options ? io(base, { auth: options, forceNew: true }) : io(base, { forceNew: true });
  socket.on("connect", () => tell({ event: "connect" }));
  socket.on("connect_error", (error) => tell({ event: "connect_error", message: error.message }));
  for (const name of HEARD) socket.on(name, (data) => tell({ event: name, payload: data }));
}

async function request(id, method, path, body) {
  const headers = { ...JSON.parse(auth) };
  const options = { method, headers };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(base + path, options);
  tell({ answer: id, status: response.status, ok: response.ok, data: await response.json() });
}

// Any 2xx ends the polling and opens the result window.
async function poll(id, path, everyMs, tries) {
  const seen = [];
  for (let count = 0; count < tries; count += 1) {
    const response = await fetch(base + path, { headers: JSON.parse(auth) });
    seen.push({ status: response.status, retryAfter: response.headers.get("retry-after") });
    const data = await response.json();
    if (response.ok) {
      tell({ answer: id, seen, data });
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
  tell({ answer: id, seen, data: null });
}

const verbs = {
  connect: (told) => connect(told.auth),
  emit: (told) => socket.emit(told.name, told.data),
  leave: () => socket.disconnect(),
  request: (told) => request(told.id, told.method, told.path, told.body),
  poll: (told) => poll(told.id, told.path, told.everyMs, told.tries),
  quit: () => {
    socket?.disconnect();
    process.exit(0);
  },
};

tell({ event: "ready" });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const told = JSON.parse(line);
  Promise.resolve(verbs[told.verb](told)).catch((error) => tell({ event: "failed", message: String(error) }));
}
