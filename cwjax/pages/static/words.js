// The words of an answer of the API: those with context beside those without, and where phrases stand among them.
import { same, stretches } from "./differences.js";

const NEARBY = 1; // seconds by which times may be wrong
const LETTER = "(?=[\\0-\\u0dff])[\\p{L}\\p{N}_]"; // of a script that puts spaces between words
const EDGE = `(?:(?<!${LETTER})|(?!${LETTER}))`; // not between two letters

export const joined = (words) => words.map(({ before, word }) => before + word).join("").trim();

// Both transcripts' words: `mine` have in `was` what stands in their place in `plain`, or behind whose place it stands
// if nothing does. Case and punctuation make no difference.
export function compared({ text, words, segments, without_context: without }) {
  const mine = spaced(words?.length ? words : (segments ?? []).map(whole), text ?? "");
  const plain = spaced(without?.words ?? [], without?.text ?? "");
  const kept = same(plain.map(plainly), mine.map(plainly));
  plain.forEach((one, place) => (one.changed = !kept[0][place]));
  mine.forEach((one, place) => (one.changed = !kept[1][place]));
  const changes = stretches(kept).map(([x0, x, y0, y]) => {
    const was = joined(plain.slice(x0, x));
    for (let place = y0 + 1; place < y; place++) mine[place].was = "";
    const told = mine[Math.min(y0, mine.length - 1)];
    if (told) told.was = `${told.was ?? ""} ${was}`.trim();
    return { at: y > y0 ? mine[y0] : plain[x0], now: joined(mine.slice(y0, y)), was };
  });
  return { mine, plain, changes };
}

// Marks the words of phrases, and says of each phrase what is written where it was heard, and what without.
export function heard(phrases, mine) {
  const text = mine.map(({ before, word }) => before + word).join("");
  let length = 0;
  const ends = mine.map(({ before, word }) => (length += before.length + word.length));
  const found = new Map();
  for (const { phrase } of phrases) {
    if (!found.has(phrase)) found.set(phrase, occurrences(phrase, text).map(([from, to]) => [after(ends, from), after(ends, to - 1) + 1]));
  }
  for (const places of found.values()) {
    for (const [from, to] of places) mine.slice(from, to).forEach((one) => (one.phrase = true));
  }
  return phrases.map((one) => {
    const middle = (one.start + one.end) / 2;
    const distance = ([from, to]) => Math.max(0, mine[from].start - middle, middle - mine[to - 1].end);
    const nearest = (places) => places.reduce((best, next) => (!best || distance(next) < distance(best) ? next : best), null);
    const own = found.get(one.phrase).filter((place) => distance(place) < NEARBY);
    const words = mine.slice(...(nearest(own) ?? nearest(mine.map((_, place) => [place, place + 1])) ?? [0, 0]));
    return { ...one, now: joined(words), was: words.map(({ word, was }) => was ?? word).join(" ").trim() };
  });
}

const whole = ({ text, start, end }) => ({ word: text.trim(), start, end });
const plainly = ({ word }) => word.normalize("NFKC").toLowerCase().replace(/[^\p{L}\p{M}\p{N}]/gu, "");

// Words with what stands before each in the text: a space, or nothing as in Chinese.
function spaced(words, text) {
  let end = 0;
  return words.map((one, place) => {
    const found = text.indexOf(one.word, end);
    const between = found < 0 ? " " : text.slice(end, found);
    if (found >= 0) end = found + one.word.length;
    return { ...one, before: !place || between === "" ? "" : " " };
  });
}

// Where a phrase stands in a text, without regard to case; not as a part of longer words.
function occurrences(phrase, text) {
  const words = phrase.trim().split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"));
  const found = text.matchAll(new RegExp(`${EDGE}${words.join("\\s+")}${EDGE}`, "giu"));
  return Array.from(found, ({ index, 0: { length } }) => [index, index + length]).filter(([from, to]) => to > from);
}

// The first place whose end is beyond a character.
function after(ends, character) {
  let [low, high] = [0, ends.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > character) high = middle;
    else low = middle + 1;
  }
  return low;
}
