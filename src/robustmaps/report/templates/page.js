"use strict";
(() => {
  // --- plots: entries of the legend switch series on and off, and marks tell what they are ---------------------------
  for (const key of document.querySelectorAll(".legend button")) {
    key.addEventListener("click", () => {
      key.setAttribute("aria-pressed", String(key.getAttribute("aria-pressed") !== "true"));
      const figure = key.closest("figure");
      const off = new Set([...figure.querySelectorAll('.legend [aria-pressed="false"]')].map((one) => one.dataset.key));
      for (const series of figure.querySelectorAll("[data-keys]")) {
        series.style.display = series.dataset.keys.split(" ").some((one) => off.has(one)) ? "none" : "";
      }
    });
  }
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const { left, right, top, bottom } = mark.getBoundingClientRect();
    const across = (left + right) / 2 - tip.offsetWidth / 2;
    tip.style.left = Math.max(8, Math.min(across, document.documentElement.clientWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = (top > tip.offsetHeight + 14 ? top - tip.offsetHeight - 8 : bottom + 8) + "px";
  });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not(.data):not([open])")];
    folded.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
})();

(() => {
  // --- tables ------------------------------------------------------------------------------------------------------
  const collator = new Intl.Collator(undefined, { numeric: true });
  function sortBy(table, header) {
    const column = header.cellIndex;
    const numeric = header.classList.contains("number");
    const before = header.getAttribute("aria-sort");
    // Figures begin with the largest: that is what a leaderboard is asked for.
    const direction = before === "none" ? (numeric ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const key = (row) => {
      const cell = row.cells[column];
      return numeric ? (cell.dataset.sort === undefined ? null : Number(cell.dataset.sort)) : cell.textContent;
    };
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what has no figure stays at the end
      return sign * (numeric ? a - b : collator.compare(a, b));
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    for (const header of table.tHead.rows[0].cells) {
      header.querySelector("button").addEventListener("click", () => sortBy(table, header));
    }
  }
  for (const input of document.querySelectorAll("input[data-filter]")) {
    const rows = [...document.getElementById("table-" + input.dataset.filter).tBodies[0].rows];
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const output = input.parentElement.querySelector("output");
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        row.hidden = !words.every((word) => texts.get(row).includes(word));
        shown += !row.hidden;
      }
      output.value = words.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
    });
  }
})();
