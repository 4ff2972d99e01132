// 16-bit mono PCM as the simulation's socket carries it: little-endian, base64, 24 000 samples a second.

export const RATE = 24_000;

export function toBase64(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** Samples of -1..1. */
export function fromBase64(text) {
  const raw = atob(text);
  const bytes = Uint8Array.from(raw, (sign) => sign.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length >> 1 }, (_, at) => view.getInt16(2 * at, true) / 32_768);
}

export function toInt16(samples) {
  return Int16Array.from(samples, (value) => Math.round(Math.max(-1, Math.min(1, value)) * 32_767));
}
