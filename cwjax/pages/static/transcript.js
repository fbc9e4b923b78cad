// What became of a recording: both transcripts with their differences, the context by its influence, phrases, and all of
// it on a time axis; words play. It shows an answer of the API with `without_context` and `context_words`.
import { element, moment, quoted, row, share, wordButton } from "./elements.js";
import { saved } from "./files.js";
import { Influence } from "./influence.js";
import { Rows } from "./rows.js";
import { compared, heard } from "./words.js";

const SHOWN = 8; // of the strongest context words
const FRAME = `
<p id="headline" class="lead"></p>
<p class="soft">Choose a word to hear it; the arrow keys go from word to word. Marked words differ.
<label><input type="checkbox" id="follow" checked> keep the word that is spoken in view</label></p>
<div class="sides">
<section aria-labelledby="without-title"><h3 id="without-title"></h3><div id="without" class="text words"></div></section>
<section aria-labelledby="with-title"><h3 id="with-title"></h3><div id="with" class="text words"></div></section>
</div>
<section id="used-section" aria-labelledby="used-title">
<h3 id="used-title">What of the context was used</h3>
<p id="used" class="text" dir="auto"></p>
<p id="strongest" class="soft" aria-live="polite"></p>
<table id="shares"></table>
<details id="given"><summary>the context as it was given</summary><p class="text" dir="auto"></p></details>
</section>
<section id="heard-section" aria-labelledby="heard-title">
<h3 id="heard-title">Phrases that were heard</h3>
<div class="scroll"><table id="heard"></table></div>
</section>
<section aria-labelledby="changes-title"><h3 id="changes-title">What changed</h3><ol id="changes"></ol></section>
<p class="saves">Save <span id="saved">with context</span> as
<button type="button" class="save" data-format="srt">srt</button>
<button type="button" class="save" data-format="vtt">vtt</button>
<button type="button" class="save" data-format="txt">txt</button>
<button type="button" class="save" data-format="json">json</button></p>
<h2 id="rows-title">On the time axis</h2>
<p class="soft">The words, what is heard without, the phrases with their probabilities, and the waveform.
<span id="map-legend">Below stand the context words that added most, in the order of the context. The fuller the colour, the
longer the vectors that a word added to what the audio encoder heard there: attention weight times value, through the
gate, summed over layers.</span></p>
<div id="rows"></div>`;

export class TranscriptView {
  // Fills `root`; words play in `audio`.
  constructor(root, audio) {
    root.insertAdjacentHTML("beforeend", FRAME);
    this.audio = audio;
    this.find = (id) => root.querySelector(`#${id}`);
    this.rows = new Rows(this.find("rows"));
    root.addEventListener("click", ({ target }) => this.chosen(target.closest(".word, .save")));
    root.addEventListener("keydown", (event) => this.move(event));
    for (const kind of ["mouseover", "focusin"]) {
      this.find("with").addEventListener(kind, ({ target }) => this.attend(target.closest(".word")));
    }
    for (const kind of ["mouseleave", "focusout"]) this.find("with").addEventListener(kind, () => this.attend(null));
    for (const kind of ["play", "seeked", "timeupdate"]) audio.addEventListener(kind, () => this.follow());
  }

  // `name` is that of the recording's file, `context` what was said about it, `waveform` as `Rows` draws it.
  show(answer, { name, context = "", waveform = null }) {
    const { mine, plain, changes } = compared(answer);
    Object.assign(this, { answer, name, mine, waveform, spoken: -1 });
    this.phrases = heard(answer.phrases ?? [], mine);
    this.influence = new Influence(answer.context_words);
    const told = [this.influence.words.length && "context", answer.phrases && "phrases"].filter(Boolean);
    this.told = told.join(" and ") || "context";
    for (const [id, text] of [["without-title", "Without"], ["with-title", "With"], ["saved", "with"]]) {
      this.find(id).textContent = `${text} ${this.told}`;
    }
    this.fill("without", plain);
    this.buttons = this.fill("with", mine);
    this.headline(plain);
    this.changes(changes);
    this.phraseTable();
    this.context(context);
    this.draw(waveform);
  }

  // The time axis, with the waveform or without one.
  draw(waveform) {
    const { mine: words, phrases, influence, told } = this;
    const ends = [...words, ...phrases, ...(this.answer.segments ?? [])].map(({ end }) => end);
    const latest = ends.reduce((one, other) => Math.max(one, other), 0.1);
    this.seconds = waveform ? waveform.seconds * Math.max(waveform.low.length, 4) : latest;
    this.find("map-legend").hidden = !influence.words.length;
    this.rows.show({ words, phrases, influence, told, waveform, seconds: this.seconds });
  }

  fill(id, words) {
    const buttons = words.map((one, place) => {
      const button = wordButton(one, one.word);
      button.classList.toggle("changed", one.changed);
      button.classList.toggle("phrase", Boolean(one.phrase));
      if (one.changed) button.ariaLabel = `${one.word}, differs`;
      button.tabIndex = place ? -1 : 0;
      return button;
    });
    this.find(id).replaceChildren(...paragraphs(words).map(([from, to]) =>
      element("p", { dir: "auto" }, ...buttons.slice(from, to).flatMap((button, at) => [at ? words[from + at].before : "", button]))));
    if (!buttons.length) this.find(id).textContent = "Nothing was heard.";
    return buttons;
  }

  headline(plain) {
    const count = this.mine.filter(({ was }) => was !== undefined).length;
    const bold = (number) => element("b", {}, number);
    const change = this.told === "context" ? "changes" : "change";
    this.find("headline").replaceChildren(...(this.mine.length || !plain.length
      ? [`The ${this.told} ${change} `, ...(count ? [bold(count), " of "] : ["none of the "]), bold(this.mine.length), " words that were heard."]
      : [`With ${this.told} none of the `, bold(plain.length), " words is heard."]));
  }

  changes(found) {
    const items = found.map(({ at, now, was }) =>
      element("li", {}, wordButton(at, moment(at.start)), " ", ...quoted(now), " instead of ", ...quoted(was)));
    this.find("changes").replaceChildren(...(items.length ? items : ["Nothing."]));
  }

  phraseTable() {
    const rows = this.phrases.map((one) =>
      row("td", wordButton(one, moment(one.start)), element("bdi", {}, one.phrase), share(one.probability), ...[one.now, one.was].map((text) => element("bdi", {}, text || "–"))));
    this.find("heard").replaceChildren(row("th", "time", "phrase", "probability", "written", "without"), ...rows);
    if (!rows.length) this.find("heard").replaceChildren(row("td", "None."));
    this.find("heard-section").hidden = !this.answer.phrases;
  }

  // The context, and the share of its words in what was added to the whole recording.
  context(given) {
    const { words } = this.influence;
    this.spans = words.map((word) => element("span", { className: "used" }, word));
    this.find("used").replaceChildren(...this.spans.flatMap((span) => [span, " "]));
    if (!words.length) this.find("used").textContent = "There was no context, or the model takes none.";
    this.find("used-section").hidden = !words.length && Boolean(this.answer.phrases);
    this.find("given").hidden = words.join(" ") === given.trim() || !given.trim();
    this.find("given").querySelector("p").textContent = given;
    const strongest = this.influence.strongest(0, Infinity, SHOWN);
    const rest = 1 - strongest.reduce((sum, [, value]) => sum + value, 0);
    const rows = strongest.map(([place, value]) => row("td", element("bdi", {}, words[place]), share(value)));
    if (rows.length) rows.push(row("td", "all else", share(Math.max(rest, 0))));
    this.find("shares").replaceChildren(element("caption", {}, "Share in what the context added to the sound"), ...rows);
    this.find("shares").hidden = !rows.length;
    this.reached = rows.length > 0;
    this.attend(null);
  }

  // Tints the context by what moved the sound most while a word was said, or in the whole recording.
  attend(button) {
    const span = button ? [Number(button.dataset.start), Number(button.dataset.end)] : [0, Infinity];
    const { totals } = this.influence.between(...span);
    const most = Math.max(...totals);
    this.spans.forEach((span, place) => span.style.setProperty("--share", most ? totals[place] / most : 0));
    const text = !this.reached
      ? "Nothing of it reached the sound: the context's gates are closed."
      : button
        ? `While “${button.textContent}” was said: ${this.influence.named(...span, SHOWN / 2)}`
        : "Point at a word that was heard, or go to it, to see which words of the context it drew on.";
    this.find("strongest").textContent = this.spans.length ? text : "";
  }

  chosen(button) {
    if (!button) return;
    if (button.dataset.format) return this.save(button.dataset.format);
    this.inRows = Boolean(button.closest("#rows"));
    this.audio.currentTime = Number(button.dataset.start);
    this.audio.play().catch(() => {});
  }

  move(event) {
    const group = event.target.matches(".word") && event.target.closest(".words");
    const ahead = group && getComputedStyle(event.target.parentElement).direction === "rtl" ? -1 : 1;
    const steps = { ArrowRight: ahead, ArrowLeft: -ahead, Home: -Infinity, End: Infinity };
    if (!group || !(event.key in steps)) return;
    event.preventDefault();
    const words = [...group.querySelectorAll(".word")];
    const place = words.indexOf(event.target) + steps[event.key];
    const next = words[Math.max(0, Math.min(words.length - 1, place))];
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  // Marks the word that is spoken.
  follow() {
    if (!this.answer) return;
    const now = this.audio.currentTime;
    const begun = this.mine.findLastIndex(({ start }) => start <= now);
    const spoken = begun >= 0 && now < this.mine[begun].end ? begun : -1;
    this.rows.point(now);
    const [text, axis] = [(place) => this.buttons[place], (place) => this.rows.buttons.get(place)];
    if (spoken !== this.spoken) {
      for (const of of [text, axis]) of(this.spoken)?.removeAttribute("aria-current");
      for (const of of [text, axis]) of(spoken)?.setAttribute("aria-current", "true");
      const shown = this.inRows ? axis(spoken) : text(spoken);
      if (shown && this.find("follow").checked && !this.audio.paused) shown.scrollIntoView({ block: "nearest" });
      this.spoken = spoken;
    }
    cancelAnimationFrame(this.frame);
    if (!this.audio.paused) this.frame = requestAnimationFrame(() => this.follow());
  }

  save(format) {
    const href = URL.createObjectURL(new Blob([saved(this.answer, format)], { type: "text/plain" }));
    element("a", { href, download: `${this.name.replace(/\.[^.]*$/, "")}.${format}` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  }
}

// Stretches of about a minute, from sentence to sentence, so that browsers need not lay out hours at once.
function paragraphs(words) {
  const starts = words.flatMap(({ start }, place) => (place ? [] : [{ place, start }]));
  words.forEach(({ start }, place) => {
    const long = start - starts.at(-1).start;
    const ends = place && /[.!?…。！？؟۔।]\P{L}*$/u.test(words[place - 1].word);
    if (long > 75 || (ends && long > 45)) starts.push({ place, start });
  });
  return starts.map(({ place }, at) => [place, starts[at + 1]?.place ?? words.length]);
}
