"use strict";
// Has somebody follow the user who is shown, and asks each mode for the count until it shows it. The gateway only reads: a service beside it writes.

// how often a mode is asked, by how long it has been waited for
const PACES = [[2000, 20], [10000, 100], [Infinity, 250]];
const GIVEN_UP_MS = 180000, PRESSES = 8, SHORTEST_MS = 1, DECADES = 5;
const counted = `query Count($id: ID!) { ${told.root}(id: $id) { ${told.followed} } }`;
const buttons = { follow: find("#follow"), unfollow: find("#unfollow") };
const strips = columns.map(strip);
let press = null, last = null;

function strip({ mode, mark }) {
  const element = find("#strip").content.cloneNode(true).firstElementChild;
  element.classList.add(mark);
  find(".mode", element).textContent = mode;
  find("#strips").append(element);
  return { element, fill: find(".fill", element), took: find(".took", element) };
}

function scale() {
  const element = document.createElement("div");
  element.className = "strip scale";
  element.setAttribute("aria-hidden", "true");
  const track = document.createElement("span");
  track.className = "track";
  ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"].forEach((text, place) => {
    const tick = document.createElement("span");
    tick.textContent = text;
    tick.style.left = `${(place * 100) / DECADES}%`;
    track.append(tick);
  });
  element.append(document.createElement("span"), track, document.createElement("span"));
  find("#strips").append(element);
}

const share = (ms) => Math.min(100, (100 * Math.log10(Math.max(ms, SHORTEST_MS) / SHORTEST_MS)) / DECADES);
const duration = (ms) => (ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const grouped = (count) => Number(count).toLocaleString("en");

// The count as a mode has it now. Throws a sentence where it has none.
async function count(mode, id) {
  const { response, text } = await ask(mode, counted, id);
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`HTTP ${response.status}`);
  }
  if (answer.errors) throw new Error(answer.errors[0].extensions?.code ?? "error");
  if (!answer.data[told.root]) throw new Error(`there is none with id ${id}`);
  return answer.data[told.root][told.followed];
}

async function write(method, pair) {
  const response = await fetch(`${told.writes}/follows`, { method, headers: { "content-type": "application/json" }, body: JSON.stringify(pair) });
  const answer = await response.json();
  if (answer.errors) throw new Error(answer.errors[0].message);
  return answer;
}

async function pressed(method, pair) {
  for (const button of Object.values(buttons)) button.disabled = true;
  const mine = (press = { id: String(pair.followee), by: method === "POST" ? 1 : -1, took: columns.map(() => null), line: null });
  try {
    mine.before = await Promise.all(columns.map(({ mode }) => count(mode, mine.id).catch(() => null)));
    const newest = mine.before[Math.max(0, told.modes.indexOf("view"))] ?? mine.before.findLast((found) => found !== null);
    if (newest === undefined) throw new Error(`No mode knows a ${told.root} with id ${mine.id}.`);
    mine.target = newest + mine.by;
    mine.at = performance.now();
    // asked from the press on: what is seen before the service has said so is seen all the same
    columns.forEach((column) => watch(mine, column));
    mine.written = await write(method, pair);
    acknowledged(mine, pair);
  } catch (error) {
    press = null;
    // fetch says no more than that it has failed
    find("#followed").textContent = error instanceof TypeError ? `The service at ${told.writes} cannot be reached.` : error.message;
    strips.forEach(({ fill, took }) => { fill.style.width = "0"; took.textContent = ""; });
  }
  buttons.follow.disabled = false;
  buttons.unfollow.disabled = last === null;
}

function acknowledged(mine, pair) {
  mine.acknowledged = performance.now() - mine.at;
  last = mine.by > 0 ? pair : null;
  const what = mine.by > 0 ? `${pair.follower} follows ${pair.followee}` : `${pair.follower} no longer follows ${pair.followee}`;
  find("#followed").textContent = `User ${what}: acknowledged after ${duration(mine.acknowledged)}.`;
  note(mine, `${mine.by > 0 ? "+" : "−"}1 for ${pair.followee}`);
}

async function watch(mine, { mode, place }) {
  const { element, fill, took } = strips[place];
  element.classList.remove("done");
  let says = "asking";
  // before the press it had that number already: the next one that it reads may be another, and tells nothing
  if (mine.before[place] !== null && mine.by * (mine.before[place] - mine.target) >= 0) return settled(mine, place, "showed that number before");
  while (mine === press && !document.hidden) {
    let found = null;
    try {
      found = await count(mode, mine.id);
      says = `still ${grouped(found)}`;
    } catch (error) {
      says = error.message;
    }
    const ms = performance.now() - mine.at;
    if (mine !== press) break;
    if (found !== null && mine.by * (found - mine.target) >= 0) return settled(mine, place, duration(ms), ms);
    if (ms > GIVEN_UP_MS) return settled(mine, place, `not within ${duration(GIVEN_UP_MS)}`, ms);
    fill.style.width = `${share(ms)}%`;
    took.textContent = `${duration(ms)} … ${says}`;
    await pause(PACES.find(([until]) => ms < until)[1]);
  }
  settled(mine, place, "not watched to the end");
}

function settled(mine, place, text, ms) {
  mine.took[place] = text;
  if (mine === press) {
    const { element, fill, took } = strips[place];
    element.classList.toggle("done", ms !== undefined);
    fill.style.width = `${ms === undefined ? 0 : share(ms)}%`;
    took.textContent = text;
  }
  if (mine.line) mine.line.cells[2 + place].textContent = text;
}

// A line for this press, above those before it.
function note(mine, what) {
  const body = find("#presses tbody");
  mine.line = body.insertRow(0);
  for (const text of [what, duration(mine.acknowledged), ...mine.took.map((text) => text ?? "…")]) mine.line.insertCell().textContent = text;
  while (body.rows.length > PRESSES) body.deleteRow(-1);
  find("#presses").hidden = false;
}

function follower(followee) {
  let found = Number(anyone());
  while (found === followee) found = Number(anyone());
  return found;
}

if (told.writes) {
  find("#following").hidden = false;
  scale();
  for (const { mode } of columns) {
    const head = document.createElement("th");
    head.scope = "col";
    head.textContent = mode;
    find("#presses thead tr").append(head);
  }
  buttons.follow.addEventListener("click", () => {
    const followee = Number(input.value.trim());
    if (!Number.isSafeInteger(followee) || !followee) find("#followed").textContent = "Write the id of whom to follow.";
    else pressed("POST", { follower: follower(followee), followee });
  });
  buttons.unfollow.addEventListener("click", () => pressed("DELETE", last));
}
