// A transcript as a file, as `cwjax transcribe` writes it.
import { clock } from "./elements.js";

export function saved(answer, format) {
  const segments = answer.segments.filter(({ text }) => text.trim());
  if (format === "json") return JSON.stringify(answer, null, 1);
  if (format === "txt") return `${segments.map(({ text }) => text.trim()).join("\n")}\n`;
  const cue = ({ start, end, text }, separator, hours) =>
    `${clock(start, separator, hours)} --> ${clock(end, separator, hours)}\n${text.trim().replaceAll("-->", "->")}\n\n`;
  if (format === "vtt") return `WEBVTT\n\n${segments.map((one) => cue(one, ".", false)).join("")}`;
  return segments.map((one, place) => `${place + 1}\n${cue(one, ",", true)}`).join("");
}
