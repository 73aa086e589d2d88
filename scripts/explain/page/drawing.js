"use strict";
// The map, the box and what is read of them, on a canvas. A view is { x, y, side, cells }: the
// square of `cells` cells from (x, y) in feature coordinates, drawn `side` CSS pixels wide.

const SHADES = 200; // steps between the shades of the values 0 and 1

// The colours of the current theme, from style.css.
function palette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["low", "high", "veil", "line", "frame", "ink", "box", "halo", "pick"];
  const colours = Object.fromEntries(names.map((n) => [n, style.getPropertyValue(`--${n}`).trim()]));
  for (const kind of ["mapped", "cut", "foreign"]) {
    colours[kind] = style.getPropertyValue(`--${kind}`).trim();
  }
  const shades = range(SHADES + 1).map((k) => mixed(colours.low, colours.high, k / SHADES));
  colours.shade = (value) => shades[Math.round(clamp(value, 0, 1) * SHADES)];
  return colours;
}

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

function mixed(from, to, share) {
  const [a, b] = [channels(from), channels(to)];
  return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * share)).join(" ")})`;
}

// A canvas of `side` CSS pixels, sharp on any screen; returns its context.
function sharpContext(canvas, side) {
  const ratio = window.devicePixelRatio || 1;
  const pixels = Math.round(side * ratio);
  if (canvas.width !== pixels || canvas.height !== pixels) {
    [canvas.width, canvas.height] = [pixels, pixels]; // also wipes it, so not at every drawing
  }
  const context = canvas.getContext("2d");
  context.setTransform(pixels / side, 0, 0, pixels / side, 0, 0);
  context.clearRect(0, 0, side, side);
  return context;
}

function placed(view) {
  const scale = view.side / view.cells;
  return { scale, X: (x) => (x - view.x) * scale, Y: (y) => (y - view.y) * scale };
}

function drawCells(context, view, scene, colours) {
  const { scale, X, Y } = placed(view);
  const crisp = (v) => Math.round(v);
  scene.map.forEach((row, y) => row.forEach((value, x) => {
    const kind = scene.coverage.kinds[y][x];
    const [left, top] = [crisp(X(x)), crisp(Y(y))];
    const [width, height] = [crisp(X(x + 1)) - left, crisp(Y(y + 1)) - top];
    if (left > view.side || top > view.side || left + width < 0 || top + height < 0) return;
    context.fillStyle = colours.shade(value);
    context.fillRect(left, top, width, height);
    if (kind === "kept") return;
    context.globalAlpha = kind === "" ? 0.62 : 0.8;
    context.fillStyle = kind === "" ? colours.veil : colours[kind];
    context.fillRect(left, top, width, height);
    context.globalAlpha = 1;
  }));
  context.strokeStyle = colours.line;
  context.lineWidth = scale > 14 ? 1 : 0.5;
  context.beginPath();
  for (const k of range(scene.map.length + 1)) {
    const [x, y, end] = [crisp(X(k)) + 0.5, crisp(Y(k)) + 0.5, scene.map.length];
    context.moveTo(x, Y(0));
    context.lineTo(x, Y(end));
    context.moveTo(X(0), y);
    context.lineTo(X(end), y);
  }
  context.stroke();
  context.strokeStyle = colours.frame;
  context.strokeRect(X(0), Y(0), scene.map.length * scale, scene.map.length * scale);
}

function outline(context, view, [x1, y1, x2, y2]) {
  const { X, Y } = placed(view);
  context.strokeRect(X(x1), Y(y1), X(x2) - X(x1), Y(y2) - Y(y1));
}

function drawBins(context, view, plan, colours) {
  context.strokeStyle = colours.ink;
  context.lineWidth = 1;
  for (const row of plan.rows.bins) {
    for (const column of plan.columns.bins) {
      const [[y1, y2], [x1, x2]] = [row.edges, column.edges];
      if (row.samples.length && column.samples.length) outline(context, view, [x1, y1, x2, y2]);
    }
  }
  if (plan.rows.rounded) {
    context.lineWidth = 2.5;
    context.setLineDash([7, 5]);
    const [[y1, y2], [x1, x2]] = [plan.rows.rounded, plan.columns.rounded];
    outline(context, view, [x1, y1, x2, y2]);
    context.setLineDash([]);
  }
}

function dot(context, x, y, radius, fill, halo) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.strokeStyle = halo;
  context.lineWidth = Math.max(radius * 0.5, 0.75);
  context.stroke();
  context.fill();
}

function drawPoints(context, view, plan, colours) {
  const { scale, X, Y } = placed(view);
  const [rows, columns] = [plan.rows, plan.columns].map(({ bins }) => bins.flatMap((b) => b.samples));
  const gap = Math.abs((rows[1]?.point ?? 9) - (rows[0]?.point ?? 0)) * scale;
  const radius = clamp(Math.min(scale / 9, gap / 3.5), 0.8, 4);
  for (const row of rows) {
    for (const column of columns) {
      dot(context, X(column.point), Y(row.point), radius, colours.ink, colours.halo);
    }
  }
}

// The chosen bin, the chosen point, and a thread to each cell it reads, as thick as its weight.
function drawChoice(context, view, choice, colours) {
  const { scale, X, Y } = placed(view);
  const [[y1, y2], [x1, x2]] = [choice.rowBin.edges, choice.columnBin.edges];
  context.strokeStyle = colours.pick;
  context.lineWidth = 3;
  outline(context, view, [x1, y1, x2, y2]);
  if (!choice.row) return;
  const [px, py] = [X(choice.column.point), Y(choice.row.point)];
  for (const [y, wy] of choice.row.taps) {
    for (const [x, wx] of choice.column.taps) {
      if (wx * wy === 0) continue;
      context.lineWidth = 1.5;
      context.strokeRect(X(x) + 1.5, Y(y) + 1.5, scale - 3, scale - 3);
      context.lineWidth = 1 + 4 * Math.sqrt(Math.abs(wx * wy));
      context.beginPath();
      context.moveTo(px, py);
      context.lineTo(X(x + 0.5), Y(y + 0.5));
      context.stroke();
    }
  }
  dot(context, px, py, clamp(scale / 6, 3, 6), colours.pick, colours.halo);
}

function drawBox(context, view, [x1, y1, x2, y2], colours, grips) {
  const { X, Y } = placed(view);
  context.lineJoin = "round";
  context.strokeStyle = colours.halo;
  context.lineWidth = 5;
  outline(context, view, [x1, y1, x2, y2]);
  context.strokeStyle = colours.box;
  context.lineWidth = 2.5;
  outline(context, view, [x1, y1, x2, y2]);
  if (!grips) return;
  for (const x of [x1, (x1 + x2) / 2, x2]) {
    for (const y of [y1, (y1 + y2) / 2, y2]) {
      const centre = x === (x1 + x2) / 2 && y === (y1 + y2) / 2;
      if (!centre) dot(context, X(x), Y(y), 5.5, colours.halo, colours.box);
    }
  }
}

// A whole scene: { map, plan, coverage, choice (or null) }.
function drawScene(canvas, view, scene, colours, grips = false) {
  const context = sharpContext(canvas, view.side);
  drawCells(context, view, scene, colours);
  drawBins(context, view, scene.plan, colours);
  if (scene.points) drawPoints(context, view, scene.plan, colours);
  drawBox(context, view, scene.plan.box, colours, grips);
  if (scene.choice) drawChoice(context, view, scene.choice, colours);
}

// The output as a square of shades, with its numbers where there is room.
function drawOutput(canvas, side, values, colours) {
  const context = sharpContext(canvas, side);
  const size = side / values.length;
  context.font = `600 ${clamp(size / 3.2, 10, 16)}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  values.forEach((row, i) => row.forEach((value, j) => {
    context.fillStyle = colours.shade(value);
    context.fillRect(j * size, i * size, size - 1, size - 1);
    if (size < 30) return;
    context.fillStyle = colours.ink;
    context.fillText(value.toFixed(2), (j + 0.5) * size, (i + 0.53) * size);
  }));
}
