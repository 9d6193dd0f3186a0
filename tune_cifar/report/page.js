// Draws the figures in the colours of the page, and sorts and filters the table of trials.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const darkColours = JSON.parse(document.getElementById("dark-colours").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const drawn = new Set();
  let printing = false; // on paper, which is white

  function inColoursOfPage(value) {
    if (typeof value === "string") return (dark.matches && !printing && darkColours[value]) || value;
    if (Array.isArray(value)) return value.map(inColoursOfPage);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, inColoursOfPage(part)]));
  }

  function draw(node) {
    const figure = inColoursOfPage(figures[node.dataset.figure]);
    if (drawn.has(node) && figure.data[0].type === "parcoords") {
      // A change of colours keeps what is brushed.
      figure.data[0].dimensions.forEach((dimension, i) => {
        dimension.constraintrange = node.data[0].dimensions[i].constraintrange;
      });
    }
    // A finger that moves over a plot scrolls the page.
    figure.layout.dragmode = coarse.matches ? false : "zoom";
    const options = { responsive: true, displayModeBar: false };
    Plotly.react(node, figure.data, figure.layout, options);
    drawn.add(node);
  }

  function drawWithin(part) {
    for (const node of part.querySelectorAll(".plot")) {
      if (!drawn.has(node) && !node.closest("[hidden]")) draw(node);
    }
  }

  const hasWebGL = Boolean(document.createElement("canvas").getContext("webgl"));
  for (const node of document.querySelectorAll(".plot[data-webgl]")) {
    if (!hasWebGL) {
      node.closest(".scroll").hidden = true;
      document.getElementById("no-webgl").hidden = false;
    }
  }

  for (const tabs of document.querySelectorAll(".tabs")) {
    const buttons = [...tabs.querySelectorAll("button")];
    const choose = (chosen) => {
      for (const button of buttons) {
        button.setAttribute("aria-selected", String(button === chosen));
        document.getElementById(button.getAttribute("aria-controls")).hidden = button !== chosen;
      }
      drawWithin(document.getElementById(chosen.getAttribute("aria-controls")));
    };
    for (const button of buttons) button.addEventListener("click", () => choose(button));
  }

  drawWithin(document);
  dark.addEventListener("change", () => drawn.forEach(draw));
  for (const [event, onPaper] of [["beforeprint", true], ["afterprint", false]]) {
    window.addEventListener(event, () => {
      printing = onPaper;
      if (dark.matches) drawn.forEach(draw);
    });
  }

  const table = document.getElementById("trials");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const words = document.getElementById("filter");
  const status = document.getElementById("status");
  const told = document.getElementById("shown");
  const wordsOf = (row) => [...row.cells].map((cell) => cell.textContent).join("\n").toLowerCase();
  const texts = new Map(rows.map((row) => [row, wordsOf(row)]));
  let brushed = null;

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const keep =
        wanted.every((word) => texts.get(row).includes(word)) &&
        (!status.value || row.dataset.status === status.value) &&
        (!brushed || brushed.has(Number(row.dataset.number)));
      row.hidden = !keep;
      shown += keep;
    }
    const why = brushed ? ", brushed in the parallel coordinates" : "";
    told.textContent = `${shown} of ${rows.length} shown${why}`;
  }

  function sort(header) {
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => row.cells[header.cellIndex].textContent;
    const isNumber = header.classList.contains("number");
    const compare = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === ""); // a trial without a value comes last either way
      const order = isNumber ? Number(a) - Number(b) : a.localeCompare(b);
      return descending ? -order : order;
    };
    body.append(...rows.sort(compare));
  }

  function trialsWithin(trace) {
    const brushes = trace.dimensions.filter((dimension) => dimension.constraintrange?.length);
    if (!brushes.length) return null;
    const isWithin = (dimension, i) => {
      const range = dimension.constraintrange;
      const ranges = Array.isArray(range[0]) ? range : [range];
      return ranges.some(([low, high]) => low <= dimension.values[i] && dimension.values[i] <= high);
    };
    return new Set(trace.customdata.filter((_, i) => brushes.every((dimension) => isWithin(dimension, i))));
  }

  words.addEventListener("input", filter);
  status.addEventListener("change", filter);
  for (const header of table.tHead.rows[0].cells) header.firstElementChild.addEventListener("click", () => sort(header));
  for (const node of document.querySelectorAll(".plot[data-webgl]")) {
    if (!drawn.has(node)) continue;
    node.on("plotly_restyle", () => {
      brushed = trialsWithin(node.data[0]);
      filter();
    });
  }
  filter();
})();
