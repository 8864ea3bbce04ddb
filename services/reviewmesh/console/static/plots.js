// Draws what the server wrote beside the table. The table has the same numbers and links, so the
// plots are hidden from screen readers, and a page without scripts lacks nothing.
const HEIGHT = 220;
const DASHES = [[], [8, 4], [2, 4], [12, 4, 2, 4], [4, 2]];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function options(plot, width) {
  const axis = {
    stroke: colour("--soft"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
  };
  return {
    width,
    height: HEIGHT,
    title: plot.title,
    cursor: { drag: { x: false, y: false }, focus: { prox: 24 } },
    focus: { alpha: 0.4 },
    scales: { y: { range: (u, low, high) => [Math.min(0, low), high > 0 ? high * 1.05 : 1] } },
    axes: [axis, { ...axis, size: 60 }],
    series: [
      { label: "from" },
      ...plot.series.map((one, number) => ({
        label: one.name,
        stroke: colour(`--plot-${(number % DASHES.length) + 1}`),
        dash: DASHES[number % DASHES.length],
        width: 2,
        points: { size: 6, fill: colour("--ground") },
        value: (u, value) => (value === null ? "none" : value.toLocaleString(undefined, { maximumFractionDigits: 1 })),
      })),
    ],
  };
}

function draw(place, shown) {
  place.replaceChildren();
  return shown.plots.map((plot) => {
    const figure = document.createElement("div");
    figure.className = "plot";
    place.append(figure);
    const data = [shown.at, ...plot.series.map((one) => one.values)];
    const made = new uPlot(options(plot, figure.clientWidth), data, figure);
    let focused = null;
    (made.hooks.setSeries ??= []).push((u, number) => (focused = number));
    made.over.addEventListener("click", () => {
      const at = made.cursor.idx;
      if (at === null || at === undefined) return;
      const links = plot.series[(focused ?? 0) - 1]?.links ?? shown.links;
      if (links[at]) location.assign(links[at]);
    });
    return [figure, made];
  });
}

const place = document.querySelector("[data-plots]");
if (place) {
  const shown = JSON.parse(place.dataset.plots);
  let drawn = draw(place, shown);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    drawn = draw(place, shown);
  });
  addEventListener("resize", () => {
    for (const [figure, made] of drawn) made.setSize({ width: figure.clientWidth, height: HEIGHT });
  });
}
