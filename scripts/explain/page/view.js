"use strict";
// The page: shows the state, and changes it as the user drags, types and chooses.

const $ = (id) => document.getElementById(id);
const SPAN = IMAGE + 2 * MARGIN; // pixels of the image that the stage shows
const POOLING = ["pooler", "rounding", "mode", "placement", "samples", "aligned"]; // moves what is read
const CARDS = ["pool", "warp", "align"];

let state = fromHash(location.hash);
let colours = palette();
let scene = null; // what was last drawn
let awaited = false;

function sceneOf(chosen, map) {
  const settled = settle(chosen);
  const plan = poolingPlan(settled.box, [map.length, map.length], settled);
  const points = POOLERS[settled.pooler].samples;
  return {
    map, plan, points, settings: settled,
    coverage: coverage(plan),
    values: pooledValues(map, plan),
    shift: shift(plan, settled.stride),
  };
}

// The chosen bin and reading, kept within what there is.
function choiceOf({ plan, map }, [i, j, s, r]) {
  const [row, column] = [Math.min(i, plan.rows.bins.length - 1), Math.min(j, plan.columns.bins.length - 1)];
  const [rowBin, columnBin] = [plan.rows.bins[row], plan.columns.bins[column]];
  const [rows, columns] = [rowBin.samples, columnBin.samples];
  const at = [row, column, Math.min(s, rows.length - 1), Math.min(r, columns.length - 1)];
  const none = !rows.length || !columns.length;
  const [one, two] = none ? [null, null] : [rows[at[2]], columns[at[3]]];
  return { at, rowBin, columnBin, row: one, column: two, value: none ? 0 : sampleValue(map, one, two) };
}

function update(changes) {
  state = Object.freeze(settle({ ...state, ...changes }));
  if (awaited) return;
  awaited = true;
  requestAnimationFrame(() => {
    awaited = false;
    show();
  });
}

let saving = 0;
function saveInAddress() {
  clearTimeout(saving);
  saving = setTimeout(() => {
    const hash = toHash(state);
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }, 150);
}

function show() {
  const map = featureMap(state.map, IMAGE / state.stride);
  const before = scene;
  scene = sceneOf(state, map);
  scene.choice = choiceOf(scene, state.at);
  const margin = MARGIN / state.stride;
  // All sizes are read before anything is written, so that the browser lays out once.
  const side = $("stage").clientWidth;
  const sides = [...document.querySelectorAll(".card canvas")].map((canvas) => canvas.clientWidth);
  drawStage(before, { x: -margin, y: -margin, side, cells: SPAN / state.stride });
  showControls(state);
  $("name").textContent = `${POOLERS[state.pooler].title}, ${variant(state)}`;
  $("about").textContent = about(state);
  $("seen").textContent = seen(state, scene);
  $("figures").replaceChildren(...figures(state, scene).flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  showOutput();
  showReading();
  showCards(map, sides);
  saveInAddress();
}

function drawStage(before, view) {
  const shown = scene;
  const draw = (plan) => {
    const choice = plan === shown.plan ? shown.choice : null; // it appears when all has arrived
    drawScene($("stage"), view, { ...shown, plan, choice }, colours, true);
  };
  const reread = before && POOLING.some((name) => before.settings[name] !== state[name]);
  glide(reread ? before.plan : null, shown.plan, draw);
}

function showOutput() {
  const size = scene.values.length;
  const body = $("output").tBodies[0];
  $("output").className = size > 7 ? "many" : size > 4 ? "some" : "";
  const [i, j] = scene.choice.at;
  if (body.rows.length !== size) {
    body.replaceChildren(...range(size).map((row) => element("tr", {}, ...range(size).map((column) =>
      element("td", { id: `bin-${row}-${column}` })))));
  }
  scene.values.forEach((values, row) => values.forEach((value, column) => {
    const cell = body.rows[row].cells[column];
    cell.textContent = number(value);
    cell.setAttribute("aria-selected", String(row === i && column === j));
    cell.style.background = colours.shade(value);
  }));
  $("output").setAttribute("aria-activedescendant", `bin-${i}-${j}`);
}

function showReading() {
  const { choice, plan } = scene;
  const [i, j] = choice.at;
  const table = $("reading");
  const head = `Bin ${i + 1}, ${j + 1}`;
  if (!choice.row) {
    table.replaceChildren();
    $("which").textContent = head;
    $("sum").textContent = "Nothing of the map lies in this bin: its output is 0.";
    return;
  }
  const count = choice.rowBin.samples.length * choice.columnBin.samples.length;
  const place = choice.at[2] * choice.columnBin.samples.length + choice.at[3] + 1;
  $("which").textContent = count === 1 ? head : `${head}: ${place} of ${count}`;
  const columns = choice.column.taps.filter(([, weight]) => weight !== 0);
  const rows = choice.row.taps.filter(([, weight]) => weight !== 0);
  const title = element("tr", {}, element("th"), ...columns.map(([x]) => element("th", { textContent: `column ${x}`, scope: "col" })));
  table.replaceChildren(title, ...rows.map(([y, wy]) => element("tr", {},
    element("th", { textContent: `row ${y}`, scope: "row" }),
    ...columns.map(([x, wx]) => tapCell(scene.map[y][x], wy * wx)))));
  $("sum").textContent = sumWords(choice, plan.agg, count, rows.length * columns.length);
}

function tapCell(value, weight) {
  const cell = element("td", { textContent: `${number(value)} × ${number(weight, 3)}` },
    element("small", { textContent: `= ${number(value * weight, 3)}` }));
  cell.style.background = colours.shade(value);
  return cell;
}

function sumWords(choice, agg, count, taps) {
  const [i, j] = choice.at;
  const output = number(scene.values[i][j], 3);
  if (state.pooler === "pool") {
    return `The cell's value is ${number(choice.value, 3)}; the largest of ${counted(count, "cell")} is ${output}.`;
  }
  if (state.pooler === "prroi") return `Together ${output}: the mean over the bin's area.`;
  const where = `(${number(choice.column.point)}, ${number(choice.row.point)})`;
  if (!taps) return `The point ${where} lies off the map and counts as 0; the bin's output is ${output}.`;
  const taken = { avg: "average", max: "largest" }[agg];
  return `Together ${number(choice.value, 3)} at (x, y) = ${where} cells. The ${taken} of the bin's ` +
    `${counted(count, "point")} is ${output}.`;
}

// One view for the three, so that they compare: the box and two cells around it, as a square.
function cardView(side) {
  const [x1, y1, x2, y2] = scene.plan.box;
  const cells = Math.max(x2 - x1, y2 - y1) + 4;
  return { x: (x1 + x2 - cells) / 2, y: (y1 + y2 - cells) / 2, side, cells };
}

function makeCards() {
  $("cards").append(...CARDS.map((pooler) => {
    const card = element("button", { type: "button", className: "card", id: `card-${pooler}` });
    const title = element("span", {}, element("strong", { textContent: POOLERS[pooler].title }),
      element("span", { className: "how" }));
    const below = element("span", { className: "below" }, element("canvas"),
      element("span", { className: "tally" }));
    card.append(title, element("canvas"), below);
    card.addEventListener("click", () => update({ pooler }));
    return card;
  }));
}

function showCards(map, sides) {
  CARDS.forEach((pooler, k) => {
    const card = $(`card-${pooler}`);
    const other = { ...state, pooler };
    const shown = { ...sceneOf(other, map), choice: null };
    const [picture, output] = card.querySelectorAll("canvas");
    drawScene(picture, cardView(sides[2 * k]), shown, colours);
    drawOutput(output, sides[2 * k + 1], shown.values, colours);
    card.setAttribute("aria-pressed", String(pooler === state.pooler));
    card.querySelector(".how").textContent = variant(settle(other));
    const { mapped, cut, foreign } = shown.coverage.counts;
    const tally = [["Lost", counted(mapped + cut, "cell")], ["From outside", counted(foreign, "cell")],
      ["Shift", shiftWords(shown.shift)]];
    card.querySelector(".tally").replaceChildren(...tally.map(([name, value]) =>
      element("span", { textContent: `${name}: ` }, element("b", { textContent: value }))));
  });
}
