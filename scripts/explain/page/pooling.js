"use strict";
// What each pooler reads, and what comes of it: the arithmetic of ops/, in the browser's float64.
// Pure functions. Coordinates are continuous feature coordinates: cell k covers [k, k + 1).
//
// An axis is a list of bins { edges: [first, last], samples: [{ point, taps: [[cell, weight]] }] }.
// A sample of the map is a row sample and a column sample; its weights are their product.

function roundHalfAway(value) {
  const whole = Math.trunc(value);
  return (whole + (Math.abs(value - whole) >= 0.5 ? Math.sign(value) : 0)) || 0; // never -0
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const range = (length) => Array.from({ length }, (_, i) => i);

// Linear interpolation at `index` (index space: cell k's centre is k); outside the window it is 0.
function linearSample(index, size, [first, last]) {
  const inside = index >= first && index <= last;
  const place = Math.max(index, 0);
  const low = Math.min(Math.floor(place), size - 1);
  const fraction = low >= size - 1 ? 0 : place - low;
  const taps = [[low, inside ? 1 - fraction : 0]];
  if (low < size - 1) taps.push([low + 1, inside ? fraction : 0]);
  return { point: index + 0.5, taps };
}

// RoIAlign's samples; `start` in index space, `ratio` 0 adapts their number to the box.
function sampledAxis(start, length, bins, size, ratio, placement) {
  const step = length / bins;
  const count = ratio > 0 ? ratio : Math.max(Math.ceil(step), 0);
  const [shift, parts] = placement === "thirds" ? [1, count + 1] : [0.5, count];
  const edge = (i) => i * step + start + 0.5;
  return range(bins).map((i) => ({
    edges: [edge(i), edge(i + 1)],
    samples: range(count).map((k) =>
      linearSample(start + i * step + ((k + shift) * step) / parts, size, [-1, size])),
  }));
}

function alignAxis(start, end, bins, size, { samples, aligned, placement }) {
  const offset = aligned ? 0.5 : 0;
  const length = end - offset - (start - offset);
  const atLeast = aligned ? length : Math.max(length, 1);
  return sampledAxis(start - offset, atLeast, bins, size, samples, placement);
}

// MNC's samples: the first corner of each of `samples` equal parts of a bin.
function cornerAxis(start, end, bins, size, samples) {
  const length = Math.max(end - start, 0);
  const parts = bins * samples;
  const edge = (i) => start + (i * length) / bins;
  return range(bins).map((i) => ({
    edges: [edge(i), edge(i + 1)],
    samples: range(samples).map((k) =>
      linearSample(start + ((i * samples + k) * length) / parts, size, [-0.5, size - 0.5])),
  }));
}

// Whole cells first <= cell < last, cut at the map's border.
function cellBin(first, last, size) {
  const [low, high] = [clamp(first, 0, size), clamp(last, 0, size)];
  const cells = range(Math.max(high - low, 0)).map((k) => low + k);
  return {
    edges: [low, high],
    samples: cells.map((cell) => ({ point: cell + 0.5, taps: [[cell, 1]] })),
  };
}

function caffeAxis(start, end, bins, size) {
  const [first, last] = [roundHalfAway(start), roundHalfAway(end)];
  const step = Math.max(last - first + 1, 1) / bins;
  return range(bins).map((i) =>
    cellBin(Math.floor(i * step) + first, Math.ceil((i + 1) * step) + first, size));
}

function floorAxis(start, end, bins, size) {
  const first = Math.floor(start);
  const step = Math.max(Math.floor(Math.floor(end - start) / bins), 1);
  return range(bins).map((i) => cellBin(first + i * step, first + (i + 1) * step, size));
}

// Integral of max(0, 1 - |u|) for u up to t.
function kernelIntegral(t) {
  const u = clamp(t, -1, 1);
  return u < 0 ? (1 + u) ** 2 / 2 : 1 - (1 - u) ** 2 / 2;
}

// PrRoIPool: one "sample" a bin, whose weights are the mean of each cell's interpolation kernel.
function integralAxis(start, end, bins, size) {
  const length = Math.max(end - start, 0) / bins;
  const edge = (i) => start + i * length;
  return range(bins).map((i) => {
    const [low, high] = [clamp(edge(i), -1, size), clamp(edge(i + 1), -1, size)];
    const first = Math.floor(low);
    const cells = range(Math.ceil(high) - first + 1).map((k) => first + k);
    const taps = cells
      .filter((cell) => cell >= 0 && cell < size)
      .map((cell) => [cell, (kernelIntegral(high - cell) - kernelIntegral(low - cell)) / length]);
    const edges = [edge(i) + 0.5, edge(i + 1) + 0.5];
    const samples = length > 0 ? [{ point: (edges[0] + edges[1]) / 2, taps }] : [];
    return { edges, samples };
  });
}

// The bins along one axis, and the span [first, last] that the box was rounded to (null: not).
const AXES = {
  pool(start, end, size, { bins, rounding }) {
    const [first, last] = [roundHalfAway(start), roundHalfAway(end)];
    if (rounding === "floor") {
      const span = [Math.floor(start), Math.floor(start) + Math.max(Math.floor(end - start), 1)];
      return { bins: floorAxis(start, end, bins, size), rounded: span };
    }
    const span = [first, first + Math.max(last - first + 1, 1)];
    return { bins: caffeAxis(start, end, bins, size), rounded: span };
  },
  warp(start, end, size, settings) {
    const { bins, mode, samples } = settings;
    const [first, last] = [roundHalfAway(start), roundHalfAway(end)];
    if (mode === "mnc") {
      const axis = cornerAxis(first, last, bins, size, samples || 2); // it cannot adapt
      return { bins: axis, rounded: [first, Math.max(last, first)] };
    }
    const span = [first, first + Math.max(last - first, 1)];
    const uniform = { ...settings, placement: "uniform" };
    return { bins: alignAxis(...span, bins, size, uniform), rounded: span };
  },
  align(start, end, size, settings) {
    return { bins: alignAxis(start, end, settings.bins, size, settings), rounded: null };
  },
  prroi(start, end, size, { bins }) {
    return { bins: integralAxis(start, end, bins, size), rounded: null };
  },
};

// Crop and resize: 2 points a bin, those of all bins evenly spaced from edge to edge.
AXES.crop = function edgeToEdge(start, end, size, { bins }) {
  const edge = (i) => start + (i * (end - start)) / bins + 0.5;
  const place = (k) => start + (k * (end - start)) / (2 * bins - 1);
  const axis = range(bins).map((i) => ({
    edges: [edge(i), edge(i + 1)],
    samples: range(2).map((k) => linearSample(place(2 * i + k), size, [0, size - 1])),
  }));
  return { bins: axis, rounded: null };
};

function axisPlan(start, end, size, settings) {
  const axis = AXES[settings.pooler];
  if (!axis) throw new Error(`pooling.js does not know the pooler ${settings.pooler}`);
  return axis(start, end, size, settings);
}

// What a pooler reads of a map of [height, width] cells for a box [x1, y1, x2, y2] in image pixels.
function poolingPlan(box, size, settings) {
  const [x1, y1, x2, y2] = box.map((value) => value / settings.stride);
  return {
    box: [x1, y1, x2, y2],
    size,
    rows: axisPlan(y1, y2, size[0], settings),
    columns: axisPlan(x1, x2, size[1], settings),
    agg: aggregation(settings),
  };
}

// The map (a list of rows) at a row sample and a column sample.
function sampleValue(map, row, column) {
  let sum = 0;
  for (const [y, wy] of row.taps) for (const [x, wx] of column.taps) sum += wy * wx * map[y][x];
  return sum;
}

function binValue(map, rowBin, columnBin, agg) {
  let [sum, best, count] = [0, -Infinity, 0];
  for (const row of rowBin.samples) {
    for (const column of columnBin.samples) {
      const value = sampleValue(map, row, column);
      sum += value;
      best = Math.max(best, value);
      count += 1;
    }
  }
  if (count === 0) return 0;
  return agg === "max" ? best : sum / count;
}

// The pooler's output, a list of rows.
function pooledValues(map, plan) {
  return plan.rows.bins.map((row) =>
    plan.columns.bins.map((column) => binValue(map, row, column, plan.agg)));
}

function cellsRead(bins) {
  const read = new Set();
  for (const bin of bins) {
    for (const { taps } of bin.samples) {
      for (const [cell, weight] of taps) if (weight !== 0) read.add(cell);
    }
  }
  return read;
}

const overlaps = (cell, [a, b]) => Math.min(cell + 1, Math.max(a, b)) > Math.max(cell, Math.min(a, b));

const extent = (axis) => axis.rounded || [axis.bins[0].edges[0], axis.bins.at(-1).edges[1]];

// Each cell of the map: "kept" (the box touches it, the pooler reads it), "mapped" (lost when the
// box was mapped to the grid), "cut" (lost between or after the bins), "foreign" (read outside the
// box) or "" (no matter), as a list of rows; and how many there are of each.
function coverage(plan) {
  const [x1, y1, x2, y2] = plan.box;
  const rowsRead = cellsRead(plan.rows.bins);
  const columnsRead = cellsRead(plan.columns.bins);
  const counts = { kept: 0, mapped: 0, cut: 0, foreign: 0, "": 0 };
  const kinds = range(plan.size[0]).map((y) => range(plan.size[1]).map((x) => {
    const read = rowsRead.has(y) && columnsRead.has(x) && rowsRead.size && columnsRead.size;
    const touched = overlaps(y, [y1, y2]) && overlaps(x, [x1, x2]);
    const mapped = overlaps(y, extent(plan.rows)) && overlaps(x, extent(plan.columns));
    const kind = read ? (touched ? "kept" : "foreign") : !touched ? "" : mapped ? "cut" : "mapped";
    counts[kind] += 1;
    return kind;
  }));
  return { kinds, counts };
}

// Mean place of everything read, less the box's centre, in image pixels: [right, down].
function shift(plan, stride) {
  const [x1, y1, x2, y2] = plan.box;
  const mean = (bins) => {
    const places = bins.map(({ samples }) => samples.map(({ point }) => point)).filter((p) => p.length);
    const centres = places.map((points) => points.reduce((a, b) => a + b, 0) / points.length);
    return centres.length ? centres.reduce((a, b) => a + b, 0) / centres.length : NaN;
  };
  return [
    (mean(plan.columns.bins) - (x1 + x2) / 2) * stride,
    (mean(plan.rows.bins) - (y1 + y2) / 2) * stride,
  ];
}

window.pooling = { poolingPlan, pooledValues, sampleValue, coverage, shift, roundHalfAway };
