// The customer's voice: pieces as they come, one after the other without a gap, and silence at once when somebody
// interrupts. The context runs at the voice's own rate, so that each piece is not resampled by itself, which clicks.

import { RATE, fromBase64 } from "./pcm.js";

// A beginning waits this long, so that the next piece is there when the first is over.
const LEAD_S = 0.08;
const FADE_S = 0.015;

export class Speaker {
  /** `changed(isSpeaking)`. */
  constructor(changed) {
    this.changed = changed;
    this.playing = new Set();
    this.until = 0;
    this.context = null;
  }

  /** To be called within a click: browsers keep a page silent before one. */
  open() {
    this.context ??= new AudioContext({ sampleRate: RATE });
    this.context.resume();
  }

  /** Play a base64 piece behind what is waiting. */
  play(text) {
    if (!this.context) return;
    const samples = fromBase64(text);
    if (samples.length === 0) return;
    const buffer = this.context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const now = this.context.currentTime;
    if (this.until < now) this.until = now + LEAD_S;
    this.begin(buffer);
    this.until += buffer.duration;
  }

  begin(buffer) {
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(this.way());
    source.addEventListener("ended", () => {
      this.playing.delete(source);
      if (this.playing.size === 0) this.changed(false);
    });
    if (this.playing.size === 0) this.changed(true);
    this.playing.add(source);
    source.start(this.until);
  }

  /** The volume of what plays now; the next stretch gets one of its own. */
  way() {
    if (!this.gain) {
      this.gain = new GainNode(this.context);
      this.gain.connect(this.context.destination);
    }
    return this.gain;
  }

  /** Be silent, and forget what waits. */
  stop() {
    if (!this.context || this.playing.size === 0) return;
    const now = this.context.currentTime;
    this.gain.gain.setTargetAtTime(0, now, FADE_S / 3);
    for (const source of this.playing) source.stop(now + FADE_S);
    this.gain = null;
    this.until = 0;
  }

  close() {
    this.stop();
    this.context?.close();
    this.context = null;
  }
}
