// One practice session: the talk over Socket.IO, and what to do when the connection goes away in the middle.
//
// Tells what happens as DOM events: "connection" {state}, "joined" {status, scenarioFlow, …}, "step", "phase",
// "hint", "chunk" {text}, "fault" {message}, "over", "feedback". A message keeps its id however often it is sent,
// so it is heard once; an answer that was missed while away is fetched over REST.

import { freshId } from "../console/dom.js";
import { pause } from "../console/outbox.js";
import { ask } from "./access.js";

const ANSWER_MS = 6000;
const REPLY_MS = 25000;
const HEARTBEAT_MS = 20000;
const AGAIN_MS = 800;
const KINDS = {
  "step:updated": "step",
  "phase:completed": "phase",
  "feedback:ready": "feedback",
};

export class PracticeSession extends EventTarget {
  /** `io`: of socket.io-client. `credential`: {token} or {apiKey}. `started`: the answer to the start. */
  constructor(io, credential, started, userId) {
    super();
    this.id = started.sessionId;
    this.userId = userId;
    this.path = `/api/roleplay/sessions/${encodeURIComponent(this.id)}`;
    this.closed = false;
    this.isReady = false;
    this.wasReady = false;
    this.waiters = [];
    this.exchange = null;
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
    socket.on("connect", () => this.join());
    socket.on("connect_error", (error) => {
      this.tell("connection", { state: error.message === "Authentication failed" ? "refused" : "failed" });
    });
    socket.on("disconnect", (reason) => this.disconnected(reason));
    socket.on("hint:show", (hint) => this.tell("hint", hint));
    socket.on("roleplay:reply_chunk", (chunk) => this.grow(chunk));
    socket.on("roleplay:reply", (told) => this.settle(told));
    for (const [name, kind] of Object.entries(KINDS)) {
      socket.on(name, (payload) => payload.sessionId === this.id && this.tell(kind, payload));
    }
  }

  tell(kind, detail = {}) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  // --- the connection

  connect() {
    this.tell("connection", { state: "connecting" });
    this.beating = setInterval(() => this.beat(), HEARTBEAT_MS);
    this.socket.connect();
  }

  /** Take part (again). Until the server has said yes, nothing else is sent. */
  async join() {
    while (this.socket.connected && !this.isReady) {
      const ack = await this.emit("session:join", { userId: this.userId });
      if (ack?.ok) {
        this.becomeReady(ack);
      } else if (ack && !ack.retryable) {
        this.tell("fault", ack);
        return;
      } else {
        await pause(ack?.retryAfterMs ?? AGAIN_MS);
      }
    }
  }

  becomeReady(ack) {
    this.tell("connection", { state: this.wasReady ? "resumed" : "connected" });
    this.isReady = this.wasReady = true;
    this.stands(ack);
    for (const wake of this.waiters.splice(0)) wake();
  }

  stands(ack) {
    this.tell("joined", ack);
    if (ack.status === "completed" || ack.status === "abandoned") this.tell("over");
  }

  /** Ask where the session stands: no event tells of a step that was completed out of its turn. */
  async look() {
    if (!this.isReady) return;
    const ack = await this.emit("session:join", { userId: this.userId });
    if (ack?.ok) this.stands(ack);
  }

  async beat() {
    if (!this.isReady) return;
    const ack = await this.emit("session:heartbeat");
    if (ack?.ok === false && ack.code === "CONFLICT") this.tell("over");
  }

  disconnected(reason) {
    this.isReady = false;
    if (reason === "io client disconnect") return;
    this.tell("connection", { state: "lost" });
    // The library does not come back by itself when the server said goodbye.
    if (reason === "io server disconnect") setTimeout(() => this.closed || this.socket.connect(), 1000);
  }

  /** Resolves as soon as there is a connection that takes part in the session, or none will be. */
  async ready() {
    while (!this.isReady && !this.closed) await new Promise((wake) => this.waiters.push(wake));
  }

  /** The ack of an event, or null when none came. */
  emit(name, wish = {}) {
    return this.socket.timeout(ANSWER_MS).emitWithAck(name, { sessionId: this.id, ...wish }).catch(() => null);
  }

  // --- talking

  /** Say something. `told` hears the ack once the words are stored or refused. Resolves to the customer's reply,
   * or null when there will be none. */
  async say(text, told) {
    const messageId = freshId();
    const exchange = { messageId, grown: "" };
    exchange.answered = new Promise((resolve) => (exchange.resolve = resolve));
    this.exchange = exchange;
    const ack = await this.deliver({ messageId, text });
    told(ack);
    const reply = ack.ok ? await this.reply(exchange, { messageId, text }) : null;
    if (this.exchange === exchange) this.exchange = null;
    return reply;
  }

  async deliver(message) {
    for (;;) {
      await this.ready();
      if (this.closed) return { ok: false };
      const ack = await this.emit("roleplay:message", message);
      if (ack?.ok || (ack && !ack.retryable)) return ack;
      await pause(ack?.retryAfterMs ?? AGAIN_MS);
    }
  }

  /** The reply as it is told; after a gap in the connection, or when it does not come, as REST has it. */
  async reply(exchange, message) {
    const missed = Promise.race([this.cut(), pause(REPLY_MS)]).then(() => null);
    const told = await Promise.race([exchange.answered, missed]);
    if (told !== null || this.closed) return told;
    for (let tries = 0; tries < 5 && !this.closed; tries += 1) {
      try {
        return (await ask(`${this.path}/message`, { method: "POST", body: message })).reply;
      } catch (refusal) {
        if (refusal.status !== 0 && refusal.status !== 429 && refusal.status < 500) {
          this.tell("fault", refusal);
          return null;
        }
        await pause(Math.max(refusal.retryAfterMs, AGAIN_MS * (tries + 1)));
      }
    }
    this.tell("fault", {});
    return null;
  }

  /** Resolves once the connection has been away. */
  cut() {
    return new Promise((resolve) => this.socket.once("disconnect", resolve));
  }

  grow({ sessionId, messageId, delta }) {
    const { exchange } = this;
    if (sessionId !== this.id || exchange?.messageId !== messageId) return;
    exchange.grown += delta;
    this.tell("chunk", { text: exchange.grown });
  }

  settle({ sessionId, messageId, reply }) {
    if (sessionId === this.id && this.exchange?.messageId === messageId) this.exchange.resolve(reply);
  }

  /** Tick a step off by hand. Resolves to whether that was accepted. */
  async complete(stepId) {
    await this.ready();
    const ack = await this.emit("step:complete", { stepId });
    if (!ack?.ok) this.tell("fault", ack ?? {});
    return Boolean(ack?.ok);
  }

  /** Stop. Resolves to whether there will be a result: not of a talk in which nothing was said. */
  async stop() {
    clearInterval(this.beating);
    const { feedbackQueued } = await ask(`${this.path}/stop`, { method: "POST" });
    return feedbackQueued !== false;
  }

  close() {
    this.closed = true;
    clearInterval(this.beating);
    this.exchange?.resolve(null);
    for (const wake of this.waiters.splice(0)) wake();
    this.socket.disconnect();
  }
}

const MOST_TRIES = 45;
const FIRST_LOOK_MS = 3000;
const LOOK_AGAIN_MS = 2000;

/** The feedback document, asked for once it is `announced` (a promise) or should be there; then as often as the
 * server says that it is still being made. Null when that took too long. */
export async function fetchFeedback(path, announced) {
  await Promise.race([announced, pause(FIRST_LOOK_MS)]);
  for (let tries = 0; tries < MOST_TRIES; tries += 1) {
    try {
      return await ask(`${path}/feedback`);
    } catch (refusal) {
      const waits = refusal.status === 0 || refusal.status === 409 || refusal.status === 429 || refusal.status === 503;
      if (!waits) throw refusal;
      await pause(refusal.retryAfterMs || LOOK_AGAIN_MS);
    }
  }
  return null;
}
