// A client of the public API: one streamed request.
export class ApiError extends Error {
  constructor(status, { message, code }) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function errorOf(response) {
  const fallback = { message: `the server answered ${response.status}`, code: null };
  const content = await response.json().catch(() => ({}));
  return new ApiError(response.status, content.error ?? fallback);
}

export function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

export async function models(key) {
  const response = await fetch("/v1/models", { headers: headers(key) });
  if (!response.ok) throw await errorOf(response);
  return (await response.json()).data;
}

const wait = (seconds, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });

// The final event of a transcription. `told` is called with {text}, {done, total} and {waiting}.
export async function transcribe(file, fields, key, signal, told) {
  for (;;) {
    const form = new FormData();
    for (const [name, value] of fields) form.append(name, value);
    form.append("stream", "true");
    form.append("file", file, file.name);
    const how = { method: "POST", body: form, headers: headers(key), signal };
    const response = await fetch("/v1/audio/transcriptions", how);
    if (response.ok) return await read(response, told);
    const error = await errorOf(response);
    if (response.status !== 429 && error.code !== "warming_up") throw error;
    told({ waiting: error.message });
    await wait(Number(response.headers.get("Retry-After")) || 5, signal);
  }
}

async function read(response, told) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let last = null;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const progress = /^: ([\d.]+)\/([\d.]+)$/.exec(line);
      if (progress) told({ done: Number(progress[1]), total: Number(progress[2]) });
      if (!line.startsWith("data: {")) continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new ApiError(500, event.error);
      if (event.type === "transcript.text.delta") told({ text: event.delta });
      if (event.type === "transcript.text.done") last = event;
    }
  }
  if (!last) throw new ApiError(0, { message: "the connection broke off", code: null });
  return last;
}
