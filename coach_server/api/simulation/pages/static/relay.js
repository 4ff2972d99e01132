// The session's socket: JSON frames both ways, opened again with the ticket that the last `ready` brought.
//
//   connecting ─▶ ready ─▶ over          (the server said that the session has ended)
//        ▲          │
//        └── lost ◀─┘                    given up after MOST_TRIES; `again` begins anew

import { toBase64 } from "./pcm.js";

const AGAIN_MS = [300, 1000, 2000, 4000, 8000];
const MOST_TRIES = 12;
// Sound that has to wait longer than this is no longer worth hearing.
const MOST_WAITING_BYTES = 200_000;
const TAKEN_OVER = 1008;

export class Relay {
  /** `tell(frame)`: each frame of the server. `changed(state)`: connecting, ready, lost, gone, taken or over. `isOver`:
   * resolves to whether the session has ended meanwhile; asked when the server lets nobody in any more. */
  constructor(wsUrl, { tell, changed, isOver }) {
    this.url = new URL(wsUrl, location.href);
    this.tell = tell;
    this.changed = changed;
    this.isOver = isOver;
    this.tries = 0;
    this.over = false;
    this.closed = false;
  }

  connect() {
    this.changed("connecting");
    this.isReady = false;
    const socket = new WebSocket(this.address());
    this.socket = socket;
    socket.addEventListener("message", ({ data }) => {
      if (socket === this.socket) this.take(JSON.parse(data));
    });
    socket.addEventListener("close", ({ code }) => {
      if (socket === this.socket && !this.closed) this.lost(code);
    });
  }

  /** The path is the server's to say; the host is the page's own, as its policy wants it. */
  address() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    return `${scheme}://${location.host}${this.url.pathname}${this.url.search}`;
  }

  take(frame) {
    if (frame.ticket) this.url.searchParams.set("ticket", frame.ticket);
    if (frame.type === "ready") {
      this.tries = 0;
      this.isReady = true;
      this.changed("ready");
    }
    if (frame.type === "session_ended") this.over = true;
    this.tell(frame);
  }

  async lost(code) {
    this.isReady = false;
    if (this.over) return this.changed("over");
    if (code === TAKEN_OVER) return this.changed("taken");
    this.changed("lost");
    if (this.tries > 0 && (await this.isOver())) {
      this.over = true;
      return this.changed("over");
    }
    if (this.tries >= MOST_TRIES) return this.changed("gone");
    this.waiting = setTimeout(() => this.connect(), AGAIN_MS[Math.min(this.tries, AGAIN_MS.length - 1)]);
    this.tries += 1;
    return undefined;
  }

  again() {
    this.tries = 0;
    this.connect();
  }

  /** False when there is no connection: nothing was sent. */
  send(frame) {
    if (!this.isReady || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  audio(samples) {
    if (this.socket?.bufferedAmount > MOST_WAITING_BYTES) return;
    this.send({ type: "audio", data: toBase64(samples) });
  }

  close() {
    this.closed = true;
    clearTimeout(this.waiting);
    this.socket?.close();
  }
}
