// Pages of runs and lists: fresh curves while a run trains, filters that act at once.
"use strict";

const SECONDS = 5;

const live = document.getElementById("live");
if (live) {
  const again = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(live.dataset.src);
        if (answer.ok) live.innerHTML = await answer.text(); // markup of our own server, escaped there
      } catch {
        // the viewer was ended: the page stays as it is
      }
    }
    setTimeout(again, SECONDS * 1000 * (live.querySelector("[data-going]") ? 1 : 6));
  };
  setTimeout(again, SECONDS * 1000);
}

for (const form of document.querySelectorAll("form[data-auto]")) {
  form.addEventListener("change", () => form.requestSubmit());
}
