"use strict";
// The settings as groups of radio buttons, made from one table, and the box as four numbers.

const GROUPS = [
  {
    name: "pooler", title: "Pooler", wide: true,
    words: Object.fromEntries(Object.entries(POOLERS).map(([word, { title }]) => [word, title])),
  },
  { name: "rounding", title: "Rounding", words: { caffe: "Caffe", floor: "cut down" } },
  { name: "mode", title: "Form", words: { paper: "Mask R-CNN's", mnc: "MNC's" } },
  { name: "placement", title: "Points at", words: { uniform: "¼ and ¾", thirds: "thirds" } },
  { name: "stride", title: "Stride, pixels" },
  { name: "bins", title: "Bins a side" },
  { name: "samples", title: "Points a bin and side", words: { 0: "adaptive" } },
  { name: "agg", title: "A bin takes the", words: { avg: "average", max: "maximum" } },
  { name: "aligned", title: "Half-cell offset (aligned)", words: { true: "yes", false: "no" } },
  { name: "map", title: "Map" },
];

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

function radioGroup({ name, title, wide, words = {} }, choose) {
  const options = CHOICES[name].map((value) => {
    const input = element("input", { type: "radio", name, value: String(value), id: `${name}-${value}` });
    input.addEventListener("change", () => choose({ [name]: value }));
    return element("label", {}, input, element("span", { textContent: words[value] ?? String(value) }));
  });
  const segments = element("div", { className: "segments" }, ...options);
  const legend = element("legend", { textContent: title });
  return element("fieldset", { id: `group-${name}`, className: wide ? "wide" : "" }, legend, segments);
}

const BOX_FIELDS = ["x", "y", "w", "h"];

function makeControls(choose, current) {
  const form = document.getElementById("controls");
  form.append(...GROUPS.map((group) => radioGroup(group, choose)));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const field of BOX_FIELDS) {
    const input = document.getElementById(field);
    input.addEventListener("input", () => {
      const [x1, y1, x2, y2] = current().box;
      const typed = { x: x1, y: y1, w: x2 - x1, h: y2 - y1, [field]: input.valueAsNumber };
      if (!Object.values(typed).every(Number.isFinite)) return; // half a number: wait for the rest
      const { x, y, w, h } = typed;
      choose({ box: withinReach([x, y, x + w, y + h]) });
    });
    input.addEventListener("change", () => showBox(current().box));
  }
}

function showBox([x1, y1, x2, y2]) {
  const values = { x: x1, y: y1, w: x2 - x1, h: y2 - y1 };
  for (const field of BOX_FIELDS) {
    const input = document.getElementById(field);
    const typing = document.activeElement === input && input.valueAsNumber !== values[field];
    if (!typing || document.activeElement !== input) input.value = Math.round(values[field] * 100) / 100;
  }
}

function showControls(state) {
  for (const { name } of GROUPS) {
    document.getElementById(`group-${name}`).hidden = !relevant(state, name);
    document.getElementById(`${name}-${state[name]}`).checked = true;
  }
  document.getElementById("samples-0").disabled = state.pooler === "warp" && state.mode === "mnc";
  showBox(state.box);
}
