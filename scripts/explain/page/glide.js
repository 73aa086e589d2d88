"use strict";
// When another pooler is chosen, bins and points glide to their new places, so that the eye sees
// what rounding moves. Only the drawing glides; the numbers are the new ones at once.

const GLIDE = 260; // milliseconds

const between = (from, to, share) => from.map((value, i) => value + (to[i] - value) * share);

function axisBetween(from, to, box, share) {
  const bins = to.bins.map((bin, i) => {
    const before = from.bins[i];
    const paired = before.samples.length === bin.samples.length;
    const samples = bin.samples.map((sample, k) =>
      paired ? { ...sample, point: between([before.samples[k].point], [sample.point], share)[0] } : sample);
    return { edges: between(before.edges, bin.edges, share), samples };
  });
  return { bins, rounded: to.rounded && between(from.rounded || box, to.rounded, share) };
}

function planBetween(from, to, share) {
  const [x1, y1, x2, y2] = to.box;
  return {
    ...to,
    rows: axisBetween(from.rows, to.rows, [y1, y2], share),
    columns: axisBetween(from.columns, to.columns, [x1, x2], share),
  };
}

// Whether two plans read the same box of the same map in as many bins.
const alike = (a, b) =>
  String(a.box) === String(b.box) && String(a.size) === String(b.size) && a.rows.bins.length === b.rows.bins.length;

let gliding = 0; // the latest call of `glide`; an older one stops

// Call `draw(plan)` with plans from the one before (or null) to the new one.
function glide(before, plan, draw) {
  gliding += 1;
  const [mine, still] = [gliding, matchMedia("(prefers-reduced-motion: reduce)").matches];
  if (still || !before || !alike(before, plan)) return draw(plan);
  const begun = performance.now();
  const frame = (now) => {
    if (mine !== gliding) return;
    const time = clamp((now - begun) / GLIDE, 0, 1);
    draw(time < 1 ? planBetween(before, plan, 1 - (1 - time) ** 3) : plan);
    if (time < 1) requestAnimationFrame(frame);
  };
  frame(begun);
}
