// The page is whole without this script. It adds: a theme switch, a button that lifts the blur
// from sensitive texts, and a filter over the cases.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Theme: what the system says until the reader chooses. "#theme=dark" in the address decides too.
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  const remembered = () => { try { return localStorage.getItem("adhere-theme"); } catch { return null; } };
  const show = (theme) => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    button.textContent = "Theme: " + theme;
    button.dataset.now = theme;
  };
  const asked = (location.hash.match(/theme=(\w+)/) || [])[1] || remembered();
  show(themes.includes(asked) ? asked : "auto");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(button.dataset.now) + 1) % themes.length];
    show(next);
    try { localStorage.setItem("adhere-theme", next); } catch { /* private mode: not remembered */ }
  });

  // Sensitive texts.
  for (const reveal of document.querySelectorAll(".reveal")) {
    reveal.hidden = false;
    reveal.addEventListener("click", () => {
      const shown = reveal.closest(".case").classList.toggle("shown");
      reveal.setAttribute("aria-pressed", String(shown));
      reveal.textContent = shown ? "Blur sensitive text" : "Show sensitive text";
    });
  }

  // Filter and open all.
  const tools = document.querySelector(".tools");
  if (!tools) return;
  tools.hidden = false;
  const cases = [...document.querySelectorAll(".case")];
  const texts = new Map();
  const textOf = (item) => {
    if (!texts.has(item)) texts.set(item, item.textContent.toLowerCase());
    return texts.get(item);
  };
  const found = document.getElementById("found");
  document.getElementById("filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const item of cases) {
      item.hidden = !words.every((word) => textOf(item).includes(word));
      if (!item.hidden) left += 1;
    }
    found.textContent = words.length ? left + " of " + cases.length + " cases" : "";
  });
  const unfold = document.getElementById("unfold");
  unfold.addEventListener("click", () => {
    const open = unfold.getAttribute("aria-pressed") !== "true";
    for (const item of cases) item.open = open;
    unfold.setAttribute("aria-pressed", String(open));
    unfold.textContent = open ? "Close all" : "Open all";
  });
})();
