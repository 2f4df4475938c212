// What happens when: the parts are in api, sheet, result and catalog.

import * as api from "./api.js";
import { inputOf, showCatalog, showNoCatalog } from "./catalog.js";
import { byId, percent } from "./dom.js";
import { show, showAnswer, showProblem } from "./result.js";
import { pictureOf, Sheet } from "./sheet.js";

const PAUSE_MS = 300; // after a stroke, before it is classified
const RETRY_MS = 2000;
const UNAUTHORIZED = 401;

let models = [];
let running = null; // the request whose answer is waited for
let timer = null;

const sheet = new Sheet({
  canvas: byId("sheet"),
  cursor: byId("cursor"),
  seen: byId("seen"),
  changed: pictureChanged,
  says: (text) => (byId("sheet-says").textContent = text),
});

// --- models --------------------------------------------------------------------------------------------------------

async function load() {
  try {
    models = await api.models();
    byId("forget").hidden = !api.hasKey();
    byId("access").hidden = true;
  } catch (error) {
    return notLoaded(error);
  }
  if (!models.length) {
    status("waiting", "Loading the model");
    showNoCatalog("The first model is being loaded; it appears here in a moment.");
    return setTimeout(load, RETRY_MS);
  }
  status("good", "Ready");
  showCatalog(models);
  offer();
}

function notLoaded(error) {
  if (error.status === UNAUTHORIZED) {
    askForKey(error);
    return status("waiting", "Waiting for a key");
  }
  status("bad", error.title ?? "Error");
  showNoCatalog(error.message);
  setTimeout(load, RETRY_MS);
}

function offer() {
  const select = byId("model");
  const before = select.value;
  select.replaceChildren(...models.map(({ name, version }) => new Option(`${name} ${version}`, name)));
  if (models.some(({ name }) => name === before)) select.value = before;
  select.disabled = false;
  if (select.value !== before) choose();
}

const chosen = () => models.find(({ name }) => name === byId("model").value);

function choose() {
  const model = chosen();
  const picture = pictureOf(model.shape);
  const accuracy = model.accuracy === null ? "" : `, ${percent(model.accuracy)} accurate`;
  byId("model-facts").textContent = picture
    ? `${inputOf(model)}, ${model.labels} labels${accuracy}`
    : `${inputOf(model)}: this model takes no pictures`;
  byId("classify").disabled = !picture;
  byId("ink-field").hidden = !picture?.colour;
  byId("fit-field").hidden = !picture || picture.colour;
  sheet.ink = picture?.colour ? byId("ink").value : "#ffffff";
  if (picture) sheet.setShape(picture);
  nothing();
}

function status(state, text) {
  byId("status").dataset.state = state;
  byId("status").textContent = text;
}

async function about() {
  const { app, title, framework } = await api.version().catch(() => ({}));
  if (!app) return;
  byId("about").textContent = [title || "Image models, served", `version ${app}`, framework].filter(Boolean).join(" · ");
}

// --- classify ------------------------------------------------------------------------------------------------------

function pictureChanged() {
  byId("invitation").hidden = true;
  clearTimeout(timer);
  if (byId("at-once").checked && chosen()) timer = setTimeout(classify, PAUSE_MS);
}

async function classify() {
  clearTimeout(timer);
  const model = chosen();
  if (!model) return;
  if (sheet.blank) return (byId("says").textContent = "There is no picture yet: draw one, or choose a file.");
  running?.abort();
  const mine = (running = new AbortController());
  show("waiting");
  try {
    const answer = await api.predict(model.name, await sheet.png(), mine.signal);
    if (answer.model.version !== model.version) await load(); // it was replaced: the labels may be others
    if (!mine.signal.aborted) showAnswer(answer, models.find(({ name }) => name === model.name).label_names);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === UNAUTHORIZED) askForKey(error);
    showProblem(error instanceof api.Problem ? error : new api.Problem(0, "Error", error.message));
  } finally {
    if (running === mine) running = null;
  }
}

/** Nothing drawn, nothing said. */
function nothing() {
  clearTimeout(timer);
  running?.abort();
  byId("invitation").hidden = false;
  byId("says").textContent = "";
  show("empty");
}

async function take(file) {
  if (!file || byId("classify").disabled) return;
  try {
    sheet.place(await createImageBitmap(file));
  } catch {
    showProblem(new api.Problem(0, "Not a picture", `${file.name || "This"} is not a picture this browser can read.`));
  }
}

// --- keys ----------------------------------------------------------------------------------------------------------

function askForKey(problem) {
  byId("access").hidden = false;
  byId("access-why").textContent = `${problem.detail} It stays in this tab, and is gone when you close it.`;
  api.forgetKey();
  byId("forget").hidden = true;
  byId("key").focus();
}

byId("access").addEventListener("submit", async (event) => {
  event.preventDefault();
  api.useKey(byId("key").value.trim());
  byId("key").value = "";
  await load();
  if (!byId("access").hidden) return;
  byId("model").focus();
  if (!sheet.blank) classify();
});
byId("forget").addEventListener("click", () => {
  api.forgetKey();
  location.reload();
});

// --- the rest ------------------------------------------------------------------------------------------------------

byId("model").addEventListener("change", choose);
byId("classify").addEventListener("click", classify);
byId("invert").addEventListener("click", () => sheet.invert());
byId("clear").addEventListener("click", () => {
  sheet.clear();
  nothing();
});
byId("ink").addEventListener("input", (event) => (sheet.ink = event.target.value));
byId("fit").addEventListener("change", (event) => {
  sheet.fit(event.target.checked);
  if (!sheet.blank) pictureChanged();
});
byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // the same file may be chosen again
});
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});

about();
load();
