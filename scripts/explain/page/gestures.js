"use strict";
// Pointers and keys. A grip is [x, y], -1 or 1 for an edge that is held; [0, 0] holds the whole box.

// The image's pixel under a pointer.
function pixelAt({ clientX, clientY }) {
  const place = $("stage").getBoundingClientRect();
  const scale = SPAN / place.width;
  return [(clientX - place.left) * scale - MARGIN, (clientY - place.top) * scale - MARGIN];
}

// Which grip is under a pixel: -1 or 1 near an edge, 0 between them, null away from both.
function gripAlong(value, first, last, reach) {
  const inner = Math.min(reach, (last - first) / 4); // leave the middle free to move the box
  if (value < first - reach || value > last + reach) return null;
  if (value <= first + inner) return -1;
  return value >= last - inner ? 1 : 0;
}

function gripAt([px, py], touch) {
  const reach = ((touch ? 20 : 9) * SPAN) / $("stage").clientWidth;
  const [x1, y1, x2, y2] = state.box;
  const grip = [gripAlong(px, x1, x2, reach), gripAlong(py, y1, y2, reach)];
  return grip.includes(null) ? null : grip;
}

const CURSORS = { "0,0": "move", "-1,-1": "nwse-resize", "1,1": "nwse-resize", "1,-1": "nesw-resize", "-1,1": "nesw-resize" };
const cursorOf = (grip) =>
  grip ? CURSORS[grip] || (grip[0] === 0 ? "ns-resize" : "ew-resize") : "crosshair";

// The index of the bin, and of its reading, nearest to a place along an axis.
function nearestAlong({ bins }, place) {
  const distance = (i) => {
    const [low, high] = bins[i].edges;
    return Math.max(Math.min(low, high) - place, place - Math.max(low, high), 0);
  };
  const bin = range(bins.length).reduce((best, i) => (distance(i) < distance(best) ? i : best), 0);
  const away = (sample) => Math.abs(bins[bin].samples[sample].point - place);
  const samples = range(bins[bin].samples.length);
  const sample = samples.reduce((best, k) => (away(k) < away(best) ? k : best), 0);
  return { bin, sample, distance: distance(bin) };
}

function chooseAt([px, py]) {
  const { plan } = scene;
  const row = nearestAlong(plan.rows, py / state.stride);
  const column = nearestAlong(plan.columns, px / state.stride);
  if (row.distance > 0 || column.distance > 0) return;
  const at = [row.bin, column.bin, row.sample, column.sample];
  if (String(at) !== String(state.at)) update({ at });
}

function followPointers(stage) {
  let held = null;
  const end = () => { held = null; };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || held) return;
    const touch = event.pointerType !== "mouse";
    const grip = gripAt(pixelAt(event), touch);
    chooseAt(pixelAt(event));
    if (!grip) return;
    held = { id: event.pointerId, grip, from: pixelAt(event), box: state.box };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    const pixel = pixelAt(event);
    if (!held) {
      stage.style.cursor = cursorOf(gripAt(pixel, false));
      chooseAt(pixel);
    } else if (event.pointerId === held.id) {
      const [dx, dy] = [Math.round(pixel[0] - held.from[0]), Math.round(pixel[1] - held.from[1])];
      const whole = held.grip[0] === 0 && held.grip[1] === 0;
      update({ box: whole ? movedBox(held.box, dx, dy) : resizedBox(held.box, held.grip, dx, dy) });
    }
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) stage.addEventListener(name, end);
  // A finger on the box drags it; elsewhere it scrolls the page.
  stage.addEventListener("touchstart", (event) => {
    if (event.touches.length === 1 && gripAt(pixelAt(event.touches[0]), true)) event.preventDefault();
  }, { passive: false });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onArrow(target, act) {
  target.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(arrow, event.shiftKey);
  });
}

// Every reading of every bin, one after the other.
function readingsInOrder({ rows, columns }) {
  return range(rows.bins.length).flatMap((i) => range(columns.bins.length).flatMap((j) => {
    const [s, r] = [rows.bins[i].samples.length, columns.bins[j].samples.length];
    return s && r ? range(s * r).map((k) => [i, j, Math.floor(k / r), k % r]) : [[i, j, 0, 0]];
  }));
}

function step(by) {
  const all = readingsInOrder(scene.plan);
  const chosen = choiceOf(scene, state.at).at.map((n) => Math.max(n, 0));
  const here = all.findIndex((at) => String(at) === String(chosen));
  update({ at: all[(Math.max(here, 0) + by + all.length) % all.length] });
}

function followKeys() {
  onArrow($("stage"), ([dx, dy], shifted) => update({
    box: shifted ? resizedBox(state.box, [1, 1], dx, dy) : movedBox(state.box, dx, dy),
  }));
  onArrow($("output"), ([dx, dy]) => {
    const last = state.bins - 1;
    const [i, j] = state.at.map((n) => Math.min(n, last)); // not the scene's: keys may come faster than drawings
    update({ at: [clamp(i + dy, 0, last), clamp(j + dx, 0, last), 0, 0] });
  });
}

function followButtons() {
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("reset").addEventListener("click", () => update(START));
  $("output").addEventListener("click", ({ target }) => {
    const [, i, j] = target.id.split("-").map(Number);
    if (target.tagName === "TD") update({ at: [i, j, 0, 0] });
  });
  $("share").addEventListener("click", async () => {
    const link = `${location.href.split("#")[0]}#${toHash(state)}`;
    history.replaceState(null, "", link);
    try {
      await navigator.clipboard.writeText(link);
      $("shared").textContent = "Copied.";
    } catch {
      $("shared").textContent = "The address bar has the link.";
    }
  });
}
