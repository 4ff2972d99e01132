// Behaves as the published extension 1.0.0 does (live-coach.md §2, §6): WebSocket first, no acks, and its own
// reconnection on top of the library's, so that an outage leaves several live sockets of which only the newest
// speaks. Commands come as JSON lines on stdin, what happens goes out as JSON lines on stdout.
import readline from "node:readline";

const [url, key, version] = process.argv.slice(2);
const library = version === "4.8.1" ? "socket.io-client-4.8.1" : "socket.io-client";
const { io } = await import(library);

const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const HEARD = [
  "CONVERSATION_STARTED", "AI_TIP", "CONVERSATION_ENDED", "ERROR", "PONG", "OPTION_SELECTED_ACK",
  "TIP_UPDATED", "ANALYSIS_READY", "SERVER_DRAINING", "CONVERSATION_RESUMED", "TRANSCRIPTION_STARTED",
];
const sockets = [];
let newest = null;
let attempts = 0;
let parting = false;

function open() {
  const socket = io(url, {
    auth: { apiKey: JSON.parse(key) },
    transports: ["websocket", "polling"],
    reconnection: true,
    reconnectionAttempts: 3,
    reconnectionDelay: 1000,
    reconnectionDelayMax: 5000,
    forceNew: true,
  });
  const number = sockets.push(socket) - 1;
  newest = socket;
  socket.on("connect", () => {
    attempts = 0;
    tell({ event: "connect", socket: number, sid: socket.id });
  });
  socket.on("connect_error", (error) => {
    tell({ event: "connect_error", socket: number, message: error.message });
    again();
  });
  socket.on("disconnect", (reason) => {
    tell({ event: "disconnect", socket: number, reason });
    if (reason !== "io server disconnect" && !parting) again();
  });
  for (const name of HEARD) {
    // The client reads message.payload without a guard.
    socket.on(name, (message) => tell({ event: name, socket: number, payload: message.payload, seq: message.payload.seq }));
  }
}

function again() {
  if (attempts >= 3) return;
  const delay = 1000 * 2 ** attempts++;
  setTimeout(open, delay);
}

const verbs = {
  open,
  emit: ({ name, args }) => newest.emit(name, ...args),
  ask: async ({ name, args, id }) => tell({ answer: id, data: await newest.timeout(3000).emitWithAck(name, ...args) }),
  // Capture stop: END_CONVERSATION and disconnect in the same tick.
  stop: ({ conversationId }) => {
    parting = true;
    newest.emit("END_CONVERSATION", { conversationId });
    for (const socket of sockets) socket.disconnect();
    tell({ event: "stopped" });
  },
  quit: () => process.exit(0),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const command = JSON.parse(line);
  verbs[command.verb](command);
}).on("close", () => process.exit(0));
tell({ event: "ready" });
