"use strict";
// Called when the page has been read; the tables below work before that.
function drawPlots() {
  // --- plots -------------------------------------------------------------------------------------------------------
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement;
  const drawn = new Set();
  const PRINT_WIDTH_PX = 680;

  // "$0/0.2" in a value whose key speaks of a colour stands for a colour of the page's present look.
  function tint(value, style) {
    const found = /^\$(\d|text|muted|grid|surface|good|bad)(?:\/([\d.]+))?$/.exec(value);
    if (!found) return value;
    const name = /\d/.test(found[1]) ? "c" + found[1] : found[1];
    const hex = style.getPropertyValue("--" + name).trim();
    if (!found[2]) return hex;
    const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return `rgba(${parts.join(",")},${found[2]})`;
  }
  function tinted(value, style, key = "") {
    if (Array.isArray(value)) return key && /colors?$/i.test(key) ? value.map((v) => tint(v, style)) : value.map((v) => (v && typeof v === "object" ? tinted(v, style) : v));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, tinted(v, style, k)]));
    return typeof value === "string" && /color$/i.test(key) ? tint(value, style) : value;
  }
  function layoutOf(chart, element, style) {
    const color = (name) => style.getPropertyValue("--" + name).trim();
    const narrow = element.clientWidth < 560;
    const axis = {
      gridcolor: color("grid"), linecolor: color("line"), zerolinecolor: color("grid"), automargin: true,
      title: { standoff: 10 }, ticks: "outside", tickcolor: color("line"), fixedrange: matchMedia("(pointer: coarse)").matches,
    };
    const given = tinted(chart.layout, style);
    const merge = (a, b) => {
      const both = { ...a };
      for (const [k, v] of Object.entries(b || {})) {
        both[k] = v && typeof v === "object" && !Array.isArray(v) && a[k] ? merge(a[k], v) : v;
      }
      return both;
    };
    const named = chart.traces.filter((trace) => trace.showlegend !== false).length;
    const wrapped = named * (narrow ? 1 : 0.34);
    const print = root.dataset.look === "print";
    return merge({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: color("text"), family: getComputedStyle(document.body).fontFamily, size: narrow ? 12 : 13 },
      margin: { l: narrow ? 8 : 16, r: narrow ? 8 : 20, t: 12, b: 12 },
      xaxis: axis, yaxis: axis, showlegend: true,
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, xanchor: "left", bgcolor: "rgba(0,0,0,0)" },
      hoverlabel: { bgcolor: color("surface"), bordercolor: color("muted"), font: { color: color("text") }, align: "left", namelength: -1 },
      height: chart.height_px + Math.round(20 * wrapped),
      width: print ? PRINT_WIDTH_PX : element.clientWidth,
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    }, given);
  }
  const CONFIG = { displaylogo: false, displayModeBar: matchMedia("(pointer: coarse)").matches ? false : "hover", responsive: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  function draw(chart) {
    const element = document.getElementById("plot-" + chart.name);
    const style = getComputedStyle(root);
    if (!drawn.has(chart)) element.replaceChildren();
    drawn.add(chart);
    const traces = tinted(chart.traces, style);
    // Long names would leave a narrow plot no room.
    if (element.clientWidth < 560) traces.forEach((trace) => { if (trace.mode === "markers+text") trace.mode = "markers"; });
    return Plotly.react(element, traces, layoutOf(chart, element, style), CONFIG);
  }
  const drawAll = () => charts.forEach(draw);
  const redraw = () => drawn.forEach(draw);

  // Plotly takes longer to start than all the rest, so the page is shown before; then the plots in sight are drawn, and
  // the others when they come near.
  function begin() {
    const library = document.createElement("script");
    library.textContent = document.getElementById("plotly").textContent;
    document.body.append(library);
    const waiting = new Map(charts.map((chart) => [document.getElementById("plot-" + chart.name), chart]));
    // It reports on all plots once, as soon as the page has been laid out: from then on those in sight are there.
    const observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        observer.unobserve(target);
        draw(waiting.get(target));
      }
      root.dataset.ready ||= String(Math.round(performance.now()));
    }, { rootMargin: "800px" });
    waiting.forEach((_, element) => observer.observe(element));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    let width = innerWidth, timer;
    addEventListener("resize", () => {
      clearTimeout(timer);
      timer = setTimeout(() => { if (innerWidth !== width) { width = innerWidth; redraw(); } }, 120);
    });
    let folded = [];
    addEventListener("beforeprint", () => {
      root.dataset.look = "print";
      folded = [...document.querySelectorAll("details:not(.data):not([open])")];
      folded.forEach((details) => { details.open = true; });
      drawAll();
    });
    addEventListener("afterprint", () => {
      delete root.dataset.look;
      folded.forEach((details) => { details.open = false; });
      redraw();
    });
  }
  requestAnimationFrame(() => setTimeout(begin));
}

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
