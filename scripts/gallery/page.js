"use strict";
const filters = document.getElementById("filters");
const cards = [...document.querySelectorAll("#images figure")];
const large = document.getElementById("large");
let current = null;

function fits(card, wanted) {
  const objects = Number(card.dataset.objects);
  const crowds = Number(card.dataset.crowds);
  return (!wanted.category || JSON.parse(card.dataset.categories).includes(wanted.category))
    && (wanted.least === "" || objects >= Number(wanted.least))
    && (wanted.most === "" || objects <= Number(wanted.most))
    && (!wanted.size || card.dataset.sizes.split(" ").includes(wanted.size))
    && (!wanted.crowd || (crowds > 0) === (wanted.crowd === "yes"))
    && (!wanted.empty || (objects === 0) === (wanted.empty === "yes"));
}

function filter() {
  const wanted = Object.fromEntries(new FormData(filters));
  for (const card of cards) card.hidden = !fits(card, wanted);
  const left = cards.filter((card) => !card.hidden).length;
  document.getElementById("count").textContent = `${left} of ${cards.length} images`;
  document.getElementById("none").hidden = left > 0;
}

function enlarge(card) {
  current = card;
  const image = card.querySelector("img");
  large.querySelector("img").src = image.src;
  large.querySelector("img").alt = image.alt;
  large.querySelector("p").textContent = card.querySelector("figcaption").innerText;
  if (!large.open) large.showModal();
}

function step(by) {
  const shown = cards.filter((card) => !card.hidden);
  enlarge(shown[(shown.indexOf(current) + by + shown.length) % shown.length]);
}

filters.addEventListener("input", filter);
filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("reset", () => setTimeout(filter));
for (const card of cards) {
  card.querySelector("button").addEventListener("click", () => enlarge(card));
}
large.addEventListener("click", (event) => {
  const by = event.target.dataset.step;
  if (event.target === large || by === "0") large.close();
  else if (by) step(Number(by));
});
large.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
filter();
