"use strict";
// The theme, the first drawing, and what redraws it.

function useTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const other = theme === "dark" ? "light" : "dark";
  $("theme").textContent = other[0].toUpperCase() + other.slice(1);
  $("theme").setAttribute("aria-label", `Use the ${other} theme`);
  colours = palette();
  update({});
}

function followTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const preferred = () => (dark.matches ? "dark" : "light");
  let chosen = null;
  useTheme(preferred());
  dark.addEventListener("change", () => chosen || useTheme(preferred()));
  $("theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    useTheme(chosen);
  });
}

makeControls(update, () => state);
makeCards();
followPointers($("stage"));
followKeys();
followButtons();
followTheme();
new ResizeObserver(() => update({})).observe($("stage"));
addEventListener("hashchange", ({ newURL }) => update(fromHash(new URL(newURL).hash)));
show();

window.lab = { state: () => state, shown: () => scene };
