// The transcript of a recording that goes on: pieces are asked for one after the other, and joined.
import { transcribe } from "./ask.js";

export class Live {
  // `fields` and `key` are those of every piece; `told` is called with what is known after each.
  constructor(fields, key, signal, told) {
    this.ask = (file) => transcribe(file, fields, key, signal, () => {});
    this.told = told;
    this.pieces = [];
    this.last = Promise.resolve();
  }

  // Asks for the next piece, which begins at `start` seconds; after one that failed no more are asked for.
  add(file, start) {
    this.last = this.last.then(async () => {
      this.pieces.push(moved(await this.ask(file), start));
      this.told(joined(this.pieces));
    });
    return this.last;
  }
}

const later = (items, start) =>
  items?.map((one) => ({ ...one, start: one.start + start, ...("end" in one && { end: one.end + start }) }));

// An answer with the times of the whole recording.
function moved(answer, start) {
  const { words, segments, phrases, without_context: plain, context_words: context } = answer;
  return {
    ...answer,
    words: later(words, start),
    segments: later(segments, start).map((one) => ({ ...one, seek: one.seek + Math.round(100 * start) })),
    phrases: later(phrases, start),
    without_context: { ...plain, words: later(plain.words, start) },
    context_words: { ...context, windows: later(context.windows, start) },
  };
}

// What stands before the text of a piece that is not the first; languages without spaces have none.
const space = ({ segments }) => (segments.find(({ text }) => text.trim())?.text.startsWith(" ") ?? true ? " " : "");

// Answers to pieces as one to the whole.
function joined(pieces) {
  const all = (of) => pieces.flatMap((piece) => of(piece) ?? []);
  const text = (of) =>
    pieces.reduce((before, piece) => before + (before && of(piece).text && space(piece)) + of(piece).text, "");
  const total = (name) => pieces.reduce((sum, { usage }) => sum + usage[name], 0);
  const [{ usage, context_words: context, phrases, ...rest }] = pieces;
  return {
    ...rest,
    text: text((piece) => piece),
    words: all((piece) => piece.words),
    segments: all((piece) => piece.segments).map((one, id) => ({ ...one, id })),
    ...(phrases && { phrases: all((piece) => piece.phrases) }),
    without_context: { text: text((piece) => piece.without_context), words: all((piece) => piece.without_context.words) },
    context_words: { ...context, windows: all((piece) => piece.context_words.windows) },
    usage: {
      ...usage,
      input_tokens: total("input_tokens"),
      input_token_details: { audio_tokens: total("input_tokens"), text_tokens: 0 },
      output_tokens: total("output_tokens"),
      total_tokens: total("total_tokens"),
    },
  };
}
