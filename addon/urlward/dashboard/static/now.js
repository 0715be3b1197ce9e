// The page Now, each second: figures, plots, and the table by minute for those who see no plot.

import { clock, colour, grouped, iso, makePlot, number, whenLooksChange } from "./plot.js";

const SPAN = 600;
const LATEST = 10;
const MEASURES = ["requests", "blocks", "latency", "stall"];
const DIGITS = { requests: 1, blocks: 1, latency: 2, stall: 1 };
const EVERY = 1000;
const SPOKEN_EVERY = 60;

const data = { seconds: [], requests: [], blocks: [], latency: [], stall: [] };
const plots = new Map();
let spokenAt = 0;

const byId = (id) => document.getElementById(id);
const words = byId("words") && JSON.parse(byId("words").content.textContent);
const toTheSecond = (seconds) => iso(seconds).slice(11, 19);

function figures(from, to) {
  const found = { requests: 0, blocks: 0, latency: 0, stall: 0 };
  let weight = 0;
  for (let n = from; n < to; n++) {
    found.requests += data.requests[n];
    found.blocks += data.blocks[n];
    found.stall = Math.max(found.stall, data.stall[n]);
    if (data.latency[n] !== null) {
      found.latency += data.latency[n] * data.requests[n];
      weight += data.requests[n];
    }
  }
  const count = Math.max(to - from, 1);
  found.requests /= count;
  found.blocks /= count;
  found.latency = weight ? found.latency / weight : null;
  return found;
}

const shown = (name, value) => (value === null ? "–" : number(value.toFixed(DIGITS[name])));
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

// A cell's label, where rows are narrow, is the heading of its column.
function labelsOf(body) {
  return [...body.closest("table").querySelectorAll("thead th")].map((head) => head.textContent);
}

function cells(values, labels) {
  const row = document.createElement("tr");
  values.forEach((value, n) => {
    const cell = document.createElement(n ? "td" : "th");
    if (!n) cell.scope = "row";
    else cell.dataset.label = labels[n];
    cell.append(value);
    row.append(cell);
  });
  return row;
}

function timeElement(text, machine) {
  const element = document.createElement("time");
  element.dateTime = machine;
  element.textContent = text;
  return element;
}

function showMinutes() {
  const rows = [];
  const labels = labelsOf(byId("minutes"));
  let from = 0;
  while (from < data.seconds.length) {
    const begin = data.seconds[from] - (data.seconds[from] % 60);
    let to = from;
    while (to < data.seconds.length && data.seconds[to] < begin + 60) to++;
    const found = figures(from, to);
    const time = timeElement(`${clock(begin)}Z`, new Date(begin * 1000).toISOString());
    rows.unshift(cells([time, ...MEASURES.map((name) => shown(name, found[name]))], labels));
    from = to;
  }
  if (rows.length) byId("minutes").replaceChildren(...rows);
}

function showWorkers(workers) {
  const labels = labelsOf(byId("workers"));
  const rows = workers.map((worker) =>
    cells([
      worker.name,
      timeElement(worker.since.replace("T", " "), worker.since),
      ...[worker.connections, worker.queue, worker.dropped].map(grouped),
    ], labels),
  );
  if (rows.length) byId("workers").replaceChildren(...rows);
}

function showLatest(now) {
  const latest = figures(Math.max(data.seconds.length - LATEST, 0), data.seconds.length);
  for (const name of MEASURES) {
    document.querySelector(`[data-latest="${name}"]`).textContent = shown(name, latest[name]);
  }
  document.querySelector('[data-latest="connections"]').textContent = grouped(now.connections);
  byId("as-of").hidden = !now.time;
  byId("nothing").hidden = Boolean(now.time);
  const time = byId("age").querySelector("time");
  if (now.time) {
    time.textContent = iso(now.time);
    time.dateTime = new Date(now.time * 1000).toISOString();
  }
  if (now.time - spokenAt >= SPOKEN_EVERY) {
    spokenAt = now.time;
    byId("spoken").textContent = filled(words.spoken, {
      requests: shown("requests", latest.requests),
      blocks: shown("blocks", latest.blocks),
    });
  }
}

function plotOf(place) {
  const name = place.dataset.plot;
  const hue = colour(place.closest(".plot"), "--hue");
  const fill = `color-mix(in srgb, ${hue} 14%, transparent)`;
  const line = { label: name, stroke: hue, width: 1.5, fill, points: { show: false } };
  return makePlot(place, [data.seconds, data[name]], [line], (tick, step) => (step < 60 ? toTheSecond : clock)(tick));
}

function showPlots() {
  byId("plots").hidden = false;
  for (const place of document.querySelectorAll("[data-plot]")) {
    if (!plots.has(place)) plots.set(place, plotOf(place));
    plots.get(place).setData([data.seconds, data[place.dataset.plot]]);
  }
}

function remakePlots() {
  for (const plot of plots.values()) plot.destroy();
  plots.clear();
  if (data.seconds.length) showPlots();
}

function take(now) {
  // The clock was set back: what was drawn is of times to come.
  if (now.time < data.seconds.at(-1)) for (const values of Object.values(data)) values.length = 0;
  for (const name of ["seconds", ...MEASURES]) data[name].push(...now[name]);
  const old = data.seconds.findIndex((second) => second > now.time - SPAN);
  if (old > 0) for (const values of Object.values(data)) values.splice(0, old);
}

async function look() {
  if (document.visibilityState !== "visible") return;
  const answer = await fetch(`/api/now?since=${data.seconds.at(-1) ?? 0}`, { redirect: "manual" });
  if (answer.status === 401) {
    byId("live-state").textContent = words.over;
    return;
  }
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const now = await answer.json();
  take(now);
  byId("live-state").textContent = words.live;
  if (!data.seconds.length) return;
  showLatest(now);
  showMinutes();
  showWorkers(now.workers);
  showPlots();
}

async function always() {
  try {
    await look();
  } catch {
    byId("live-state").textContent = words.lost;
  }
  setTimeout(always, EVERY);
}

if (byId("plots")) {
  whenLooksChange(remakePlots);
  always();
}
