"use strict";
// Made-up feature maps with values from 0 to 1, so that the poolers have something to read.
// Each is a function of a cell's row and column and of the map's size (all maps are square).

// Noise that is the same on every machine: an integer hash of the cell.
function cellNoise(row, column) {
  let h = Math.imul(row + 1, 0x9e3779b1) ^ Math.imul(column + 1, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return ((h ^ (h >>> 15)) >>> 0) / 4294967295;
}

const bump = (x, y, cx, cy, w, h) => Math.exp(-(((x - cx) / w) ** 2) - ((y - cy) / h) ** 2);

const MAPS = {
  // An object of two parts, the larger one under the first box; the same at every stride.
  blob: (row, column, size) => {
    const [x, y] = [(column + 0.5) / size, (row + 0.5) / size];
    const parts = bump(x, y, 0.74, 0.5, 0.17, 0.14) + 0.7 * bump(x, y, 0.3, 0.28, 0.16, 0.2);
    return Math.min(parts + 0.06 + 0.05 * Math.sin(9 * x + 5 * y), 1);
  },
  ramp: (row, column, size) => (row + column) / (2 * (size - 1)),
  checker: (row, column) => (row + column) % 2,
  random: cellNoise,
};

function featureMap(name, size) {
  return range(size).map((row) => range(size).map((column) => MAPS[name](row, column, size)));
}

window.maps = { featureMap, MAPS };
