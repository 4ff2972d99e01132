// What was said, on its way to the server: in order, one at a time, and again until the server has stored it.
// A segment keeps its id, so the server stores it once however often it is sent.

const ANSWER_MS = 4000;
const PAUSE_MS = 500;

export class Outbox {
  /** `send(segment)` resolves to the server's ack or rejects; `ready()` resolves once there is a connection. */
  constructor(send, ready) {
    this.send = send;
    this.ready = ready;
    this.waiting = [];
    this.busy = false;
    this.closed = false;
  }

  put(segment, told) {
    this.waiting.push({ segment, told });
    if (!this.busy) this.drain();
  }

  /** Resolves when nothing waits any more, or after `ms`. */
  async empty(ms) {
    const end = performance.now() + ms;
    while (this.waiting.length && !this.closed && performance.now() < end) await pause(50);
  }

  close() {
    this.closed = true;
    this.waiting.length = 0;
  }

  async drain() {
    this.busy = true;
    while (this.waiting.length && !this.closed) {
      const { segment, told } = this.waiting[0];
      const ack = await this.attempt(segment);
      if (ack === null || (!ack.ok && ack.retryable)) {
        await pause(Math.max(PAUSE_MS, ack?.retryAfterMs ?? 0));
        continue;
      }
      this.waiting.shift();
      told(ack);
    }
    this.busy = false;
  }

  /** The ack, or null when none came. */
  async attempt(segment) {
    await this.ready();
    if (this.closed) return null;
    return this.send(segment, ANSWER_MS).catch(() => null);
  }
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
