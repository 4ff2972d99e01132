// The microphone's own thread (an AudioWorklet): takes what the browser hears, brings it to 24 kHz, and hands it over
// in pieces of 40 ms, each with how loud it was.

import { RATE, toInt16 } from "./pcm.js";
import { Resampler } from "./resampler.js";

const PIECE = RATE / 25;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
  }

  process([channels]) {
    // Without a source there are no channels; the node is kept all the same.
    if (channels.length) for (const value of this.resampler.push(mono(channels))) this.put(value);
    return true;
  }

  put(value) {
    this.piece[this.filled] = value;
    this.filled += 1;
    if (this.filled < PIECE) return;
    const samples = toInt16(this.piece);
    const level = Math.sqrt(this.piece.reduce((sum, one) => sum + one * one, 0) / PIECE);
    this.filled = 0;
    this.port.postMessage({ samples, level }, [samples.buffer]);
  }
}

/** A copy, for the browser writes over what it hands us. */
function mono(channels) {
  if (channels.length === 1) return channels[0].slice();
  return channels[0].map((_, at) => channels.reduce((sum, channel) => sum + channel[at], 0) / channels.length);
}

registerProcessor("capture", Capture);
