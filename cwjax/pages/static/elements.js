// Pieces of a page: elements, buttons that play, times and shares as people read them.

// An element with properties, styles by name, and children, of which texts stay texts.
export function element(kind, { style = {}, data = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  for (const [name, value] of Object.entries(style)) made.style.setProperty(name, value);
  Object.assign(made.dataset, data);
  made.append(...children);
  return made;
}

export const wordButton = ({ start, end }, ...children) =>
  element("button", { type: "button", className: "word", data: { start: start.toFixed(2), end: end.toFixed(2) } }, ...children);

// A text of any script within one of ours.
export const quoted = (text) => (text ? ["“", element("bdi", {}, text), "”"] : ["nothing"]);

export const percent = (share) => (share >= 0.01 ? `${Math.round(100 * share)} %` : "below 1 %");

export const share = (value) => [element("span", { className: "bar", style: { width: `${(8 * value).toFixed(2)}rem` } }), percent(value)];

export const row = (kind, ...cells) =>
  element("tr", {}, ...cells.map((cell) => element(kind, {}, ...(Array.isArray(cell) ? cell : [cell]))));

export function clock(seconds, separator = ".", hours = false) {
  const whole = Math.round(1000 * seconds);
  const part = (value, size) => String(Math.floor(value)).padStart(size, "0");
  const long = hours || whole >= 3600000;
  return `${long ? `${part(whole / 3600000, 2)}:` : ""}${part((whole / 60000) % 60, 2)}:${part(
    (whole / 1000) % 60, 2)}${separator}${part(whole % 1000, 3)}`;
}

// As people say it, to the second.
export const moment = (seconds) => clock(Math.floor(seconds)).slice(0, -4);
