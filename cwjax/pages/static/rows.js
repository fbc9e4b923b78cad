// The recording on a time axis, ten seconds a row: words, phrases, waveform, and the context words that moved the sound.
import { clock, element, moment, percent, row as tableRow, wordButton } from "./elements.js";

const SECONDS = 10; // of a row
const LANE = 52; // rem that a row's sound is wide at least, as in transcript.css
const LINE = 1.4; // rem of a line of words
const SHOWN = 8; // context words of a row
const COLOUR = "#2f7de1"; // of the map, on light and dark paper alike; influence is its opacity
const SVG = "http://www.w3.org/2000/svg";

export class Rows {
  constructor(root) {
    this.root = root;
    this.observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) if (isIntersecting) this.draw(target);
    }, { rootMargin: "100%" });
    this.playhead = element("div", { className: "playhead" });
    addEventListener("beforeprint", () => this.sections?.forEach((section) => this.draw(section)));
  }

  // `words` and `phrases` with their times, `influence` of the context, `waveform`, all `seconds` long; rows are drawn
  // when they come into view.
  show(given) {
    Object.assign(this, given);
    this.scale = this.influence.high;
    this.buttons = new Map();
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.pen = document.createElement("canvas").getContext("2d");
    this.pen.font = `${0.88 * rem}px ${getComputedStyle(this.root).fontFamily}`;
    this.width = (text) => Math.min(SECONDS, ((this.pen.measureText(text).width + 0.5 * rem) * SECONDS) / (LANE * rem));
    const heights = (this.sections ?? []).map(({ offsetHeight }) => `${offsetHeight}px`);
    this.rows = Array.from({ length: Math.max(1, Math.ceil(this.seconds / SECONDS - 0.02)) }, (_, place) => {
      const [from, to] = [place * SECONDS, Math.min((place + 1) * SECONDS, this.seconds)];
      return { from, to, words: [], phrases: [], span: `${moment(from)} to ${moment(to)}` };
    });
    const rowOf = ({ start }) => this.rows[Math.min(Math.floor(start / SECONDS), this.rows.length - 1)];
    this.words.forEach((word, place) => rowOf(word).words.push({ ...word, place }));
    this.phrases.forEach((phrase) => rowOf(phrase).phrases.push(phrase));
    this.observer.disconnect();
    this.sections = this.rows.map(({ from, to, span }, place) =>
      element("section", { className: "row", ariaLabel: span, data: { place, from, to }, style: { "min-height": heights[place] ?? "" } }));
    this.root.replaceChildren(...this.sections);
    this.sections.forEach((section) => this.observer.observe(section));
  }

  draw(section) {
    if (section.hasChildNodes()) return;
    this.observer.unobserve(section);
    const row = this.rows[section.dataset.place];
    const context = this.influence.words.length ? this.maps(row) : [];
    const table = folded("as a table", () => [this.table(row)]);
    section.style.removeProperty("min-height");
    section.append(element("div", { className: "time" }, row.span), lane(row, this.said(row), labels(row, this.width), this.wave(row)), ...context, table);
  }

  // Words over the places where they begin, or before the right edge, in as many lines as give all of them room; below
  // all of them, in lines of its own, what was heard without.
  said(row) {
    const [ends, notes] = [[], []];
    const placed = row.words.map((one) => {
      const note = one.was === undefined ? "" : `without: ${one.was || "–"}`;
      const [wide, below] = [this.width(one.word), note ? this.width(note) : 0];
      const start = within(row, one.start, Math.max(wide, below));
      return { one, note, start, line: freeLine(ends, start, wide), below: note && freeLine(notes, start, below) };
    });
    const height = `${LINE * (ends.length + notes.length)}rem`;
    return element("div", { className: "words", style: { height } }, ...placed.map(({ one, note, start, line, below }, place) => {
      const button = wordButton(one, element(note ? "mark" : "span", { className: "said", dir: "auto" }, one.word));
      const top = `${LINE * (ends.length - line + below)}rem`;
      if (note) button.append(" ", element("small", { dir: "auto", style: { top } }, note));
      button.classList.toggle("phrase", Boolean(one.phrase));
      button.tabIndex = place ? -1 : 0;
      this.buttons.set(one.place, button);
      return element("span", { className: "place", style: { left: share(row, start), top: `${LINE * line}rem` } }, button);
    }));
  }

  // Highest and lowest sample of every column, as an area, over the places of phrases.
  wave({ from, to, phrases }) {
    const { seconds = 0.025, low = [], high = [] } = this.waveform ?? {};
    const [first, last] = [Math.round(from / seconds), Math.round(to / seconds)];
    const shape = (name, values) => {
      const made = document.createElementNS(SVG, name);
      Object.entries(values).forEach(([key, value]) => made.setAttribute(key, value));
      return made;
    };
    const drawn = shape("svg", { class: "wave", viewBox: `0 0 ${last - first} 60`, preserveAspectRatio: "none", role: "img", "aria-label": "waveform" });
    for (const one of phrases) {
      drawn.append(shape("rect", { x: (one.start - from) / seconds, width: (one.end - one.start) / seconds, height: 60 }));
    }
    const edge = (values, offset) => values.slice(first, last).map((value, x) => `${x} ${(offset - (29 * value) / 127).toFixed(1)}`);
    const outline = [...edge(high, 30), ...edge(low, 31).reverse()];
    if (outline.length) drawn.append(shape("path", { d: `M${outline.join("L")}Z` }));
    return drawn;
  }

  // The context words that added most, in the order of the context: in all layers together, and in each.
  maps(row) {
    const places = this.influence.strongest(row.from, row.to, SHOWN).map(([place]) => place).sort((one, other) => one - other);
    const names = () => element("ol", { className: "labels", dir: "auto" }, ...places.map((place) => element("li", { title: this.influence.words[place] }, this.influence.words[place])));
    const told = `Most attended from ${row.span}: ${this.influence.named(row.from, row.to, 3)}`;
    const map = (label, values, scale) => [names(), lane(row, this.map(row, places, label, values, scale))];
    const layers = this.influence.layers.map((layer, at) => [
      element("p", { className: "layer" }, `layer ${layer}`),
      ...map(`layer ${layer}`, (window) => window.layers[at], 255),
    ]);
    const each = layers.length ? [folded("layer by layer", () => [element("div", { className: "grid" }, ...layers.flat())])] : [];
    return [...map(told, (window) => window.influence, this.scale), ...each];
  }

  map({ from, to }, places, label, values, scale) {
    const drawn = element("canvas", { className: "map", width: Math.round(100 * (to - from)), height: Math.max(places.length, 1), style: { height: `${1.2 * places.length}rem` } });
    drawn.setAttribute("role", "img");
    drawn.ariaLabel = label;
    const pen = drawn.getContext("2d");
    pen.fillStyle = COLOUR;
    const wide = Math.round(100 * this.influence.seconds);
    for (const window of this.influence.windows) {
      if (window.start >= to || window.start + window.others.length * this.influence.seconds <= from) continue;
      places.forEach((place, y) => {
        values(window)[window.words.indexOf(place)]?.forEach((value, column) => {
          const cell = [Math.round(100 * (window.start - from)) + wide * column, y, wide, 1];
          pen.globalAlpha = Math.min(value / scale, 1);
          pen.clearRect(...cell); // of the window before, which may end within its last column
          pen.fillRect(...cell);
        });
      });
    }
    return drawn;
  }

  // What the map shows, for every word that was heard.
  table(row) {
    if (!row.words.length) return element("p", {}, "No word was heard.");
    const attends = this.influence.words.length > 0;
    const head = tableRow("th", "time", "heard", `without ${this.told}`, ...(attends ? ["context words attended to"] : []));
    const lines = row.words.map(({ word, was, start, end }) => {
      const attended = attends ? [element("bdi", {}, this.influence.named(start, end, 3))] : [];
      return tableRow("td", clock(start), element("bdi", {}, word), element("bdi", {}, was === undefined ? "" : was || "nothing of its own"), ...attended);
    });
    return element("div", { className: "scroll" }, element("table", {}, head, ...lines));
  }

  // Puts the playhead where the sound is.
  point(now) {
    const section = this.sections?.[Math.floor(now / SECONDS)];
    if (!section) return;
    const { from, to } = this.rows[section.dataset.place];
    this.playhead.style.left = `${(100 * (now - from)) / (to - from)}%`;
    section.querySelector(".lane")?.append(this.playhead);
  }
}

const within = ({ from }, start, width) => Math.max(from, Math.min(start, from + SECONDS - width));
const share = ({ from, to }, start) => `${((100 * (start - from)) / (to - from)).toFixed(2)}%`;
const lane = ({ from, to }, ...children) =>
  element("div", { className: "lane", style: { width: `${((100 * (to - from)) / SECONDS).toFixed(1)}%` } }, ...children);

// Phrases and their probabilities over the places where they were heard.
function labels(row, width) {
  const ends = [];
  const placed = row.phrases.map(({ phrase, probability, start }) => {
    const text = `${phrase} ${percent(probability)}`;
    const at = within(row, start, width(text));
    const top = `${LINE * freeLine(ends, at, width(text))}rem`;
    return element("span", { className: "place", dir: "auto", style: { left: share(row, at), top } }, text);
  });
  return element("div", { className: "phrases", style: { height: `${LINE * ends.length}rem` } }, ...placed);
}

// The first line that has room from `start` on, a new one if none has; `ends` says how far each is filled.
function freeLine(ends, start, width) {
  const free = ends.findIndex((end) => end <= start);
  const line = free < 0 ? ends.length : free;
  ends[line] = start + width;
  return line;
}

// What is made when it is first opened.
function folded(summary, make) {
  const made = element("details", {}, element("summary", {}, summary));
  made.addEventListener("toggle", () => made.append(...make()), { once: true });
  return made;
}
