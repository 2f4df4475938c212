// A small line plot over batch sizes, as SVG: sizes double, so they stand evenly on a logarithmic axis.

import { element, short, svg } from "./dom.js";

const WIDTH = 280;
const HEIGHT = 150;
const MARGIN = { left: 42, right: 14, top: 12, bottom: 24 };
const LINES = 4;

/** Where the lines of a grid up to at least `most` are: at most five, at round numbers, from 0. */
export function levels(most) {
  const power = 10 ** Math.floor(Math.log10(most / LINES));
  const step = [1, 2, 2.5, 5, 10].find((round) => round * power * LINES >= most) * power;
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, index) => index * step);
}

/** Which of the sizes have room for a number below the axis. */
export function ticks(sizes, most = 6) {
  const every = Math.ceil(sizes.length / most);
  return sizes.filter((_, index) => (sizes.length - 1 - index) % every === 0);
}

/** `points` are {x: batch size, y}, in the order of x. */
export function plot(title, unit, points) {
  const lines = levels(Math.max(...points.map(({ y }) => y), 1e-6));
  const top = lines.at(-1);
  const ends = [points[0].x, points.at(-1).x].map(Math.log2);
  const span = ends[1] - ends[0];
  const across = WIDTH - MARGIN.left - MARGIN.right;
  const x = (size) => MARGIN.left + (span ? (Math.log2(size) - ends[0]) / span : 0.5) * across;
  const y = (value) => HEIGHT - MARGIN.bottom - (value / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);

  const grid = lines.flatMap((value) => [
    svg("line", { class: "grid", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(value), y2: y(value) }),
    svg("text", { class: "tick", x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, compact(value)),
  ]);
  const sizes = ticks(points.map((point) => point.x)).map((size) =>
    svg("text", { class: "tick", x: x(size), y: HEIGHT - 6, "text-anchor": "middle" }, String(size)),
  );
  const line = svg("polyline", { class: "line", points: points.map((one) => `${x(one.x)},${y(one.y)}`).join(" ") });
  const dots = points.map((one) =>
    svg("circle", { class: "dot", cx: x(one.x), cy: y(one.y), r: 3.5 },
      svg("title", {}, `batch ${one.x}: ${short(one.y)} ${unit}`)),
  );
  const summary = points.map((one) => `${short(one.y)} at batch size ${one.x}`).join(", ");
  const label = `${title} in ${unit}: ${summary}`;
  return element(
    "figure",
    { class: "plot" },
    element("figcaption", {}, title, element("span", { class: "quiet" }, ` ${unit}`)),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, ...grid, ...sizes, line, ...dots),
  );
}

const compact = (value) =>
  new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value);
