// The published client library against the socket floor: one line of JSON with what was seen.
import { createRequire } from "node:module";

const [, , name, url, transports] = process.argv;
const { io } = createRequire(import.meta.url)(name);
const seen = { transports: [], pongs: [], acks: [], refusals: [], reasons: [] };
const once = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));
const options = { transports: transports.split("+"), reconnection: false, forceNew: true };

const refused = io(url, { ...options, auth: { apiKey: "wrong" } });
seen.refusals.push((await once(refused, "connect_error")).message);
refused.close();

const socket = io(url, { ...options, auth: { apiKey: "right" } });
await once(socket, "connect");
if (transports === "polling+websocket" && socket.io.engine.transport.name === "polling") {
  await once(socket.io.engine, "upgrade");
}
seen.transports.push(socket.io.engine.transport.name);

socket.on("PONG", (message) => seen.pongs.push(message));
socket.emit("PING");
socket.emit("PING", null);
seen.acks.push(await socket.timeout(5000).emitWithAck("ECHO", { text: "שלום 🙂" }, [1, null]));
seen.acks.push(await socket.timeout(5000).emitWithAck("NOTE", Buffer.from("pcm")));
const burst = await Promise.all(
  Array.from({ length: 100 }, (_, number) => socket.timeout(5000).emitWithAck("NOTE", number)),
);
seen.acks.push(burst.length);

socket.on("ASK", (data, answer) => answer({ heard: data.toString() }));
seen.acks.push(await socket.timeout(5000).emitWithAck("ASK_ME"));

const again = io(url, { ...options, auth: { apiKey: "right" }, reconnection: true, reconnectionDelay: 10 });
await once(again, "connect");
const first = again.id;
again.io.engine.close();
await once(again, "connect");
seen.acks.push(again.id !== first);
again.close();

const gone = once(socket, "disconnect");
socket.emit("DROP_ME");
seen.reasons.push(await gone);
console.log(JSON.stringify(seen));
process.exit(0);
