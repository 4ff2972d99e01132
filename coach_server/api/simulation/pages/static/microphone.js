// The microphone: asked for, opened, muted, let go.

const WISH = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/** Whether a page at this address may ask at all: browsers allow it on HTTPS and on this machine only. */
export const mayListen = () => Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);

export class Microphone {
  /** `heard(samples, level)`: 40 ms of 24 kHz PCM as an Int16Array, and how loud, 0..1. `lost()`: it was unplugged
   * or taken away. */
  constructor({ heard, lost }) {
    this.heard = heard;
    this.lost = lost;
    this.isOpen = false;
  }

  /** Rejects with a DOMException when there is none or the reader says no. */
  async open() {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: WISH });
    const context = new AudioContext();
    try {
      await context.audioWorklet.addModule(new URL("./capture.js", import.meta.url));
    } catch (fault) {
      release(stream, context);
      throw fault;
    }
    this.take(stream, context);
  }

  take(stream, context) {
    const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    node.port.addEventListener("message", ({ data: { samples, level } }) => {
      if (this.isOpen) this.heard(samples, level);
    });
    node.port.start();
    context.createMediaStreamSource(stream).connect(node);
    stream.getAudioTracks()[0].addEventListener("ended", () => {
      this.close();
      this.lost();
    });
    this.stream = stream;
    this.context = context;
    this.isOpen = true;
    context.resume();
  }

  /** Whether the browser still listens, by the device itself. */
  get isLive() {
    return this.stream?.getAudioTracks().some((track) => track.readyState === "live") ?? false;
  }

  close() {
    if (!this.isOpen) return;
    this.isOpen = false;
    release(this.stream, this.context);
  }
}

function release(stream, context) {
  for (const track of stream.getTracks()) track.stop();
  context.close();
}
