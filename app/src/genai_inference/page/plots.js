// A small line plot over batch sizes, as SVG: sizes double, so they stand evenly on a logarithmic axis.

import { element, short, svg } from "./dom.js";

const WIDTH = 280;
const HEIGHT = 150;
const MARGIN = { left: 42, right: 14, top: 12, bottom: 24 };
const LINES = 3;

/** The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `most`. */
export function ceiling(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return ([1, 2, 2.5, 5].find((step) => step * power >= most) ?? 10) * power;
}

/** Which of the sizes have room for a number below the axis. */
export function ticks(sizes, most = 6) {
  const every = Math.ceil(sizes.length / most);
  return sizes.filter((_, index) => (sizes.length - 1 - index) % every === 0);
}

/** `points` are {x: batch size, y}, in the order of x. */
export function plot(title, unit, points) {
  const top = ceiling(Math.max(...points.map(({ y }) => y), Number.MIN_VALUE));
  const ends = [points[0].x, points.at(-1).x].map(Math.log2);
  const span = ends[1] - ends[0];
  const across = WIDTH - MARGIN.left - MARGIN.right;
  const x = (size) => MARGIN.left + (span ? (Math.log2(size) - ends[0]) / span : 0.5) * across;
  const y = (value) => HEIGHT - MARGIN.bottom - (value / top) * (HEIGHT - MARGIN.top - MARGIN.bottom);

  const grid = Array.from({ length: LINES + 1 }, (_, index) => (top * index) / LINES).flatMap((value) => [
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
    element("figcaption", {}, title, element("span", { class: "quiet" }, ` ${unit}, by batch size`)),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, ...grid, ...sizes, line, ...dots),
  );
}

const compact = (value) =>
  new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value);
