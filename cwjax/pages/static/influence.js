// How far each word of the context moved the sound: the `context_words` of an answer.
import { percent } from "./elements.js";

export class Influence {
  // `layers`, of the audio encoder, and what they added each are known where the page was made with the recording.
  constructor({ words = [], windows = [], column_seconds: seconds = 0.1, layers = [] } = {}) {
    Object.assign(this, { words, windows, seconds, layers });
  }

  // What each word, and all and everything, added between two seconds: a column at least.
  between(from, to) {
    const totals = new Float64Array(this.words.length);
    let all = 0;
    for (const { start, words, influence, others } of this.windows) {
      const first = Math.min(Math.max(0, Math.floor((from - start) / this.seconds)), others.length);
      const last = to <= start ? first : Math.min(others.length, Math.max(first + 1, Math.round((to - start) / this.seconds)));
      for (let column = first; column < last; column++) {
        all += others[column];
        words.forEach((word, row) => {
          totals[word] += influence[row][column];
          all += influence[row][column];
        });
      }
    }
    return { totals, all };
  }

  // The words that added most, as [place, share in all that was added].
  strongest(from, to, count) {
    const { totals, all } = this.between(from, to);
    const places = Array.from(totals.keys()).filter((place) => totals[place] > 0);
    return places.sort((one, other) => totals[other] - totals[one]).slice(0, count).map((place) => [place, totals[place] / all]);
  }

  // Those of `strongest` in words.
  named(...given) {
    return this.strongest(...given).map(([place, value]) => `${this.words[place]} ${percent(value)}`).join(", ") || "nothing";
  }

  // A value that few exceed, so that the rest is not pale.
  get high() {
    const values = Float64Array.from(this.windows.flatMap(({ influence }) => influence.flat())).sort();
    return Math.max(values[Math.floor(0.995 * (values.length - 1))] ?? 0, 1e-12);
  }
}
