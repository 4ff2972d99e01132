// Plays the scripted call in real time or faster. `pauseMs` of a turn runs from the turn before being heard to
// this one being heard; speech fills its end, silence its begin.

const TICK_MS = 80;
const MS_PER_WORD = 330;
const LONGEST_STEP_MS = 1000; // a tab in the background is woken rarely; the call must not leap

export class DemoPlayer {
  /** `on.words(turn, text)` while a turn is being said, `on.turn(turn)` when it is over, `on.done()` at last. */
  constructor(turns, on, speed) {
    this.turns = turns;
    this.on = on;
    this.speed = speed;
    this.index = 0;
    this.spent = 0;
    this.timer = null;
  }

  get playing() {
    return this.timer !== null;
  }

  play() {
    if (this.playing || this.index >= this.turns.length) return;
    this.before = performance.now();
    this.timer = setInterval(() => this.tick(), TICK_MS);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
  }

  tick() {
    const now = performance.now();
    this.spent += Math.min(now - this.before, LONGEST_STEP_MS) * this.speed;
    this.before = now;
    while (this.playing && this.spent >= this.turns[this.index].pauseMs) {
      const turn = this.turns[this.index];
      this.spent -= turn.pauseMs;
      this.index += 1;
      if (this.index >= this.turns.length) this.pause();
      this.on.turn(turn);
    }
    if (this.playing) this.speak(this.turns[this.index]);
    else if (this.index >= this.turns.length) this.on.done();
  }

  speak(turn) {
    const words = turn.text.split(" ");
    const speech = Math.min(turn.pauseMs * 0.8, words.length * MS_PER_WORD);
    const share = (this.spent - (turn.pauseMs - speech)) / speech;
    if (share > 0) this.on.words(turn, words.slice(0, Math.ceil(share * words.length)).join(" "));
  }
}
