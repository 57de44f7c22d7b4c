"use strict";
// The page is complete without this script. It sorts tables and reads the points of charts.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.ariaSort === "descending" ? 1 : -1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.ariaSort = sign < 0 ? "descending" : "ascending";
      body.append(...[...body.rows].sort((one, other) => {
        const a = key(one, column), b = key(other, column);
        if (!a || !b) return !a - !b; // without a value: last
        return sign * a.localeCompare(b, "en", {numeric: true}) || 0;
      }));
    });
  });
}
for (const chart of document.querySelectorAll("svg.chart")) {
  const [left, top, right, bottom] = chart.dataset.area.split(" ").map(Number);
  const [x0, x1, y0, y1] = chart.dataset.range.split(" ").map(Number);
  const points = [...chart.querySelectorAll("polyline")].flatMap(line =>
    [...line.points].map(point => ({x: point.x, y: point.y, name: line.dataset.name, shift: Number(line.dataset.shift)})));
  if (!points.length) continue;
  const cursor = chart.querySelector(".cursor"), output = document.createElement("output");
  chart.after(output);
  const round = value => String(Number(value.toPrecision(3)));
  const show = point => {
    const along = (point.x - left) / (right - left), up = (bottom - point.y) / (bottom - top);
    const x = chart.dataset.log ? x0 * (x1 / x0) ** along : x0 + along * (x1 - x0);
    cursor.setAttribute("cx", point.x + point.shift);
    cursor.setAttribute("cy", point.y);
    cursor.removeAttribute("visibility");
    const [xName, yName] = chart.dataset.names.split("|");
    output.textContent = `${point.name && point.name + ": "}${xName} ${round(x)}, ${yName} ${round(y0 + up * (y1 - y0))}`;
  };
  let shown = -1;
  chart.addEventListener("pointermove", event => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
    const far = point => Math.hypot(point.x + point.shift - at.x, point.y - at.y);
    shown = points.reduce((best, point, i) => far(point) < far(points[best]) ? i : best, 0);
    show(points[shown]);
  });
  chart.tabIndex = 0;
  chart.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    shown = Math.min(Math.max(shown + step, 0), points.length - 1);
    show(points[shown]);
  });
}
