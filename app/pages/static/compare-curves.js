"use strict";
// Draws latencies: by percentile, and second by second. Knows nothing of where they come from.

const SVG = "http://www.w3.org/2000/svg";
const EDGE = { left: 52, right: 14, top: 10, bottom: 40 }, HEIGHT = 280;
const NINES = [[0, "0"], [0.5, "50"], [0.9, "90"], [0.99, "99"], [0.999, "99.9"], [0.9999, "99.99"]];
const depth = (part) => Math.log10(1 / (1 - part));

// sorted: ascending. part: from 0 to 1.
const quantile = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];

function element(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// The frame of a chart: an empty drawing as wide as there is room, and where a value lies in it. from, to: ms.
function frame(svg, across, from, to) {
  const width = Math.max(240, svg.clientWidth), right = width - EDGE.right, bottom = HEIGHT - EDGE.bottom;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const x = (share) => EDGE.left + share * (right - EDGE.left);
  const y = (ms) => bottom - (Math.log(Math.min(Math.max(ms, from), to) / from) / Math.log(to / from)) * (bottom - EDGE.top);
  for (let ms = from; ms <= to * 1.001; ms *= 10) {
    for (const part of [2, 5]) {
      if (ms * part < to) element(svg, "line", { class: "fine", x1: EDGE.left, x2: right, y1: y(ms * part), y2: y(ms * part) });
    }
    element(svg, "line", { class: "grid", x1: EDGE.left, x2: right, y1: y(ms), y2: y(ms) });
    element(svg, "text", { x: EDGE.left - 6, y: y(ms) + 4, "text-anchor": "end" }, ms < 1000 ? `${Number(ms.toFixed(1))} ms` : `${ms / 1000} s`);
  }
  for (const [share, text] of across.ticks) {
    element(svg, "line", { class: "grid", x1: x(share), x2: x(share), y1: EDGE.top, y2: bottom });
    element(svg, "text", { x: x(share), y: bottom + 16, "text-anchor": "middle" }, text);
  }
  element(svg, "text", { class: "axis", x: (EDGE.left + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, across.name);
  return { x, y };
}

function line(svg, mark, kind, points) {
  if (points.length) element(svg, "polyline", { class: `curve ${kind} ${mark}`, points: points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ") });
}

// The decades that hold all of these, in ms.
function range(least, most) {
  return [10 ** Math.min(0, Math.floor(Math.log10(least))), 10 ** Math.max(1, Math.ceil(Math.log10(most)))];
}

// lines: each with its mark, and its latencies in ms, ascending.
function drawPercentiles(svg, lines) {
  const some = lines.map(({ sorted }) => sorted).filter((sorted) => sorted.length);
  if (!some.length) return;
  // as far as the most numerous line has anything to say
  const deepest = Math.max(1, Math.log10(Math.max(...some.map((sorted) => sorted.length))));
  const ticks = NINES.filter(([part]) => depth(part) <= deepest).map(([part, text]) => [depth(part) / deepest, text]);
  const { x, y } = frame(svg, { name: "percentile", ticks }, ...range(Math.min(...some.map((one) => one[0])), Math.max(...some.map((one) => one.at(-1)))));
  for (const { mark, sorted } of lines) {
    const end = Math.log10(sorted.length), steps = 120;
    const points = sorted.length < 2 ? [] : Array.from({ length: steps + 1 }, (_, step) => (end * step) / steps);
    line(svg, mark, "thick", points.map((deep) => [x(deep / deepest), y(quantile(sorted, 1 - 10 ** -deep))]));
  }
}

// lines: each with its mark, and for each second, the oldest first, [p50, p99] in ms, or null where there was nothing.
function drawSeconds(svg, lines) {
  const known = lines.flatMap(({ pairs }) => pairs).filter(Boolean);
  if (!known.length) return;
  const seconds = lines[0].pairs.length, ticks = [60, 45, 30, 15, 0].map((ago) => [1 - ago / 60, ago ? `−${ago}` : "now"]);
  const { x, y } = frame(svg, { name: "seconds ago", ticks }, ...range(Math.min(...known.map(([low]) => low)), Math.max(...known.map(([, high]) => high))));
  for (const { mark, pairs } of lines) {
    ["thick", "thin"].forEach((kind, which) => {
      line(svg, mark, kind, pairs.map((pair, second) => pair && [x(second / (seconds - 1)), y(pair[which])]).filter(Boolean));
    });
  }
}
