// The models: what each is, how it is served, and how fast it was found to be.

import { byId, element, facts, percent, short } from "./dom.js";
import { plot } from "./plots.js";

/** "8 × 8 grey" */
export function inputOf({ shape }) {
  const size = shape.slice(-2).join(" × ");
  const channels = shape.length === 3 ? shape[0] : 1;
  return `${size} ${{ 1: "grey", 3: "colour" }[channels] ?? `with ${channels} channels`}`;
}

export function showCatalog(models) {
  const catalog = byId("catalog");
  catalog.setAttribute("aria-busy", "false");
  catalog.replaceChildren(...models.map(card));
}

export function showNoCatalog(text) {
  byId("catalog").replaceChildren(element("p", { class: "quiet" }, text));
}

function card(model) {
  const limits = `${model.max_batch_size} images a request, ${model.max_queue} waiting, ${short(model.deadline_seconds)} s to answer`;
  return element(
    "article",
    { class: "card" },
    element(
      "h3",
      {},
      model.name,
      element("span", { class: "chip" }, model.version),
      ...(model.default ? [element("span", { class: "chip accent" }, "default")] : []),
    ),
    element(
      "dl",
      { class: "facts" },
      ...facts({
        Input: inputOf(model),
        Range: `${short(model.minimum)} to ${short(model.maximum)}`,
        Labels: String(model.labels),
        Accuracy: model.accuracy === null ? "not known" : percent(model.accuracy),
        Device: `${model.device}, ${model.dtype}${model.compiled ? ", compiled" : ""}`,
        Network: model.architecture,
        Limits: limits,
      }),
    ),
    ...speed(model.benchmarks ?? []),
  );
}

/** One group of plots for each device and node that was measured. */
function speed(benchmarks) {
  if (!benchmarks.length) return [element("p", { class: "unmeasured quiet" }, "Speed: not measured yet")];
  const places = new Map();
  for (const row of benchmarks) {
    const place = row.node ? `${row.device} on ${row.node}` : row.device;
    places.set(place, [...(places.get(place) ?? []), row]);
  }
  return [...places].map(([place, rows]) => measured(place, latest(rows)));
}

/** The last measurement of every batch size, the smallest size first. */
export function latest(rows) {
  const newest = new Map();
  for (const row of rows) {
    const known = newest.get(row.batch_size);
    if (!known || Date.parse(row.finished_at) >= Date.parse(known.finished_at)) newest.set(row.batch_size, row);
  }
  return [...newest.values()].sort((one, other) => one.batch_size - other.batch_size);
}

function measured(place, rows) {
  const day = new Date(Math.max(...rows.map((row) => Date.parse(row.finished_at))));
  const points = (field) => rows.map((row) => ({ x: row.batch_size, y: row[field] }));
  return element(
    "section",
    { class: "measured", "aria-label": `Speed, ${place}` },
    element("p", { class: "quiet" }, `${place}, ${day.toLocaleDateString("en", { dateStyle: "medium" })}, by batch size`),
    element(
      "div",
      { class: "plots" },
      plot("Throughput", "images/s", points("items_per_second")),
      plot("p95 latency", "ms", points("p95_ms")),
    ),
    element("details", {}, element("summary", {}, "All figures"), table(rows)),
  );
}

function table(rows) {
  const columns = { "Batch size": "batch_size", "Images/s": "items_per_second", p50: "p50_ms", p95: "p95_ms", p99: "p99_ms" };
  const line = (cell, texts) => element("tr", {}, ...texts.map((text) => element(cell, {}, text)));
  return element(
    "table",
    {},
    element("thead", {}, line("th", Object.keys(columns))),
    element("tbody", {}, ...rows.map((row) => line("td", Object.values(columns).map((field) => short(row[field]))))),
  );
}
