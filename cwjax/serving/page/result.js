// Shows an answer of the API: both transcripts with their differences, the context by its influence, phrases; and plays.
import { same, stretches } from "./differences.js";

const SHOWN = 5; // of the strongest words
const find = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(100 * share)} %`;
const said = (words) => words.map(({ word }) => word).join(" ");

export function clock(seconds, separator = ".", hours = false) {
  const whole = Math.round(1000 * seconds);
  const part = (value, size) => String(Math.floor(value)).padStart(size, "0");
  const long = hours || whole >= 3600000;
  return `${long ? `${part(whole / 3600000, 2)}:` : ""}${part((whole / 60000) % 60, 2)}:${part(
    (whole / 1000) % 60, 2)}${separator}${part(whole % 1000, 3)}`;
}

export class Result {
  constructor(audio) {
    this.audio = audio;
    this.words = [];
    for (const side of ["with", "without", "changes", "heard"]) {
      find(side).addEventListener("click", (event) => this.play(event.target.closest(".word")));
    }
    for (const side of ["with", "without"]) {
      find(side).addEventListener("keydown", (event) => this.move(event));
    }
    for (const kind of ["mouseover", "focusin"]) {
      find("with").addEventListener(kind, (event) => this.attend(event.target.closest(".word")));
    }
    for (const kind of ["mouseleave", "focusout"]) find("with").addEventListener(kind, () => this.attend(null));
    for (const kind of ["play", "seeked", "timeupdate"]) audio.addEventListener(kind, () => this.follow());
  }

  // `answer`: the event transcript.text.done, with words, segments, and both `include`s.
  show(answer) {
    const mine = answer.words;
    const plain = answer.without_context?.words ?? [];
    const kept = same(plain.map(({ word }) => word), mine.map(({ word }) => word));
    this.answer = answer;
    this.heard = answer.phrases ?? [];
    this.fill("without", plain, kept[0]);
    this.words = this.fill("with", mine, kept[1]);
    this.changes(stretches(kept), plain, mine);
    this.phrases();
    this.context(answer.context_words ?? { words: [], windows: [] });
    find("result").hidden = false;
  }

  fill(id, words, kept) {
    const buttons = words.map((one, place) => {
      const button = wordButton(one, one.word);
      button.classList.toggle("changed", !kept[place]);
      if (!kept[place]) button.setAttribute("aria-label", `${one.word}, differs`);
      const middle = (one.start + one.end) / 2;
      button.classList.toggle("phrase", id === "with" && this.heard.some((phrase) => isOf(one.word, middle, phrase)));
      button.tabIndex = place ? -1 : 0;
      return button;
    });
    find(id).replaceChildren(...buttons.flatMap((button) => [button, " "]));
    if (!buttons.length) find(id).textContent = "Nothing was heard.";
    return buttons;
  }

  changes(found, plain, mine) {
    const items = found.map(([x0, x, y0, y]) => {
      const item = document.createElement("li");
      const now = said(mine.slice(y0, y));
      const was = said(plain.slice(x0, x));
      const at = mine[y0] && y > y0 ? mine[y0] : plain[x0] ?? mine[y0];
      item.append(wordButton(at, clock(at.start).slice(0, -4)), ` ${now ? `“${now}”` : "nothing"} instead of ${was ? `“${was}”` : "nothing"}`);
      return item;
    });
    find("changes").replaceChildren(...items);
    if (!items.length) find("changes").textContent = "Nothing.";
    const count = found.reduce((sum, [, , y0, y]) => sum + y - y0, 0);
    find("headline").textContent = found.length
      ? `The context changes ${count} of ${mine.length} words.`
      : `The context changes none of the ${mine.length} words.`;
  }

  phrases() {
    const items = this.heard.map((phrase) => {
      const item = document.createElement("li");
      item.append(wordButton(phrase, `${clock(phrase.start).slice(0, -4)} ${phrase.phrase}`), ` ${percent(phrase.probability)}`);
      return item;
    });
    find("heard").replaceChildren(...items);
    find("heard-section").hidden = !items.length;
  }

  context({ words, windows, column_seconds: seconds }) {
    this.spans = words.map((word) => {
      const span = document.createElement("span");
      span.className = "used";
      span.textContent = word;
      return span;
    });
    this.windows = windows;
    this.seconds = seconds;
    find("used").replaceChildren(...this.spans.flatMap((span) => [span, " "]));
    if (!words.length) find("used").textContent = "There was no context, or the model takes none.";
    this.attend(null);
  }

  // Tints the context by what moved the sound most while a word was said, or in the whole recording.
  attend(button) {
    if (!this.spans?.length) {
      find("strongest").textContent = "";
      return;
    }
    const totals = new Array(this.spans.length).fill(0);
    let all = 0;
    const [from, to] = button ? [Number(button.dataset.start), Number(button.dataset.end)] : [0, Infinity];
    for (const { start, words, influence, others } of this.windows) {
      const first = Math.max(0, Math.floor((from - start) / this.seconds));
      const last = Math.min(others.length, Math.max(first + 1, Math.round((to - start) / this.seconds)));
      for (let column = first; column < last; column++) {
        all += others[column];
        words.forEach((word, row) => {
          totals[word] += influence[row][column];
          all += influence[row][column];
        });
      }
    }
    const most = Math.max(...totals);
    this.spans.forEach((span, place) => span.style.setProperty("--share", most ? totals[place] / most : 0));
    const order = totals.map((_, place) => place).sort((a, b) => totals[b] - totals[a]).slice(0, SHOWN);
    const named = order.filter((place) => totals[place] > 0);
    const list = named.map((place) => `${this.spans[place].textContent} ${percent(totals[place] / all)}`).join(", ");
    const when = button ? `While “${button.textContent}” was said` : "In the whole recording";
    find("strongest").textContent = list ? `${when}: ${list}` : "Nothing of it reached the sound.";
  }

  play(button) {
    if (!button) return;
    this.audio.currentTime = Number(button.dataset.start);
    this.audio.play().catch(() => {});
  }

  move(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || !event.target.matches(".word")) return;
    event.preventDefault();
    const words = [...event.currentTarget.querySelectorAll(".word")];
    const place = words.indexOf(event.target) + steps[event.key];
    const next = words[Math.max(0, Math.min(words.length - 1, place))];
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  follow() {
    const now = this.audio.currentTime;
    const begun = this.words.findLast((word) => Number(word.dataset.start) <= now);
    const current = begun && now < Number(begun.dataset.end) ? begun : null;
    if (current === this.spoken) return;
    this.spoken?.removeAttribute("aria-current");
    current?.setAttribute("aria-current", "true");
    if (current && !this.audio.paused) current.scrollIntoView({ block: "nearest" });
    this.spoken = current;
  }

  // The transcript with context as a file.
  file(format) {
    const segments = this.answer.segments.filter(({ text }) => text.trim());
    if (format === "json") return JSON.stringify(this.answer, null, 1);
    if (format === "txt") return `${segments.map((one) => one.text.trim()).join("\n")}\n`;
    const cue = ({ start, end, text: said }, separator, hours) =>
      `${clock(start, separator, hours)} --> ${clock(end, separator, hours)}\n${said.trim().replaceAll("-->", "->")}\n\n`;
    if (format === "vtt") return `WEBVTT\n\n${segments.map((one) => cue(one, ".", false)).join("")}`;
    return segments.map((one, place) => `${place + 1}\n${cue(one, ",", true)}`).join("");
  }
}

function wordButton({ start, end }, text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "word";
  button.dataset.start = start.toFixed(2);
  button.dataset.end = end.toFixed(2);
  button.textContent = text;
  return button;
}

const plainly = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}\s]/gu, "").trim();

function isOf(word, middle, phrase) {
  const near = middle > phrase.start - 1 && middle < phrase.end + 1;
  return near && plainly(phrase.phrase).split(/\s+/).includes(plainly(word));
}
