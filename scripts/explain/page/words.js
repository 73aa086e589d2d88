"use strict";
// What the page says: numbers with their units, and sentences about what is seen.

const number = (value, digits = 2) =>
  (Math.abs(value) < 0.5 * 10 ** -digits ? 0 : value).toFixed(digits).replace("-", "−");
const counted = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

function variant(state) {
  const { rounding, mode, placement, samples, aligned } = state;
  const parts = [];
  if (relevant(state, "rounding")) parts.push(rounding === "caffe" ? "Caffe's" : "cut down");
  if (relevant(state, "mode") && mode === "mnc") return "MNC's layer";
  if (relevant(state, "samples")) parts.push(samples ? `${samples} × ${samples} points` : "adaptive");
  if (relevant(state, "placement") && placement === "thirds") parts.push("at thirds");
  if (relevant(state, "aligned") && !aligned) parts.push("not aligned");
  if (!parts.length) parts.push(state.pooler === "prroi" ? "exact mean" : resultOf(state));
  return parts.join(", ");
}

const resultOf = (state) => `${{ avg: "average", max: "maximum" }[aggregation(state)]} of a bin`;

// Forms of a pooler that are not its usual one.
const ABOUT = {
  pool_floor: "A teaching form. It cuts corner and size down to whole cells, gives each bin the same " +
    "whole number of cells and drops the rest. It keeps the largest cell of each bin.",
  warp_mnc: "The layer as its authors released it. It rounds the corners, then reads a point at the " +
    "first corner of each part of a bin, in a frame that is half a cell off.",
  align_legacy: "It rounds nothing, but in this older form puts a cell's centre at its corner: " +
    "everything is read half a cell to the lower right.",
};

function about({ pooler, rounding, mode, aligned }) {
  const form = { pool: rounding, warp: mode, align: aligned ? "" : "legacy" }[pooler];
  return ABOUT[`${pooler}_${form}`] || POOLERS[pooler].about;
}

function shiftWords([dx, dy]) {
  if (!Number.isFinite(dx) || !Number.isFinite(dy)) return "nothing is read";
  const parts = [];
  if (Math.abs(dx) >= 0.05) parts.push(`${number(Math.abs(dx), 1)} px ${dx > 0 ? "right" : "left"}`);
  if (Math.abs(dy) >= 0.05) parts.push(`${number(Math.abs(dy), 1)} px ${dy > 0 ? "down" : "up"}`);
  return parts.length ? parts.join(", ") : "none";
}

// The sentence about this very box.
function seen(state, { coverage: { counts }, shift: moved }) {
  const inside = counts.kept + counts.mapped + counts.cut;
  const lost = counts.mapped + counts.cut;
  const loss = lost ? `${lost} of them ${lost === 1 ? "is" : "are"} never read` : "All are read";
  const { foreign } = counts;
  const beyond = foreign ? `${foreign} outside it ${foreign === 1 ? "is" : "are"}` : "none outside it is";
  const words = shiftWords(moved);
  const place = words === "none"
    ? "What is read is centred on the box."
    : words === "nothing is read"
      ? "Nothing is read at all."
      : `The centre of what is read is off by ${words}.`;
  return `The box touches ${counted(inside, "cell")}. ${loss}; ${beyond} read. ${place}`;
}

// [smallest, largest] length of the bins of an axis, in cells.
function binSpan({ bins }) {
  const lengths = bins.map(({ edges }) => edges[1] - edges[0]);
  return [Math.min(...lengths), Math.max(...lengths)];
}

function spanWords([low, high], whole) {
  const digits = whole ? 0 : 2;
  const [a, b] = [number(low, digits), number(high, digits)];
  return a === b ? a : `${a}–${b}`;
}

// Pairs of a name and its number.
function figures(state, scene) {
  const { plan, coverage: { counts }, shift: moved } = scene;
  const [x1, y1, x2, y2] = plan.box;
  const whole = state.pooler === "pool"; // bins of whole cells
  const span = ([a, b], digits) => `${number(a, digits)} – ${number(b, digits)}`;
  const samples = (axis) => axis.bins.reduce((sum, bin) => sum + bin.samples.length, 0);
  const points = samples(plan.rows) * samples(plan.columns);
  const rounded = plan.columns.rounded;
  return [
    ["Box, cells across", span([x1, x2])],
    ["Box, cells down", span([y1, y2])],
    ["Its size", `${number(x2 - x1)} × ${number(y2 - y1)} cells`],
    ["Rounded to", rounded
      ? `${span(rounded, 0)} across, ${span(plan.rows.rounded, 0)} down` : "not rounded"],
    ["A bin", `${spanWords(binSpan(plan.columns), whole)} × ${spanWords(binSpan(plan.rows), whole)} cells`],
    [{ pool: "Cells compared", prroi: "Areas averaged" }[state.pooler] || "Points read", String(points)],
    ["Lost: mapping, bins", `${counts.mapped} + ${counts.cut}`],
    ["Read from outside", counted(counts.foreign, "cell")],
    ["Shift of what is read", shiftWords(moved)],
  ];
}
