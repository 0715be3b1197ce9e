// The page History: plots of what its tables have. The values under the cursor stand in the legend.

import { clock, colour, iso, makePlot, number, whenLooksChange } from "./plot.js";

const DAY = 86400;
const DASHES = [[], [8, 4], [2, 3], [12, 3, 2, 3], [5, 5], [1, 5]];

const plots = [];
const byId = (id) => document.getElementById(id);
const series = byId("series") && JSON.parse(byId("series").content.textContent);

// Midnight is told by its day.
const label = (seconds, step) =>
  step >= DAY || seconds % DAY === 0 ? iso(seconds).slice(5, 10) : clock(seconds);

// A value between two gaps makes no line.
function alone(plot, number) {
  const values = plot.data[number];
  return values.flatMap((value, n) =>
    value !== null && (values[n - 1] ?? null) === null && (values[n + 1] ?? null) === null ? [n] : [],
  );
}

function show(figure) {
  const place = figure.querySelector("[data-chart]");
  const values = series.charts[place.dataset.chart];
  const items = [...figure.querySelectorAll(".legend li")];
  const lines = items.map((item, n) => {
    const hue = colour(item, "--hue");
    const fill = items.length === 1 ? `color-mix(in srgb, ${hue} 14%, transparent)` : undefined;
    return { stroke: hue, width: 1.5, dash: DASHES[n], fill, points: { show: true, size: 5, filter: alone } };
  });
  const plot = makePlot(place, [series.times, ...values], lines, label);
  plot.over.addEventListener("mouseleave", () => say(figure, items, null, values));
  plot.over.addEventListener("mousemove", () => say(figure, items, plot.cursor.idx, values));
  plots.push(plot);
}

function say(figure, items, at, values) {
  const known = at !== null && at !== undefined;
  figure.querySelector(".when").textContent = known ? iso(series.times[at]).slice(0, 16) + "Z" : "";
  items.forEach((item, n) => {
    const value = known ? values[n][at] : "";
    item.querySelector(".value").textContent = value === null ? "–" : number(value);
  });
}

function showAll() {
  byId("plots").hidden = false;
  for (const plot of plots.splice(0)) plot.destroy();
  for (const figure of document.querySelectorAll("figure.plot")) show(figure);
}

if (series) {
  whenLooksChange(showAll);
  showAll();
}
