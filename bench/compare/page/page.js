// The form of prices: writes the two tables of costs anew. Intervals were computed for the first prices only, and go when those do.
const form = document.getElementById("prices");
const priceNames = Object.keys(given.prices);
const models = Object.fromEntries(given.models.map((model) => [model.mode, model]));

function number(value) {
  if (Math.abs(value) >= 99.95) return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  return String(Number(value.toPrecision(3)));
}

function row(table, name) {
  return [...document.querySelectorAll(`#table-${table} tbody tr`)].find((one) => one.dataset.row === name);
}

function tell(cell, value, text) {
  cell.replaceChildren(text);
  cell.removeAttribute("data-low");
  cell.removeAttribute("data-high");
  if (value === null) cell.removeAttribute("data-value");
  else cell.dataset.value = value;
}

function tellEven(cell, even) {
  if (!even) tell(cell, null, given.not_measured);
  else if (even.at === null) tell(cell, null, `${even.below} is always cheaper`);
  else tell(cell, even.at, number(even.at));
}

function tellCosts(prices, use) {
  for (const model of given.models) {
    const cells = row("costs", model.mode).querySelectorAll("td");
    const told = cost(model, prices, use);
    ["total", "reads", "changes", "memory", "beside"].forEach((part, place) => {
      const cents = told && told[part] * given.cents;
      tell(cells[place], cents, told ? number(cents) : given.not_measured);
    });
  }
}

function tellEvens(prices, use) {
  const { view, sql } = models;
  for (const other of given.models) {
    const found = row("break-evens", `view and ${other.mode}`);
    if (!found || !view) continue;
    const [ratio, interval, skew, kept] = found.querySelectorAll("td");
    tellEven(ratio, breakEvenRatio(view, other, prices, use));
    tell(interval, null, "of the first prices only");
    if (other.mode === "sql") continue;
    tellEven(skew, sql ? breakEvenSkew(view, other, sql, given.hits[other.mode], prices, use) : null);
    tellEven(kept, breakEvenKept(view, other, prices, use));
  }
}

function recompute() {
  const fields = Object.fromEntries([...form.elements].filter((one) => one.name).map((one) => [one.name, one]));
  if (Object.values(fields).some((one) => !one.checkValidity())) return;
  const values = Object.fromEntries(Object.entries(fields).map(([name, one]) => [name, one.valueAsNumber]));
  const prices = Object.fromEntries(priceNames.map((name) => [name, values[name]]));
  const use = { reads_per_second: values.reads_per_second, reads_per_write: values.reads_per_write };
  tellCosts(prices, use);
  tellEvens(prices, use);
}

const first = ["costs", "break-evens"].map((name) => {
  const body = document.querySelector(`#table-${name} tbody`);
  return [body, body.innerHTML];
});
form.addEventListener("input", recompute);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => first.forEach(([body, text]) => { body.innerHTML = text; }));
