// Talks to the service. Paths are relative, so that the page also works behind a proxy with a prefix.

const KEY = "genai-inference-key";

/** A request that failed: what the service said of it, or that nothing was heard at all (status 0). */
export class Problem extends Error {
  constructor(status, title, detail, requestId = null) {
    super(detail);
    Object.assign(this, { status, title, detail, requestId });
  }
}

// Only this tab's memory: a key in localStorage would outlive the visit.
export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const useKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** The response, if it is a good one; or else a Problem. AbortError if `signal` says so. */
async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "No answer", "The service cannot be reached. Is the connection up?");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  const known = response.headers.get("content-type")?.startsWith("application/problem+json");
  const { title, detail } = known ? await response.json() : {}; // a proxy in between may answer for itself
  return new Problem(
    response.status,
    title ?? (response.statusText || "Error"),
    detail ?? `The answer was ${response.status}, without an explanation.`,
    response.headers.get("x-request-id"),
  );
}

export const version = async () => (await call("version")).json();

/** Every model with its details, the default one first; empty while the first one is loaded. */
export async function models() {
  const { models: entries } = await (await call("v1/models")).json();
  return Promise.all(entries.map(async ({ name }) => (await call(`v1/models/${encodeURIComponent(name)}`)).json()));
}

/** Classifies a PNG: {probabilities, model, milliseconds, cache, requestId}. */
export async function predict(name, png, signal) {
  const started = performance.now();
  const response = await call(`v1/models/${encodeURIComponent(name)}:predict`, {
    method: "POST",
    headers: { "Content-Type": "image/png" },
    body: png,
    signal,
  });
  const { predictions, model } = await response.json();
  return {
    probabilities: predictions[0].probabilities,
    model,
    milliseconds: performance.now() - started,
    cache: response.headers.get("x-cache"),
    requestId: response.headers.get("x-request-id"),
  };
}
