"use strict";
// draws each figure from the two JSON elements of the page; asks nothing of any network
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const specs = read("specs");
  const record = read("series");
  const narrow = matchMedia("(max-width: 640px)");
  const link = (type, text) => `data:${type};charset=utf-8,${encodeURIComponent(text)}`;
  const columnsOf = (rows) => Object.keys(rows[0] ?? {});

  const fitted = (key, width) => {
    const spec = structuredClone(specs[key]);
    spec.datasets = { [key]: record.series[key] };
    spec.config.legend.columns = narrow.matches ? 1 : 4;
    if (spec.facet) { // a grid of panels has no "container" width of its own
      const panels = new Set(record.series[key].map((row) => row.panel)).size;
      spec.columns = narrow.matches ? 1 : Math.min(4, panels);
      spec.spec.width = Math.floor((width - 50) / spec.columns) - 24;
    }
    return spec;
  };

  const draw = async (figure) => {
    const box = figure.querySelector(".chart");
    const actions = { export: true, source: false, compiled: false, editor: false };
    const options = { renderer: "svg", ast: true, actions, downloadFileName: figure.id };
    try {
      await vegaEmbed(box, fitted(figure.id, box.clientWidth), options);
    } catch (error) {
      box.textContent = `This chart could not be drawn: ${error.message}. Its numbers are below.`;
    }
  };

  const csv = (rows) => {
    const quoted = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
    const names = columnsOf(rows);
    return [names, ...rows.map((row) => names.map((name) => row[name]))]
      .map((cells) => cells.map(quoted).join(",")).join("\r\n");
  };

  const fillTable = (figure) => {
    const table = figure.querySelector("table");
    if (table.rows.length) return;
    const rows = record.series[figure.id];
    const names = columnsOf(rows);
    const head = table.createTHead().insertRow();
    for (const name of names) {
      const cell = head.appendChild(document.createElement("th"));
      cell.scope = "col";
      cell.textContent = name.replaceAll("_", " ");
    }
    const body = table.createTBody();
    for (const row of rows) {
      const line = body.insertRow();
      for (const name of names) {
        const value = row[name];
        const fractional = typeof value === "number" && !Number.isInteger(value);
        line.insertCell().textContent = value === null ? "–" : fractional ? value.toPrecision(5) : value;
      }
    }
  };

  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    draw(figure);
    narrow.addEventListener("change", () => draw(figure));
    figure.querySelector("a[download]").href = link("text/csv", csv(record.series[figure.id]));
    figure.querySelector("details").addEventListener("toggle", () => fillTable(figure));
  }
  document.getElementById("all-data").href = link("application/json", JSON.stringify(record, null, 1));
})();
