"use strict";
// Asks the same of each mode about once a second while the page is seen, and shows what comes back and what was read for it.

const EVERY_MS = 1000, PATIENCE_MS = 10000, KEPT = 20, HIGHEST = 1000;
const input = find("#id");
// A mode has its colour and its dashes whichever other modes there are.
const mark = (mode) => `line-${Math.max(0, Object.keys(told.what).indexOf(mode))}`;
const columns = told.modes.map((mode, place) => ({ mode, place, mark: mark(mode), busy: false, timer: 0, times: [], row: null, fresh: false, head: null, cells: [] }));

function build() {
  const heads = find("#answers thead tr"), body = find("#answers tbody");
  find("main").style.setProperty("--modes", columns.length);
  for (const column of columns) {
    column.head = find("#column").content.cloneNode(true).firstElementChild;
    column.head.classList.add(column.mark);
    find(".mode", column.head).textContent = column.mode;
    find(".what", column.head).textContent = told.what[column.mode] ?? "";
    heads.append(column.head);
  }
  for (const field of told.fields) {
    const line = body.insertRow(), name = document.createElement("th");
    name.scope = "row";
    name.textContent = field;
    line.append(name);
    for (const column of columns) {
      const cell = line.insertCell();
      cell.className = column.mark;
      column.cells.push(cell.appendChild(document.createElement("span")));
    }
  }
  find("#one").hidden = told.choice;
  find("#about").hidden = !told.choice;
  find("#why").hidden = columns.length < 2;
  find("#shuffle").hidden = !told.numeric;
}

// Numbers stay as they are written: those of 64 bits would not survive JavaScript's own.
const exact = (_, value, context) => (typeof value === "number" ? context?.source ?? value : value);

const anyone = () => String(1 + Math.floor(Math.random() * HIGHEST));

// A query of one row, in a mode: the response, its text, and how long it took. extensions: what the answer shall tell of itself.
async function ask(mode, query, id, extensions) {
  const headers = { "content-type": "application/json", accept: "application/json" };
  if (told.choice) headers["viewgate-mode"] = mode;
  if (told.choice && extensions) headers["viewgate-extensions"] = extensions;
  const body = JSON.stringify({ query, variables: { id } });
  const started = performance.now();
  const response = await fetch("/graphql", { method: "POST", headers, body, signal: AbortSignal.timeout(PATIENCE_MS) });
  const text = await response.text();
  return { response, text, ms: performance.now() - started };
}

async function turn(column) {
  clearTimeout(column.timer);
  const id = input.value.trim();
  if (column.busy || document.hidden || !id) return;
  column.busy = true;
  const started = performance.now();
  let show;
  try {
    const answer = await ask(column.mode, told.query, id, "reads");
    show = () => shown(column, id, answer);
  } catch (error) {
    const late = error.name === "TimeoutError";
    show = () => failed(column, late ? `No answer within ${PATIENCE_MS / 1000} s; asking again.` : "The gateway cannot be reached; asking again.");
  }
  column.busy = false;
  const current = id === input.value.trim();
  if (current) show();
  column.timer = setTimeout(turn, current ? Math.max(0, EVERY_MS - (performance.now() - started)) : 0, column);
}

function shown(column, id, { response, text, ms }) {
  let answer;
  try {
    answer = JSON.parse(text, exact);
  } catch {
    return failed(column, `HTTP ${response.status}: the answer is not JSON.`);
  }
  const error = answer.errors?.[0];
  if (error) return failed(column, `${error.extensions?.code ?? "error"}: ${error.message}`);
  column.row = answer.data[told.root];
  column.fresh = column.row !== null;
  column.times = [...column.times, ms].slice(-KEPT);
  fill(column);
  says(column, ".trouble", column.fresh ? "" : `There is none with id ${id}.`);
  says(column, ".from", origin(column.mode, response.headers));
  says(column, ".ms", `${ms.toFixed(1)} ms`);
  says(column, ".median", `median ${median(column.times).toFixed(1)} ms`);
  tell(column, answer.extensions?.viewgate?.reads);
  compare();
}

function failed(column, sentence) {
  column.fresh = false;
  says(column, ".trouble", sentence);
  compare();
}

// Whatever has not changed is not written again: a screen reader would say it again.
function says(column, selector, text) {
  const element = find(selector, column.head);
  if (element.textContent !== text) element.textContent = text;
}

function origin(mode, headers) {
  const by = headers.get("viewgate-mode"), fallback = headers.get("viewgate-fallback"), asOf = headers.get("viewgate-as-of");
  const parts = [asOf && `age ${age(asOf)}`, headers.get("viewgate-generation")];
  if (by !== mode) parts.unshift(`by ${by}${fallback ? ` (${fallback})` : ""}`);
  return parts.filter(Boolean).join(" · ");
}

// What the gateway says that it sent, in short; line by line where that is opened.
function tell(column, reads) {
  const box = find(".read", column.head), list = find("ol", box);
  box.hidden = !reads;
  if (!reads) return;
  const rows = reads.filter(({ redis, sql }) => sql || redis[0] === "HMGET" || redis[0] === "GET"), others = reads.filter((read) => !rows.includes(read));
  says(column, ".read summary", rows.length ? rows.map(short).join(" + ") : "nothing: it shared another request's read");
  says(column, ".also", others.length ? `and ${others.map(({ redis }) => redis[0]).join(", ")}` : "");
  const lines = reads.map((read) => read.sql ?? read.redis.join(" "));
  if (lines.join("\n") === [...list.children].map((line) => line.textContent).join("\n")) return;
  list.replaceChildren(...lines.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
}

function short({ redis, sql }) {
  if (sql) {
    const queries = sql.match(/\bSELECT\b/g).length;
    return queries === 1 ? "1 SQL query" : `${queries} SQL queries in 1 statement`;
  }
  if (redis[0] === "HMGET") return `1 HMGET of ${redis.length - 2} fields`;
  return "1 GET";
}

function median(times) {
  const sorted = [...times].sort((one, other) => one - other), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function fill(column) {
  told.fields.forEach((field, place) => {
    const value = column.row?.[field] ?? null, cell = column.cells[place], text = value === null ? "–" : String(value);
    if (cell.textContent !== text) cell.textContent = text;
    cell.title = text.length > 20 ? text : "";
    cell.classList.toggle("none", value === null);
  });
}

// What a field is, by those who answered: what most of them say, and of two that as many say, sql's. Undefined where no two agree.
function agreed(fresh, field) {
  const count = new Map();
  for (const { row } of fresh) count.set(row[field], (count.get(row[field]) ?? 0) + 1);
  const most = Math.max(...count.values()), said = [...count.keys()].filter((value) => count.get(value) === most);
  if (said.length === 1) return said[0];
  const counted = fresh.find(({ mode }) => mode === "sql")?.row[field];
  return most > 1 && said.includes(counted) ? counted : undefined;
}

// Marks what differs from that; draws all times on one scale.
function compare() {
  const fresh = columns.filter((column) => column.fresh);
  const slowest = Math.max(1, ...columns.flatMap((column) => column.times));
  told.fields.forEach((field, place) => {
    const right = agreed(fresh, field);
    for (const column of columns) {
      const differs = column.fresh && column.row[field] !== right;
      column.cells[place].parentElement.classList.toggle("differs", differs);
      column.cells[place].parentElement.classList.toggle("old", !column.fresh);
    }
  });
  for (const { head, times } of columns) {
    const points = times.map((ms, place) => `${(place * 100) / (KEPT - 1)},${(19 - (18 * ms) / slowest).toFixed(1)}`);
    find("polyline", head).setAttribute("points", points.join(" "));
  }
}

function anew() {
  for (const column of columns) {
    column.times = [];
    column.fresh = false;
    turn(column);
  }
  find("#paused").textContent = input.value.trim() ? "" : "Write an id.";
  compare();
}

build();
input.addEventListener("input", anew);
find("#shuffle").addEventListener("click", () => {
  input.value = anyone();
  input.dispatchEvent(new Event("input"));
});
document.addEventListener("visibilitychange", () => columns.forEach(turn));
anew();
