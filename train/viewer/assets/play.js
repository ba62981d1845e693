// Playing an episode: choose a task; draw windows on the time line or type them; answer.
"use strict";

const said = document.getElementById("said");

async function send(address, content) {
  said.textContent = "";
  const answer = await fetch(address, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(content),
  });
  const told = await answer.json().catch(() => ({ problem: `the viewer answered ${answer.status}` }));
  if (!answer.ok) {
    said.textContent = told.problem;
    return null;
  }
  return told;
}

const choose = document.getElementById("choose");
if (choose) {
  const task = document.getElementById("task");
  document.getElementById("any").addEventListener("click", () => {
    task.selectedIndex = Math.floor(Math.random() * task.options.length);
    task.focus();
  });
  choose.addEventListener("submit", async (event) => {
    event.preventDefault();
    const told = await send("/play/start", {
      run: choose.dataset.run,
      task: task.value,
      k: Number(choose.elements.k.value),
    });
    if (told) location.assign(told.page);
  });
}

const turn = document.getElementById("turn");
if (turn) {
  const windows = [];
  const box = document.getElementById("windows");
  const look = document.getElementById("look");
  const line = document.querySelector("#line .timeline");
  const [left, right] = ["left", "right"].map((name) => Number(line.dataset[name]));
  const { width, height } = line.viewBox.baseVal;
  const duration = Number(turn.dataset.duration);
  const most = Number(turn.dataset.most);
  const longest = Number(turn.dataset.longest);

  const place = (seconds) => left + (Math.min(Math.max(seconds / duration, 0), 1)) * (right - left);
  const rounded = (seconds) => Math.round(seconds * 10) / 10;

  const draw = () => {
    for (const old of line.querySelectorAll(".new")) old.remove();
    for (const [start, end] of windows) {
      const mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      mark.setAttribute("class", "new");
      mark.setAttribute("x", place(Math.min(start, end)));
      mark.setAttribute("width", Math.max(Math.abs(place(end) - place(start)), 3));
      mark.setAttribute("y", height - 39);
      mark.setAttribute("height", 12);
      line.append(mark);
    }
    look.disabled = !windows.length;
    look.textContent = windows.length > 1 ? `Look at ${windows.length} windows` : "Look";
    document.getElementById("add").disabled = windows.length >= most;
  };

  const list = () => {
    box.replaceChildren(
      ...windows.map((pair, number) => {
        const row = document.createElement("p");
        for (const side of [0, 1]) {
          const label = document.createElement("label");
          label.textContent = `${side ? " to" : `Window ${number + 1}: from`} `;
          const input = document.createElement("input");
          input.type = "number";
          input.step = "0.1";
          input.min = "0";
          input.max = String(duration);
          input.value = pair[side];
          input.addEventListener("input", () => {
            pair[side] = Number(input.value);
            draw();
          });
          label.append(input, side ? " s " : "");
          row.append(label);
        }
        const remove = document.createElement("button");
        remove.type = "button";
        remove.textContent = "Remove";
        remove.setAttribute("aria-label", `Remove window ${number + 1}`);
        remove.addEventListener("click", () => {
          windows.splice(number, 1);
          list();
        });
        row.append(remove);
        return row;
      }),
    );
    draw();
  };

  const decide = async (content) => {
    const notes = [...document.querySelectorAll(".note")].map((note) => note.value);
    const thought = document.getElementById("thought").value;
    const told = await send("/play/decide", {
      episode: turn.dataset.episode,
      turn: Number(turn.dataset.turn),
      thought,
      notes,
      ...content,
    });
    if (told) location.reload();
  };

  if (look) {
    document.getElementById("add").addEventListener("click", () => {
      const start = rounded(duration / 2);
      windows.push([start, rounded(Math.min(start + longest, duration))]);
      list();
      box.lastElementChild.querySelector("input").focus();
    });
    look.addEventListener("click", () => decide({ windows }));
    const seconds = (event) => {
      const area = line.getBoundingClientRect();
      const x = ((event.clientX - area.left) / area.width) * width;
      return rounded((Math.min(Math.max(x - left, 0), right - left) / (right - left)) * duration);
    };
    let drawn = null;
    line.addEventListener("pointerdown", (event) => {
      if (windows.length >= most) return;
      event.preventDefault();
      line.setPointerCapture(event.pointerId);
      drawn = [seconds(event), seconds(event)];
      windows.push(drawn);
      draw();
    });
    line.addEventListener("pointermove", (event) => {
      if (!drawn) return;
      const at = seconds(event);
      drawn[1] = Math.min(Math.max(at, drawn[0] - longest), rounded(drawn[0] + longest));
      draw();
    });
    line.addEventListener("pointerup", () => {
      if (!drawn) return;
      drawn.sort((a, b) => a - b);
      if (drawn[1] - drawn[0] < 0.1) drawn[1] = rounded(Math.min(drawn[0] + longest, duration));
      drawn = null;
      list();
    });
  }

  document.getElementById("answer").addEventListener("click", () => {
    const given = turn.elements.given;
    if (!given.value?.trim()) {
      said.textContent = "There is no answer yet.";
      return;
    }
    decide({ answer: given.value });
  });
  turn.addEventListener("submit", (event) => event.preventDefault());
}
