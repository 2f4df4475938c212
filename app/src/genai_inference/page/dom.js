export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; text is never read as HTML. */
export function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Terms and values for a <dl>; what has no value is left out. */
export function facts(pairs) {
  return Object.entries(pairs)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value)));
}

export const percent = (share) => `${(share * 100).toFixed(share < 0.9995 && share >= 0.0005 ? 1 : 0)} %`;

/** 3 significant digits, for people: 0.0312, 12.3, 4560. */
export const short = (number) => Number(number.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
