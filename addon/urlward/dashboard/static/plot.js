// What the plots of all pages share: how times and numbers are written, and how axes look.

export const iso = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ") + "Z";
export const clock = (seconds) => iso(seconds).slice(11, 16);

const DECIMAL = document.documentElement.dataset.decimal;

// As the server writes it, whatever the browser's language.
export const grouped = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f");
export const number = (value) => {
  const [whole, part] = String(value).split(".");
  return part ? grouped(whole) + DECIMAL + part : grouped(whole);
};

export function colour(element, name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

export function makePlot(place, data, series, times) {
  const quiet = colour(place, "--quiet");
  const line = colour(place, "--line");
  const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const options = {
    width: place.clientWidth,
    height: place.clientHeight,
    pxAlign: 1,
    legend: { show: false },
    cursor: { points: { size: 6 }, drag: { x: false, y: false } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1) * 1.1] } },
    axes: [
      { ...axis, size: 28, space: 70, values: (_, ticks, axis, room, step) => ticks.map((tick) => times(tick, step)) },
      { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => number(Number(tick.toFixed(3)))) },
    ],
    series: [{}, ...series],
  };
  return new uPlot(options, data, place);
}

// Plots are made for one width and one scheme.
export function whenLooksChange(remake) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", remake);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) remake();
    width = innerWidth;
  });
}
