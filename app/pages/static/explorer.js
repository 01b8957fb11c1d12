"use strict";
// GraphiQL with the gateway's own queries, the switch of the mode, and what is told of the last answer.

const buttons = [...document.querySelectorAll('input[name="mode"]')];
const plan = find("#plan");
const MODE = "viewgate:mode", PLAN = "viewgate:plan", EVERY_MS = 100;
const tabs = told.examples.map(({ query, variables }) => ({ query, variables: JSON.stringify(variables, null, 2) }));
let asOf = null;

// A browser may forbid storage; then the mode is forgotten, and nothing else is wrong.
const stored = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); } catch { /* forgotten */ } },
};

function restore() {
  plan.checked = stored.get(PLAN) === "true";
  plan.addEventListener("change", () => stored.set(PLAN, plan.checked));
  if (!told.choice) return;
  const kept = buttons.find((button) => button.value === stored.get(MODE));
  if (kept) kept.checked = true;
  for (const button of buttons) button.addEventListener("change", () => stored.set(MODE, button.value));
}

// GraphiQL takes what its editors first hold from here and not from the first tab, whose variables would be lost otherwise.
function fill({ query, variables }) {
  if (stored.get("graphiql:tabState")) return;
  stored.set("graphiql:query", query);
  stored.set("graphiql:variables", variables);
}

// One header, whatever the headers editor holds: the switch wins where there is a choice.
function headers(given) {
  const made = new Headers(given);
  made.set("content-type", "application/json");
  made.set("accept", "application/json");
  if (told.choice) made.set("viewgate-mode", buttons.find((button) => button.checked).value);
  if (plan.checked) made.set("viewgate-extensions", "plan");
  return made;
}

// Just after a change of tabs GraphiQL still names the last tab's operation, which the gateway would look for in vain.
function named({ operationName, ...params }) {
  const there = operationName && new RegExp(`\\b${operationName}\\b`).test(params.query);
  return there ? { operationName, ...params } : params;
}

async function fetcher(params, options) {
  const started = performance.now();
  const body = JSON.stringify(named(params));
  const response = await fetch("/graphql", { method: "POST", headers: headers(options?.headers), body });
  const text = await response.text();
  // GraphiQL's own question about the schema is no answer to look at
  if (params.operationName !== "IntrospectionQuery") show(response.headers, performance.now() - started);
  try {
    return JSON.parse(text);
  } catch {
    return { errors: [{ message: `HTTP ${response.status}: the answer is not JSON.` }] };
  }
}

function show(answered, ms) {
  const fallback = answered.get("viewgate-fallback");
  find("#mode").textContent = (answered.get("viewgate-mode") ?? "nobody") + (fallback ? ` (${fallback})` : "");
  find("#mode").classList.toggle("fallback", Boolean(fallback));
  fact("#generation", answered.get("viewgate-generation"));
  fact("#took", `${ms.toFixed(1)} ms`);
  asOf = answered.get("viewgate-as-of");
  grow();
  find("#answer").hidden = false;
}

// Counts on while you look.
function grow() {
  fact("#age", asOf && age(asOf));
}

function fact(selector, text) {
  const element = find(selector);
  element.textContent = text ?? "";
  element.parentElement.hidden = !text;
}

// GraphiQL would load the pictures that an answer names when the pointer is above their addresses; the page may ask its own server only.
function keepPicturesAway(event) {
  if (event.target.closest?.(".result-window")) event.stopPropagation();
}

restore();
fill(tabs[0]);
setInterval(grow, EVERY_MS);
document.addEventListener("mouseover", keepPicturesAway, true);
ReactDOM.createRoot(find("#graphiql")).render(
  React.createElement(GraphiQL, {
    fetcher,
    defaultTabs: tabs,
    defaultEditorToolsVisibility: "variables",
    inputValueDeprecation: true,
    schemaDescription: true,
  }),
);
