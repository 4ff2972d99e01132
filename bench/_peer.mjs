// The Node.js peer: socket.io as it comes, with the handlers of _peer.py. Prints its port.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { cors: { origin: "*" } });
const last = new Map();
io.on("connection", (socket) => {
  socket.on("TRANSCRIPT", (data) => {
    if (data && typeof data.text === "string") last.set(socket.id, data.text);
  });
  socket.on("PING", () => {
    socket.emit("PONG", { type: "PONG", payload: { timestamp: 1766750000000 } });
  });
  socket.on("disconnect", () => last.delete(socket.id));
});
http.listen(0, "127.0.0.1", 4096, () => console.log(http.address().port));
