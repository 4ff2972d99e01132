// Elements made and changed without ever reading text as HTML: what was said in a call is only ever a text node.

export const byId = (id) => document.getElementById(id);

/** An element. `attributes`: plain attributes; `on…` functions listen; `hidden` and `disabled` are properties. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put `children` in the place of what `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** An id nobody else makes; crypto.randomUUID exists only on secure origins, and the page may be on a LAN. */
export function freshId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
