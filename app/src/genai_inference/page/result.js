// The card with the answer: empty, waiting, an answer or a problem.

import { byId, element, facts, percent } from "./dom.js";

const MOST_BARS = 5;

export function show(state) {
  byId("result").dataset.state = state;
  byId("result").setAttribute("aria-busy", String(state === "waiting"));
  if (state !== "problem") byId("problem").replaceChildren();
  if (state !== "answer") byId("brief").textContent = "";
}

/** `labels` belong to the probabilities, in the same order. */
export function showAnswer(answer, labels) {
  const ranked = labels
    .map((label, index) => ({ label: String(label), share: answer.probabilities[index] }))
    .sort((one, other) => other.share - one.share)
    .slice(0, MOST_BARS);
  byId("label").textContent = ranked[0].label;
  byId("sure").textContent = percent(ranked[0].share);
  byId("bars").replaceChildren(...ranked.map(bar));
  byId("facts").replaceChildren(
    ...facts({
      Model: `${answer.model.name} ${answer.model.version}`,
      "Round trip": `${answer.milliseconds.toFixed(answer.milliseconds < 10 ? 1 : 0)} ms`,
      Cache: answer.cache?.toLowerCase(),
      Request: answer.requestId && element("code", {}, answer.requestId),
    }),
  );
  byId("says").textContent = `${ranked[0].label}, ${percent(ranked[0].share)}`;
  show("answer");
  byId("brief").textContent = `${ranked[0].label} · ${percent(ranked[0].share)}`; // where the card is below the fold
}

function bar({ label, share }) {
  const fill = element("i");
  fill.style.width = `${share * 100}%`;
  return element(
    "li",
    {},
    element("span", { class: "name", title: label }, label),
    element("span", { class: "track", "aria-hidden": "true" }, fill),
    element("span", { class: "share" }, percent(share)),
  );
}

export function showProblem(problem) {
  byId("says").textContent = "";
  show("problem");
  byId("problem").replaceChildren(
    element("p", { class: "title" }, problem.status ? `${problem.title} (${problem.status})` : problem.title),
    element("p", {}, problem.detail),
    ...(problem.requestId ? [element("p", { class: "quiet" }, "Request ", element("code", {}, problem.requestId))] : []),
  );
}
