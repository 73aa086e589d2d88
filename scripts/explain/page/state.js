"use strict";
// Everything the page shows follows from one frozen object, which the address bar spells out.

const IMAGE = 512; // the image's side, in pixels
const MARGIN = 48; // how far a box may leave it

const START = Object.freeze({
  box: Object.freeze([296, 192, 496, 337]), // x1 y1 x2 y2, pixels
  pooler: "align",
  rounding: "caffe",
  mode: "paper",
  placement: "uniform",
  stride: 32,
  bins: 3,
  samples: 2, // per bin and axis; 0 adapts to the box
  aligned: true,
  agg: "avg",
  map: "blob",
  at: Object.freeze([0, 0, 0, 0]), // the chosen point: bin row, bin column, sample row and column
});

const CHOICES = {
  pooler: Object.keys(POOLERS),
  rounding: ["caffe", "floor"],
  mode: ["paper", "mnc"],
  placement: ["uniform", "thirds"],
  stride: [16, 32],
  bins: [2, 3, 4, 5, 7, 14],
  samples: [1, 2, 3, 4, 0],
  aligned: [true, false],
  agg: ["avg", "max"],
  map: ["blob", "ramp", "checker", "random"],
};

// Which settings the chosen pooler has.
function relevant(state, name) {
  if (!["rounding", "mode", "placement", "samples", "aligned", "agg"].includes(name)) return true;
  if (name === "aligned" && relevant(state, "mode") && state.mode === "mnc") return false;
  return POOLERS[state.pooler].settings.includes(name === "samples" ? "sampling_ratio" : name);
}

// "avg" or "max": what the pooler makes of a bin.
const aggregation = (state) => POOLERS[state.pooler].agg || state.agg;

// The settings that take effect: MNC's layer cannot adapt its number of samples.
const settle = (state) =>
  state.pooler === "warp" && state.mode === "mnc" && state.samples === 0
    ? { ...state, samples: 2 }
    : state;

function withinReach([x1, y1, x2, y2]) {
  const [low, high] = [-MARGIN, IMAGE + MARGIN];
  const [left, top] = [clamp(x1, low, high - 1), clamp(y1, low, high - 1)];
  return [left, top, clamp(x2, left + 1, high), clamp(y2, top + 1, high)];
}

function movedBox([x1, y1, x2, y2], dx, dy) {
  const [low, high] = [-MARGIN, IMAGE + MARGIN];
  const [right, down] = [clamp(dx, low - x1, high - x2), clamp(dy, low - y1, high - y2)];
  return [x1 + right, y1 + down, x2 + right, y2 + down];
}

// Move the edges that a grip holds: -1 the first, 1 the last, 0 neither, for x and y.
function resizedBox([x1, y1, x2, y2], [gx, gy], dx, dy) {
  const left = gx < 0 ? Math.min(x1 + dx, x2 - 1) : x1;
  const top = gy < 0 ? Math.min(y1 + dy, y2 - 1) : y1;
  const right = gx > 0 ? Math.max(x2 + dx, left + 1) : x2;
  const bottom = gy > 0 ? Math.max(y2 + dy, top + 1) : y2;
  return withinReach([left, top, right, bottom]);
}

function toHash(state) {
  const said = Object.entries(state).filter(([name, value]) => String(value) !== String(START[name]));
  return said.map(([name, value]) => `${name}=${value}`).join("&");
}

// What a hash says; what it says wrongly, or not at all, is as at the start.
function fromHash(hash) {
  const state = { ...START };
  for (const [name, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const numbers = text.split(",").map(Number);
    const four = numbers.length === 4 && numbers.every(Number.isFinite);
    if (name === "box" && four) state.box = withinReach(numbers);
    if (name === "at" && four) state.at = numbers.map((n) => Math.max(Math.trunc(n), 0));
    const choices = Object.hasOwn(CHOICES, name) ? CHOICES[name] : [];
    const choice = choices.find((value) => String(value) === text);
    if (choice !== undefined) state[name] = choice;
  }
  return Object.freeze(settle(state));
}

window.states = { START, CHOICES, toHash, fromHash, movedBox, resizedBox };
