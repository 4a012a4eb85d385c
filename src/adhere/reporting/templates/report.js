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

  // Sensitive texts: the button shows and blurs all of a case; a click or Enter on one shows them.
  const lift = (item, shown) => {
    item.classList.toggle("shown", shown);
    const reveal = item.querySelector(".reveal");
    reveal.setAttribute("aria-pressed", String(shown));
    reveal.textContent = shown ? "Blur sensitive text" : "Show sensitive text";
  };
  for (const reveal of document.querySelectorAll(".reveal")) {
    reveal.hidden = false;
    const item = reveal.closest(".case");
    reveal.addEventListener("click", () => lift(item, !item.classList.contains("shown")));
    const show = (event) => {
      if (item.classList.contains("shown") || !event.target.closest(".text.veil")) return;
      event.preventDefault();
      lift(item, true);
    };
    item.addEventListener("click", show);
    item.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") show(event);
    });
  }

  // Search, menus and open all.
  const tools = document.querySelector(".tools");
  if (!tools) return;
  tools.hidden = false;
  const rows = [];  // one entry an answer; texts are read when first searched
  const cases = [...document.querySelectorAll(".case")];
  for (const item of cases) {
    for (const answer of item.querySelectorAll(".answer")) {
      rows.push({ item, answer, text: null });
    }
  }
  const head = new Map();
  const headOf = (item) => {
    if (!head.has(item)) {
      const parts = item.querySelectorAll("summary > .case-id, summary > .chip, .text.prompt");
      head.set(item, [...parts].map((part) => part.textContent).join(" ").toLowerCase());
    }
    return head.get(item);
  };
  const textOf = (row) => {
    if (row.text === null) row.text = row.answer.textContent.toLowerCase();
    return row.text;
  };
  const search = document.getElementById("filter");
  const menus = [...tools.querySelectorAll("select")];
  const found = document.getElementById("found");
  const clear = document.getElementById("clear");
  const fits = (row, by, value) => {
    if (by === "l") return row.item.dataset.l === value;
    return (row.answer.dataset[by] || "").split(" ").includes(value);
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const asked = menus.filter((menu) => menu.value !== "");
    const left = new Set();
    let count = 0;
    for (const row of rows) {
      const match = asked.every((menu) => fits(row, menu.dataset.by, menu.value)) &&
        words.every((word) => headOf(row.item).includes(word) || textOf(row).includes(word));
      row.answer.hidden = !match;
      if (match) { left.add(row.item); count += 1; }
    }
    for (const item of cases) item.hidden = !left.has(item);
    clear.hidden = !words.length && !asked.length;
    found.textContent = "Showing " + count.toLocaleString("en") + " of " +
      rows.length.toLocaleString("en") + " rows on this page";
  };
  search.addEventListener("input", filter);
  for (const menu of menus) menu.addEventListener("change", filter);
  clear.addEventListener("click", () => {
    search.value = "";
    for (const menu of menus) menu.value = "";
    filter();
    search.focus();
  });
  filter();
  const unfold = document.getElementById("unfold");
  unfold.addEventListener("click", () => {
    const open = unfold.getAttribute("aria-pressed") !== "true";
    for (const item of cases) item.open = open;
    unfold.setAttribute("aria-pressed", String(open));
    unfold.textContent = open ? "Close all" : "Open all";
  });
})();
