// Where a recording is cut while it goes on: in pauses or, where somebody speaks without any, at the quietest moment.
export const BLOCK = 128; // samples at 16 kHz, of which an AudioWorklet hears so many at once
const blocks = (seconds) => Math.round((seconds * 16000) / BLOCK);
const PAUSE = blocks(0.5);
const LEAST = blocks(3);
const MOST = blocks(25); // the model hears 30 s at once
const MOMENT = blocks(0.3);
const DRIFT = 1 / blocks(0.5); // dB a block, by which what was loudest and quietest is forgotten
const SILENCE = -70; // dB; below that all is alike
const RISE = 6; // dB that speech is above noise, at least,
const SHARE = 0.3; // and this share of the way from the quietest to the loudest

export class Pauses {
  levels = []; // of the piece's blocks, in dB
  energy = 0;
  quietest = Infinity;
  loudest = -Infinity;
  quiet = 0; // blocks since the last that was loud
  spoken = false; // something in the piece was loud

  // Hears the next block; gives after how many of its blocks the piece is over, 0 if it goes on.
  add(samples) {
    const energy = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
    this.energy += (energy - this.energy) / 4;
    const level = Math.max(SILENCE, 10 * Math.log10(this.energy));
    this.levels.push(level);
    this.quietest = Math.min(level, this.quietest + DRIFT);
    this.loudest = Math.max(level, this.loudest - DRIFT);
    const loud = level > this.quietest + Math.max(RISE, SHARE * (this.loudest - this.quietest));
    this.quiet = loud ? 0 : this.quiet + 1;
    this.spoken ||= loud;
    const length = this.levels.length;
    if (this.spoken && this.quiet >= PAUSE && length >= LEAST) return this.cut(length - PAUSE / 2);
    return length < MOST ? 0 : this.cut(quietestMoment(this.levels));
  }

  cut(place) {
    const end = Math.floor(place);
    this.levels.splice(0, end);
    this.spoken = this.quiet < this.levels.length;
    return end;
  }
}

// The middle of the quietest moment in the later half.
function quietestMoment(levels) {
  let [sum, least, place] = [0, Infinity, 0];
  for (let end = Math.floor(levels.length / 2); end < levels.length; end++) {
    sum = levels.slice(end - MOMENT, end).reduce((all, level) => all + level, 0);
    if (sum < least) [least, place] = [sum, end - MOMENT / 2];
  }
  return place;
}
