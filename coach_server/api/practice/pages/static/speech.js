// Speaking instead of typing, where the browser has speech recognition. What it makes of it goes into the field as
// it grows; when somebody has finished, it is said.

import { byId } from "../console/dom.js";
import { say } from "../console/words.js";

const REGIONS = { nl: "nl-BE", en: "en-GB", he: "he-IL" };

export class Speech {
  /** `spoken()`: the field holds a whole sentence now. `fault(text)`: why nothing was heard. */
  constructor(field, { spoken, fault }) {
    this.button = byId("microphone");
    this.field = field;
    this.spoken = spoken;
    this.fault = fault;
    this.listening = null;
    this.Recognition = window.SpeechRecognition ?? window.webkitSpeechRecognition;
    this.button.hidden = this.Recognition === undefined;
    this.button.addEventListener("click", () => (this.listening ? this.listening.stop() : this.listen()));
  }

  listen() {
    const heard = new this.Recognition();
    heard.lang = REGIONS[this.language] ?? this.language ?? "";
    heard.interimResults = true;
    heard.addEventListener("result", ({ results }) => {
      this.field.value = Array.from(results, (result) => result[0].transcript).join("").trim();
    });
    heard.addEventListener("error", ({ error }) => {
      if (error === "not-allowed" || error === "service-not-allowed" || error === "audio-capture") {
        this.fault(say("talk.microphone_refused"));
      }
    });
    heard.addEventListener("end", () => this.ended(heard));
    this.field.value = "";
    this.listening = heard;
    this.show();
    heard.start();
  }

  ended(heard) {
    if (heard !== this.listening) return;
    this.listening = null;
    this.show();
    if (this.field.value.trim()) this.spoken();
  }

  /** Stop and forget what was being heard. */
  stop() {
    const heard = this.listening;
    this.listening = null;
    heard?.abort();
    this.show();
  }

  show() {
    this.button.setAttribute("aria-pressed", String(this.listening !== null));
    byId("say-hint").textContent = this.listening ? say("talk.listening") : "";
  }
}
