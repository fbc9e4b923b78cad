// The page: chooses or records sound, asks the API, shows what it answers.
import { ApiError, models, transcribe } from "./ask.js";
import { Live } from "./live.js";
import { decoded, record, waveform } from "./sound.js";
import { TranscriptView } from "./transcript.js";

const EXAMPLES = [
  "A yacht race on the open sea.",
  "A shop where everything must go at half price.",
  "A walk in the forest; names: Ada, Bo.",
];
const DRAWN = 900; // seconds of a recording whose waveform is drawn: the browser decodes it into memory
const find = (id) => document.getElementById(id);
const audio = find("audio");
const view = new TranscriptView(find("result"), audio);
let file = null;
let running = null;
let stop = null;

function status(text) {
  find("status").textContent = text;
}

function fail(error) {
  if (error.name === "AbortError") return;
  const text = error.name === "NotAllowedError" ? "the browser does not let this page use the microphone" : error.message;
  find("error").textContent = text;
  find("error").hidden = false;
  if (error.status === 401) {
    find("key-line").hidden = false;
    find("key").focus();
  }
}

// Keeps a recording, or none.
function hold(chosen) {
  file = chosen;
  find("chosen").textContent = file ? `${file.name}, ${(file.size / 1e6).toFixed(1)} MB` : "None yet.";
  if (audio.src) URL.revokeObjectURL(audio.src);
  if (file) audio.src = URL.createObjectURL(file);
  else audio.removeAttribute("src");
  audio.hidden = !file;
  find("go").disabled = !file;
}

function take(chosen) {
  if (!chosen || running) return;
  hold(chosen);
  find("error").hidden = true;
  find("result").hidden = true;
  status("ready to transcribe");
}

function fields() {
  const found = [
    ["model", "whisper-1"],
    ["response_format", "verbose_json"],
    ["timestamp_granularities[]", "word"],
    ["timestamp_granularities[]", "segment"],
    ["include[]", "without_context"],
    ["include[]", "context_words"],
    ["context", find("context").value],
    ["context_scale", find("scale").value],
    ["language", find("language").value.trim()],
  ];
  const phrases = find("phrases").value.split(/[,\n]/).map((one) => one.trim());
  return [...found, ...phrases.filter(Boolean).map((one) => ["keywords[]", one])];
}

async function ask(signal) {
  let text = "";
  const told = ({ text: more, done, total, waiting }) => {
    if (waiting) status(waiting);
    if (more) text += more;
    if (!total) return;
    find("progress").hidden = false;
    find("progress").value = done / total;
    status(`transcribing, ${Math.round(done)} of ${Math.round(total)} s${text ? `: …${text.slice(-60)}` : ""}`);
  };
  const key = find("key").value;
  try {
    return await transcribe(file, fields(), key, signal, told);
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "unreadable_audio") throw error;
    status("the server cannot read this file; the browser tries");
    const sound = await decoded(file).catch(() => {
      throw error;
    });
    return await transcribe(sound, fields(), key, signal, told);
  }
}

// Waits for a transcript, and tells how it ended.
async function finish(work) {
  find("go").disabled = true;
  find("cancel").hidden = false;
  try {
    await work;
    status("done");
    sessionStorage.setItem("key", find("key").value);
  } catch (error) {
    status(error.name === "AbortError" ? "stopped" : "failed");
    fail(error);
  } finally {
    running = null;
    find("go").disabled = find("file").disabled = false;
    find("cancel").hidden = true;
    find("progress").hidden = true;
  }
}

function show(answer, context) {
  view.show(answer, { name: file?.name ?? "recording", context });
  find("result").hidden = false;
}

// The waveform of the recording that is shown, if the browser can read it.
async function draw(sound) {
  const found = view.seconds > DRAWN ? null : await waveform(sound).catch(() => null);
  if (found && sound === file && !find("result").hidden) view.draw(found);
}

async function run() {
  if (!file || running) return;
  running = new AbortController();
  find("file").disabled = true;
  find("error").hidden = true;
  status("sending");
  const context = find("context").value;
  await finish(ask(running.signal).then((answer) => show(answer, context)));
  await draw(file);
}

// While it is recorded, what is over is transcribed.
async function startRecording() {
  const button = find("record");
  const heard = (loudness) => (find("level").value = loudness);
  running = new AbortController();
  try {
    if (!navigator.mediaDevices) throw new Error("browsers record only over https, or from this machine itself");
    const context = find("context").value;
    const live = new Live(fields(), find("key").value, running.signal, (answer) => show(answer, context));
    const end = await record(heard, (piece, start) => live.add(piece, start).catch(fail));
    hold(null);
    stop = async () => {
      hold(await end());
      await finish(live.last);
      await draw(file);
    };
    find("file").disabled = true;
    find("error").hidden = true;
    find("result").hidden = true;
    find("level").hidden = false;
    button.textContent = "Stop recording";
    button.setAttribute("aria-pressed", "true");
    status("recording");
  } catch (error) {
    running = null;
    fail(error);
  }
}

async function stopRecording() {
  const [button, done] = [find("record"), stop];
  stop = null;
  button.textContent = "Record";
  button.setAttribute("aria-pressed", "false");
  find("level").hidden = true;
  status("transcribing the rest");
  await done();
}

async function introduce() {
  const [model] = await models(find("key").value);
  const lacks = [model.takes_context ? "" : "takes no context", model.spots_phrases ? "" : "has no phrase spotter"];
  find("model").textContent = `The model is ${model.id}${lacks.some(Boolean) ? `, which ${lacks.filter(Boolean).join(" and ")}` : ""}.`;
}

find("key").value = sessionStorage.getItem("key") ?? "";
for (const example of EXAMPLES) {
  const chip = document.createElement("button");
  chip.type = "button";
  chip.textContent = example;
  chip.addEventListener("click", () => (find("context").value = example));
  find("examples").append(chip);
}
find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
find("context").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
});
find("cancel").addEventListener("click", () => running?.abort());
find("record").addEventListener("click", () => (stop ? stopRecording() : running || startRecording()));
find("file").addEventListener("change", ({ target }) => take(target.files[0]));
find("scale").addEventListener("input", ({ target }) => (find("scale-value").textContent = Number(target.value).toFixed(1)));
find("key").addEventListener("change", () => introduce().catch(fail));
const drop = find("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
introduce().catch(fail);
