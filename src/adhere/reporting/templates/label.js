// One item at a time; answers stay in this browser until they are saved to a file.
"use strict";
(() => {
  const by = (id) => document.getElementById(id);
  const data = JSON.parse(by("data").textContent);
  const items = data.items;
  const words = { YES: "followed", NO: "violated", NA: "does not apply" };
  const keys = { y: "YES", n: "NO", a: "NA", s: "" };
  const recall = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const keep = (key, value) => { try { localStorage.setItem(key, value); return true; } catch { return false; } };

  // Theme, as in the report; "#theme=dark" in the address decides too.
  const themes = ["auto", "light", "dark"];
  const theme = by("theme");
  const dress = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
    theme.textContent = "Theme: " + name;
    theme.dataset.now = name;
  };
  const asked = (location.hash.match(/theme=(\w+)/) || [])[1] || recall("adhere-theme");
  dress(themes.includes(asked) ? asked : "auto");
  theme.addEventListener("click", () => {
    dress(themes[(themes.indexOf(theme.dataset.now) + 1) % themes.length]);
    keep("adhere-theme", theme.dataset.now);
  });

  // What was answered here before.
  const store = "adhere-label-" + data.key;
  const answers = new Map();
  const revealed = new Set();
  let unsaved = false;
  let at = 0;
  try {
    const old = JSON.parse(recall(store)) || {};
    for (const item of items) if (Object.hasOwn(words, (old.answers || {})[item.id])) answers.set(item.id, old.answers[item.id]);
    if (typeof old.labeler === "string" && !by("labeler").value) by("labeler").value = old.labeler;
    unsaved = answers.size > 0;
  } catch { /* nothing usable is kept */ }

  const lines = () => {
    const labeler = by("labeler").value.trim();
    return items.filter((item) => answers.has(item.id))
      .map((item) => JSON.stringify({ item: item.id, mark: answers.get(item.id), ...(labeler && { labeler }) }) + "\n").join("");
  };
  const remember = () => {
    const kept = keep(store, JSON.stringify({ answers: Object.fromEntries(answers), labeler: by("labeler").value }));
    by("kept").textContent = kept
      ? "Your answers are kept in this browser; save them to a file when you are done."
      : "This browser keeps nothing for this page: save your answers before you close it.";
    by("answers").value = lines();
  };

  const hidden = () => items[at].sensitive && !revealed.has(items[at].id);
  const veil = () => {
    by("guard").hidden = !hidden();
    by("texts").classList.toggle("veil", hidden());
    by("texts").toggleAttribute("inert", hidden());
  };
  const reveal = () => { revealed.add(items[at].id); by("hint").textContent = ""; veil(); };

  const progress = () => {
    const bar = document.querySelector(".bar");
    bar.setAttribute("aria-valuenow", String(answers.size));
    by("fill").style.width = items.length ? (100 * answers.size) / items.length + "%" : "0";
    for (const button of document.querySelectorAll(".save")) button.disabled = answers.size === 0;
  };
  const show = () => {
    const done = at >= items.length;
    by("work").hidden = done;
    by("done").hidden = !done;
    progress();
    if (done) { finish(); return; }
    const item = items[at];
    const mark = answers.get(item.id);
    by("place").textContent = "Item " + (at + 1) + " of " + items.length + " · " + answers.size + " answered";
    by("state").textContent = mark ? "You said: " + words[mark] : "no answer yet";
    by("state").className = mark ? mark.toLowerCase() : "none";
    by("rule").textContent = item.rule;
    by("rule").classList.toggle("long", item.rule.length > 220);
    const turns = item.messages.map((message) => {
      const turn = document.createElement("div");
      if (items[at].messages.length > 1 || message.role !== "user") {
        const role = document.createElement("small");
        role.textContent = message.role;
        turn.append(role);
      }
      const text = document.createElement("div");
      text.className = "text";
      text.dir = "auto";
      text.textContent = message.text;
      turn.append(text);
      return turn;
    });
    by("prompt").replaceChildren(...turns);
    by("response").textContent = item.response;
    for (const button of document.querySelectorAll("[data-mark]")) {
      button.setAttribute("aria-pressed", String(Boolean(mark) && button.dataset.mark === mark));
    }
    by("back").disabled = at === 0;
    by("open").hidden = answers.size === items.length;
    by("hint").textContent = "";
    veil();
    scrollTo(0, 0);
  };
  const finish = () => {
    const left = items.length - answers.size;
    by("h-done").textContent = left ? answers.size + " of " + items.length + " answered" : "All " + items.length + " answered. Thank you.";
    by("left").textContent = left ? left + " without an answer: you can go back to them, or save what there is." : "Save the answers to a file and send it back.";
    by("file").textContent = data.file;
    by("done").focus();
  };

  const go = (to) => { at = Math.max(0, Math.min(items.length, to)); show(); };
  const unanswered = (from) => {
    for (let i = from; i < items.length; i += 1) if (!answers.has(items[i].id)) return i;
    return -1;
  };
  const answer = (mark) => {
    if (at >= items.length) return;
    if (mark && hidden()) { by("hint").textContent = "Show the texts first (Enter), or skip."; return; }
    if (mark) answers.set(items[at].id, mark); else answers.delete(items[at].id);
    unsaved = answers.size > 0;
    remember();
    const next = unanswered(at + 1);
    go(next < 0 ? items.length : next);
  };
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines()], { type: "application/jsonl" }));
    link.download = data.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    unsaved = false;
  };

  for (const button of document.querySelectorAll("[data-mark]")) button.addEventListener("click", () => answer(button.dataset.mark));
  for (const button of document.querySelectorAll(".save")) button.addEventListener("click", save);
  by("back").addEventListener("click", () => go(at - 1));
  by("next").addEventListener("click", () => go(at + 1));
  by("open").addEventListener("click", () => { const next = unanswered(at + 1); go(next < 0 ? unanswered(0) : next); });
  by("return").addEventListener("click", () => go(Math.max(0, unanswered(0))));
  by("reveal").addEventListener("click", reveal);
  by("guard").addEventListener("click", reveal);
  document.querySelector(".read").addEventListener("click", () => { if (at < items.length && hidden()) reveal(); });
  by("labeler").addEventListener("input", remember);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea")) return;
    if (Object.hasOwn(keys, event.key.toLowerCase())) { event.preventDefault(); answer(keys[event.key.toLowerCase()]); }
    else if (event.key === "ArrowLeft") go(at - 1);
    else if (event.key === "ArrowRight" && at < items.length) go(at + 1);
    else if (event.key === "Enter" && at < items.length && hidden() && !event.target.closest?.("summary, button:not([data-mark])")) { event.preventDefault(); reveal(); }
  });
  // Only where the browser could not keep them: otherwise nothing is lost by closing.
  addEventListener("beforeunload", (event) => { if (unsaved && recall(store) === null) event.preventDefault(); });

  remember();
  const first = unanswered(0);
  go(first < 0 ? items.length : first);
})();
