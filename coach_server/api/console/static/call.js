// One live call over the real Socket.IO events, and what to do when the connection goes away in the middle.
//
// Tells what happens as DOM events: "connection" {state, …}, "started", "tip", "tip-updated", "tip-chunk",
// "selected", "mode", "fault", "ended", "analysed". Events are numbered by the server (`seq`); what was seen
// already is passed over, what was missed is asked for with RESUME_CONVERSATION.

import { freshId } from "./dom.js";
import { Outbox, pause } from "./outbox.js";

const ANSWER_MS = 6000;
const LONGEST_WAIT_MS = 6000; // a person rather hears why than looks at nothing
const KINDS = {
  AI_TIP: "tip",
  TIP_UPDATED: "tip-updated",
  TIP_CHUNK: "tip-chunk",
  OPTION_SELECTED_ACK: "selected",
  MODE_SET: "mode",
  CONVERSATION_ENDED: "ended",
  ANALYSIS_READY: "analysed",
};

export class LiveCall extends EventTarget {
  /** `io`: the function of socket.io-client. `credential`: {token} or {apiKey}. */
  constructor(io, credential) {
    super();
    this.id = null;
    this.lastSeq = 0;
    this.over = false;
    this.resumeToken = null;
    this.waiters = [];
    this.isReady = false;
    this.drainMs = null;
    this.outbox = new Outbox(
      (segment, ms) => this.socket.timeout(ms).emitWithAck("TRANSCRIPT", { ...segment, conversationId: this.id }),
      () => this.ready(),
    );
    this.socket = io({
      auth: credential,
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      reconnectionDelay: 400,
      reconnectionDelayMax: 4000,
      autoConnect: false,
    });
    this.listen();
  }

  listen() {
    const { socket } = this;
    socket.on("connect", () => this.connected());
    socket.on("connect_error", (error) => {
      this.tell("connection", { state: error.message === "Authentication failed" ? "refused" : "failed" });
    });
    socket.on("disconnect", (reason) => this.disconnected(reason));
    socket.on("SERVER_DRAINING", ({ payload }) => {
      this.drainMs = payload?.reconnectInMs ?? 1000;
      this.tell("connection", { state: "draining" });
    });
    socket.on("CONVERSATION_STARTED", ({ payload }) => this.adopt(payload));
    socket.on("ERROR", ({ payload }) => this.numbered(payload) && this.tell("fault", payload));
    for (const [name, kind] of Object.entries(KINDS)) {
      socket.on(name, ({ payload }) => {
        if (payload.conversationId !== this.id || !this.numbered(payload)) return;
        this.tell(kind, payload);
      });
    }
  }

  tell(kind, detail = {}) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  /** False for an event that was seen before. */
  numbered(payload) {
    if (payload?.seq === undefined) return true;
    if (payload.seq <= this.lastSeq) return false;
    this.lastSeq = payload.seq;
    return true;
  }

  // --- the connection

  connect() {
    this.tell("connection", { state: "connecting" });
    this.socket.connect();
  }

  async connected() {
    this.drainMs = null;
    if (this.id === null) {
      this.becomeReady();
      this.tell("connection", { state: "connected" });
    } else {
      await this.resume();
    }
  }

  async resume() {
    const wish = { conversationId: this.id, resumeToken: this.resumeToken, lastSeq: this.lastSeq };
    while (this.socket.connected && !this.isReady) {
      const ack = await this.socket.timeout(ANSWER_MS).emitWithAck("RESUME_CONVERSATION", wish).catch(() => null);
      if (ack?.ok) {
        this.becomeReady();
        this.tell("connection", { state: "resumed", recovered: ack.recovered, missed: ack.missed });
      } else if (ack && !ack.retryable) {
        this.becomeReady();
        this.tell("fault", ack);
        return;
      } else {
        await pause(ack?.retryAfterMs ?? 500);
      }
    }
  }

  disconnected(reason) {
    this.isReady = false;
    if (reason === "io client disconnect") return;
    this.tell("connection", { state: this.drainMs === null ? "lost" : "draining" });
    // The library does not come back by itself when the server said goodbye.
    if (reason === "io server disconnect") setTimeout(() => this.socket.connect(), this.drainMs ?? 1000);
  }

  becomeReady() {
    this.isReady = true;
    for (const wake of this.waiters.splice(0)) wake();
  }

  /** Resolves at once or as soon as there is a connection that speaks for the call. */
  async ready() {
    while (!this.isReady && !this.over) await new Promise((wake) => this.waiters.push(wake));
  }

  // --- what a client may ask

  /** Start the call. Sent again until answered: the idempotency key makes it one call. Rejects when it is refused. */
  async start(wish) {
    const whole = { ...wish, idempotencyKey: freshId() };
    for (;;) {
      await this.ready();
      if (this.over) throw new Error("closed");
      const ack = await this.socket.timeout(ANSWER_MS).emitWithAck("START_CONVERSATION", whole).catch(() => null);
      if (ack?.ok) {
        this.adopt(ack);
        return ack;
      }
      if (ack && (!ack.retryable || ack.retryAfterMs > LONGEST_WAIT_MS)) throw new Error(ack.message);
      await pause(ack?.retryAfterMs ?? 800);
    }
  }

  /** The call has started: told by the ack and by CONVERSATION_STARTED, whichever is first. */
  adopt(started) {
    if (this.id !== null || this.over) return;
    this.id = started.conversationId;
    this.resumeToken = started.resumeToken;
    this.startedAt = performance.now();
    this.lastSeq = Math.max(this.lastSeq, started.seq ?? 0);
    this.tell("started", started);
  }

  /** Say something; `told` hears the ack once it is stored or refused. */
  utter(speaker, text, told) {
    const segment = { speaker, text, isFinal: true, timestamp: Date.now(), segmentId: freshId() };
    this.outbox.put(segment, told);
  }

  /** Somebody is speaking: keeps tips from coming in the middle of a sentence. Not stored. */
  hint(speaker, text) {
    if (!this.isReady || this.id === null || !text) return;
    this.socket.emit("TRANSCRIPT", { conversationId: this.id, speaker, text, isFinal: false, timestamp: Date.now() });
  }

  /** Any other event of the call. Resolves to the ack; a refusal or silence is told as a fault. */
  async ask(name, wish = {}) {
    await this.ready();
    if (this.over) return { ok: false };
    const payload = { conversationId: this.id, ...wish };
    const ack = await this.socket.timeout(ANSWER_MS).emitWithAck(name, payload).catch(() => null);
    if (!ack?.ok) this.tell("fault", ack ?? {});
    return ack ?? { ok: false };
  }

  /** End the call once everything said is stored. */
  async end() {
    await this.outbox.empty(5000);
    return this.ask("END_CONVERSATION");
  }

  /** The page goes away: end the call as far as that still gets through. */
  leave() {
    if (this.id !== null && this.socket.connected) {
      this.socket.emit("END_CONVERSATION", { conversationId: this.id });
    }
    this.close();
  }

  close() {
    this.over = true;
    this.outbox.close();
    this.becomeReady();
    this.socket.disconnect();
  }
}
