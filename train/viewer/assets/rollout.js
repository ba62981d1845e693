// The page of a rollout: seeking by time line and marks, the instant on the time line, token colours.
"use strict";

const player = document.getElementById("player");
const line = document.querySelector(".timeline[data-duration]");
const clock = document.getElementById("clock");

function seek(seconds) {
  if (!player) return;
  player.currentTime = seconds;
  clock.textContent = `at ${seconds.toFixed(1)} s`;
}

for (const link of document.querySelectorAll("a.seek")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    event.stopPropagation();
    seek(Number(link.getAttribute("href").slice(3)));
  });
}

if (line && player) {
  const [left, right, duration] = ["left", "right", "duration"].map((name) => Number(line.dataset[name]));
  const { width, height } = line.viewBox.baseVal;
  line.addEventListener("click", (event) => {
    const box = line.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    seek(Math.min(Math.max((x - left) / (right - left), 0), 1) * duration);
  });
  const now = document.createElementNS("http://www.w3.org/2000/svg", "line");
  now.setAttribute("class", "now");
  now.setAttribute("y1", "0");
  now.setAttribute("y2", height - 22);
  line.append(now);
  const show = () => {
    const x = left + Math.min(player.currentTime / duration, 1) * (right - left);
    now.setAttribute("x1", x);
    now.setAttribute("x2", x);
  };
  for (const event of ["timeupdate", "seeking", "loadedmetadata"]) player.addEventListener(event, show);
  show();
}

for (const choice of document.querySelectorAll("input[name=mode]")) {
  choice.addEventListener("change", () => {
    document.body.dataset.mode = choice.value;
  });
}

const said = document.getElementById("token");
if (said) {
  document.addEventListener("pointerover", (event) => {
    const token = event.target.closest?.(".t[title]");
    if (token) said.textContent = `${JSON.stringify(token.textContent)}: ${token.title}`;
  });
}
