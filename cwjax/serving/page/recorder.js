// What a microphone hears, block by block, and where it may be cut, as an AudioWorklet.
import { Pauses } from "./pauses.js";

class Recorder extends AudioWorkletProcessor {
  pauses = new Pauses();

  process([input]) {
    if (input.length) this.port.postMessage({ block: input[0].slice(), cut: this.pauses.add(input[0]) });
    return true;
  }
}
registerProcessor("recorder", Recorder);
