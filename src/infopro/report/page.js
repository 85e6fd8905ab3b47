"use strict";
// draws each figure from the two JSON elements of the page; asks nothing of any network
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const specs = read("specs");
  const record = read("series");
  const unpacked = ({ names, columns }) => { // the inverse of packed() in _html.py
    const values = columns.map((column) => column.texts ? column.at.map((index) => column.texts[index]) : column);
    const size = values.length ? values[0].length : 0;
    return Array.from({ length: size }, (_, row) => Object.fromEntries(names.map((name, i) => [name, values[i][row]])));
  };
  for (const key of Object.keys(record.series)) record.series[key] = unpacked(record.series[key]);
  if (record.runs) record.runs = unpacked(record.runs);
  const narrow = matchMedia("(max-width: 640px)");
  const link = (type, text) => `data:${type};charset=utf-8,${encodeURIComponent(text)}`;
  const columnsOf = (rows) => Object.keys(rows[0] ?? {});

  const longestName = (node) => { // characters of the longest entry of a legend
    if (node === null || typeof node !== "object") return 0;
    const own = (node.color?.scale?.domain ?? []).map((name) => String(name).length);
    return Math.max(0, ...own, ...Object.values(node).map(longestName));
  };

  const fitted = (key, width) => {
    const spec = structuredClone(specs[key]);
    spec.datasets = { [key]: record.series[key] };
    spec.config.legend.columns = Math.max(1, Math.min(4, Math.floor(width / (7 * longestName(specs[key]) + 40))));
    if (narrow.matches) {
      spec.config.title.fontSize = 14;
      spec.config.legend.layout = { top: { direction: "vertical", anchor: "start" } };
    }
    for (const parameter of spec.params ?? []) {
      const choice = document.querySelector(`select[data-parameter="${CSS.escape(parameter.name)}"]`);
      if (choice) parameter.value = Number(choice.value);
    }
    if (spec.facet) { // a grid of panels has no "container" width of its own
      const panels = spec.usermeta.panels;
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

  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const choices = [...document.querySelectorAll("select[data-parameter]")];
  for (const choice of choices) {
    choice.addEventListener("change", () => {
      const name = choice.dataset.parameter;
      for (const other of choices) if (other.dataset.parameter === name) other.value = choice.value;
      for (const figure of figures) {
        if ((specs[figure.id].params ?? []).some((parameter) => parameter.name === name)) draw(figure);
      }
    });
  }
  for (const figure of figures) {
    draw(figure);
    narrow.addEventListener("change", () => draw(figure));
    figure.querySelector("a[download]").href = link("text/csv", csv(record.series[figure.id]));
    figure.querySelector("details").addEventListener("toggle", () => fillTable(figure));
  }
  document.getElementById("all-data").href = link("application/json", JSON.stringify(record, null, 1));
})();
