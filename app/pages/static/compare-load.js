"use strict";
// Load in open loop: so many requests a second in each mode, each timed from when it was due, whether it could be sent then or not.

const RATES = [0, 20, 50, 100], LASTING_MS = 300000, WINDOW_MS = 60000, TICK_MS = 5, DRAW_MS = 500, DROPPED_MS = 2000;
// of the six that a browser opens to one host; the page's own questions have the last
const CONNECTIONS = 5;
const lines = columns.map(({ mode, place, mark }) => ({ mode, place, mark }));
let load = null;

function forget(line) {
  Object.assign(line, { due: 0, answered: 0, failed: 0, dropped: 0, max: 0, waiting: [], flying: 0, samples: [] });
}

function start(rate) {
  stop("");
  lines.forEach(forget);
  const at = performance.now();
  load = { rate, at, tick: setInterval(tick, TICK_MS), draw: setInterval(draw, DRAW_MS) };
  find("#charts").hidden = false;
}

function stop(why) {
  if (!load) return;
  clearInterval(load.tick);
  clearInterval(load.draw);
  load = null;
  for (const line of lines) line.waiting = [];
  find('#rates input[value="0"]').checked = true;
  draw();
  find("#loaded").textContent = why;
}

function tick() {
  const now = performance.now(), { rate, at } = load;
  if (now - at > LASTING_MS) return stop("Stopped after five minutes.");
  for (const line of lines) {
    // the modes take turns within the interval, so that they do not all ask at once
    const offset = (line.place * 1000) / (rate * lines.length);
    for (let due = at + offset + (line.due * 1000) / rate; due <= now; due += 1000 / rate) {
      line.due += 1;
      line.waiting.push(due);
    }
    while (line.waiting.length && now - line.waiting[0] > DROPPED_MS) {
      line.waiting.shift();
      line.dropped += 1;
    }
  }
  send();
}

// One connection is left free for each other mode that has nothing under way, so that a slow one holds up none but itself.
function send() {
  for (const line of lines) {
    while (load && line.waiting.length) {
      const flying = lines.reduce((sum, other) => sum + other.flying, 0);
      const idle = lines.filter((other) => other !== line && !other.flying).length;
      if (line.flying && flying + idle >= CONNECTIONS) break;
      fly(line, line.waiting.shift(), load);
    }
  }
}

async function fly(line, due, mine) {
  line.flying += 1;
  const id = find('#whom input[value="any"]').checked ? anyone() : input.value.trim();
  let well = false;
  try {
    const { response, text } = await ask(line.mode, told.query, id);
    well = response.ok && !text.includes('"errors"');
  } catch { /* counted as failed */ }
  const now = performance.now(), ms = now - due;
  if (load !== mine) return;
  line.flying -= 1;
  if (well) {
    line.answered += 1;
    line.max = Math.max(line.max, ms);
    line.samples.push([now, ms]);
  } else line.failed += 1;
  send();
}

function draw() {
  const now = performance.now();
  for (const line of lines) {
    const first = line.samples.findIndex(([at]) => at > now - WINDOW_MS);
    line.samples.splice(0, first < 0 ? line.samples.length : first);
    line.sorted = line.samples.map(([, ms]) => ms).sort((one, other) => one - other);
  }
  drawPercentiles(find("#percentiles"), lines.map(({ mark, sorted }) => ({ mark, sorted })));
  drawSeconds(find("#seconds"), lines.map((line) => ({ mark: line.mark, pairs: bySecond(line, now) })));
  lines.forEach(number);
  if (load) find("#loaded").textContent = `${load.rate * lines.length} requests/s in all; stops in ${left(LASTING_MS - (now - load.at))}.`;
}

const left = (ms) => `${Math.floor(ms / 60000)}:${String(Math.floor((ms % 60000) / 1000)).padStart(2, "0")}`;

// [p50, p99] of each of the last 60 seconds, null where nothing was answered.
function bySecond({ samples }, now) {
  const seconds = Array.from({ length: WINDOW_MS / 1000 }, () => []);
  for (const [at, ms] of samples) seconds[Math.min(seconds.length - 1, Math.floor((at - now + WINDOW_MS) / 1000))]?.push(ms);
  return seconds.map((all) => {
    const sorted = all.sort((one, other) => one - other);
    return sorted.length ? [quantile(sorted, 0.5), quantile(sorted, 0.99)] : null;
  });
}

function number({ place, sorted, due, answered, failed, dropped, max }) {
  const ms = (value) => (value ? `${value.toFixed(1)} ms` : "–");
  const percentile = (part) => ms(sorted.length * (1 - part) >= 1 ? quantile(sorted, part) : 0);
  const texts = [due, answered, failed, dropped, percentile(0.5), percentile(0.99), percentile(0.999), ms(max)];
  const row = find("#counts tbody").rows[place];
  texts.forEach((text, cell) => { row.cells[cell + 1].textContent = text.toLocaleString("en"); });
  row.cells[3].classList.toggle("trouble", failed > 0);
  row.cells[4].classList.toggle("trouble", dropped > 0);
}

function buildLoad() {
  for (const rate of RATES) {
    const label = document.createElement("label"), button = document.createElement("input");
    Object.assign(button, { type: "radio", name: "rate", value: rate, checked: rate === 0 });
    button.addEventListener("change", () => (rate ? start(rate) : stop("")));
    label.append(button, rate || "off");
    find("#rates").append(label);
  }
  for (const { mode, mark } of lines) {
    const item = document.createElement("li");
    item.className = mark;
    item.append(find("#column").content.querySelector(".sample").cloneNode(true), mode);
    find("#legend").append(item);
    const row = find("#counts tbody").insertRow(), head = document.createElement("th");
    head.scope = "row";
    head.textContent = mode;
    row.append(head);
    for (let cell = 0; cell < 8; cell += 1) row.insertCell();
  }
  find("#whom .numeric").hidden = !told.numeric;
}

buildLoad();
document.addEventListener("visibilitychange", () => { if (document.hidden) stop("Stopped, as the page was hidden."); });
addEventListener("resize", () => { if (!find("#charts").hidden) draw(); });
