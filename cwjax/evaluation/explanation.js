"use strict";
const audio = document.querySelector("audio");
const follow = document.querySelector("#follow");
const words = [...document.querySelectorAll(".row .word")];
const rows = [...document.querySelectorAll(".row")];
const playhead = document.createElement("div");
playhead.className = "playhead";

for (const word of document.querySelectorAll(".word")) {
  word.addEventListener("click", () => {
    audio.currentTime = Number(word.dataset.start);
    audio.play();
  });
}

let spoken = null;

function show() {
  const now = audio.currentTime;
  // The last word that has begun, if it has not ended.
  const begun = words.findLast((word) => Number(word.dataset.start) <= now);
  const current = begun && now < Number(begun.dataset.end) ? begun : null;
  if (current !== spoken) {
    spoken?.removeAttribute("aria-current");
    current?.setAttribute("aria-current", "true");
    if (current && follow.checked && !audio.paused) current.scrollIntoView({ block: "nearest" });
    spoken = current;
  }
  const row = rows.find((one) => Number(one.dataset.from) <= now && now < Number(one.dataset.to));
  if (row) {
    const { from, to } = row.dataset;
    row.querySelector(".lane").append(playhead);
    playhead.style.left = `${(100 * (now - from)) / (to - from)}%`;
  }
  if (!audio.paused) requestAnimationFrame(show);
}

audio.addEventListener("play", show);
audio.addEventListener("seeked", show);
