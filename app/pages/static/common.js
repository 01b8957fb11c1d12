"use strict";
// What both scripts use.

const find = (selector, within = document) => within.querySelector(selector);
const told = JSON.parse(find("#told").textContent);

// How long ago it was, up to now: nothing newer than this moment is in the answer. Two clocks may differ, so it is never below 0.
function age(moment) {
  const seconds = Math.max(0, (Date.now() - Date.parse(moment)) / 1000);
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} days`;
}
