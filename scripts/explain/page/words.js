"use strict";
// What the page says: numbers with their units, and sentences about what is seen.

const NAMES = { pool: "RoIPool", warp: "RoIWarp", align: "RoIAlign", prroi: "PrRoIPool" };

const number = (value, digits = 2) =>
  (Math.abs(value) < 0.5 * 10 ** -digits ? 0 : value).toFixed(digits).replace("-", "−");
const counted = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

function variant(state) {
  const { pooler, rounding, mode, placement, samples, aligned } = state;
  if (pooler === "pool") return rounding === "caffe" ? "Caffe's" : "cut down";
  if (pooler === "warp" && mode === "mnc") return "MNC's layer";
  if (pooler === "prroi") return "exact mean";
  const parts = [samples ? `${samples} × ${samples} points` : "adaptive"];
  if (pooler === "align" && placement === "thirds") parts.push("at thirds");
  if (!aligned) parts.push("not aligned");
  return parts.join(", ");
}

const ABOUT = {
  pool_caffe: "It rounds the four corners to whole cells and counts the last one in. Then it rounds " +
    "each bin outwards to whole cells, so that bins may overlap, and keeps the largest cell of each.",
  pool_floor: "A teaching form. It cuts corner and size down to whole cells, gives each bin the same " +
    "whole number of cells and drops the rest. It keeps the largest cell of each bin.",
  warp_paper: "It rounds the four corners as RoIPool does. From there on nothing is rounded: bins " +
    "have real sizes, and their points are read between the cells.",
  warp_mnc: "The layer as its authors released it. It rounds the corners, then reads a point at the " +
    "first corner of each part of a bin, in a frame that is half a cell off.",
  align: "It rounds nothing. Bins have real sizes, and each point is read between the four cells " +
    "around it, nearer ones counting more.",
  align_legacy: "It rounds nothing, but in this older form puts a cell's centre at its corner: " +
    "everything is read half a cell to the lower right.",
  prroi: "It takes no points. Each bin is the exact mean of the interpolated map over its area, in a " +
    "frame that is half a cell off.",
};

function about(state) {
  const { pooler, rounding, mode, aligned } = state;
  if (pooler === "pool") return ABOUT[`pool_${rounding}`];
  if (pooler === "warp") return ABOUT[`warp_${mode}`];
  return ABOUT[pooler === "align" && !aligned ? "align_legacy" : pooler];
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
  const whole = state.pooler === "pool";
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
