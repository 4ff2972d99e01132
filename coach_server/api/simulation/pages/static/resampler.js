// From the rate of the microphone to another one, piece by piece. A windowed sinc: what the new rate cannot hold is
// taken away, so that hiss does not fold down into speech.

const HALF = 16;
const PHASES = 128;

export class Resampler {
  /** `from`, `to`: samples a second. */
  constructor(from, to) {
    this.step = from / to;
    // Of the lower of both rates, and a little less: a filter this short is not steep.
    this.cutoff = Math.min(1, to / from) * 0.92;
    this.reach = Math.ceil(HALF / Math.min(1, to / from));
    this.kernels = [];
    this.kept = new Float32Array(this.reach);
    this.at = this.reach;
  }

  /** What can be told with `samples` (a Float32Array) on top of what came before. */
  push(samples) {
    if (this.step === 1) return samples;
    const all = new Float32Array(this.kept.length + samples.length);
    all.set(this.kept);
    all.set(samples, this.kept.length);
    const made = [];
    for (; this.at + this.reach < all.length; this.at += this.step) made.push(this.value(all));
    const from = Math.max(0, Math.floor(this.at) - this.reach);
    this.kept = all.slice(from);
    this.at -= from;
    return Float32Array.from(made);
  }

  value(all) {
    const middle = Math.floor(this.at);
    const kernel = this.kernel(Math.round((this.at - middle) * PHASES));
    const first = middle - this.reach + 1;
    let sum = 0;
    for (let tap = 0; tap < kernel.length; tap += 1) sum += kernel[tap] * all[first + tap];
    return sum;
  }

  /** The weights around a place that lies `phase` of PHASES behind a sample; made once. */
  kernel(phase) {
    if (this.kernels[phase]) return this.kernels[phase];
    const far = Array.from({ length: 2 * this.reach }, (_, tap) => tap - this.reach + 1 - phase / PHASES);
    const shares = far.map((x) => sinc(x * this.cutoff) * hann(x / (this.reach + 1)));
    const weight = shares.reduce((all, share) => all + share, 0);
    this.kernels[phase] = Float32Array.from(shares, (share) => share / weight);
    return this.kernels[phase];
  }
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const hann = (x) => 0.5 + 0.5 * Math.cos(Math.PI * x);
