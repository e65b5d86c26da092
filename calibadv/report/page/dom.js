// Elements, numbers and words. Text of a run is only ever set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes that are functions listen, the children are elements or text. */
function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** Style by the object model: the policy allows no style attribute. */
function styled(element, style) {
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
  return element;
}

function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(0)} k`;
  if (size >= 1e3 && digits === 0) return `${(value / 1e3).toFixed(1)} k`;
  if (size >= 100) return value.toFixed(0);
  return minus(value.toFixed(digits));
}

const minus = (text) => text.replace("-", "−");
const percent = (value, digits = 0) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`);

/** With its sign always; nothing has none, and what would round to nothing has a digit more. */
function signed(value, digits = 2) {
  const text = value.toFixed(Math.abs(value) > 0 && Math.abs(value) < 0.5 * 10 ** -digits ? digits + 2 : digits);
  return Number(text) === 0 ? (0).toFixed(digits) : minus(value > 0 ? `+${text}` : text);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.round(seconds), minutes = Math.round(seconds / 60);
  if (whole < 90) return `${whole} s`;
  if (whole < 5400) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const unit = Math.min(Math.floor(Math.log10(Math.max(size, 1)) / 3), units.length - 1);
  return `${(size / 1000 ** unit).toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** A table: `columns` are [heading, whether of numbers]; a row is a list of cells, or of elements. */
function table(caption, columns, rows, attributes = {}) {
  const cell = (content, i) => h(i ? "td" : "th", { class: columns[i][1] ? "n" : null, scope: i ? null : "row" }, content);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", attributes,
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, columns.map(([name, right]) => (name ? h("th", { scope: "col", class: right ? "n" : null }, name) : h("td", {}))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map(cell))))));
}

function section(id, title, note, ...children) {
  return h("section", { id, "aria-labelledby": `${id}-title` },
    h("div", { class: "head" }, h("h2", { id: `${id}-title` }, title), note ? h("p", { class: "soft small" }, note) : null),
    ...children);
}

/** A labelled control. */
function field(label, control, wide = false) {
  control.setAttribute("aria-label", label);  // else the options of a choice were part of its name
  return h("label", { class: wide ? "field wide" : "field" }, label, control);
}

function select(options, changed, chosen = "") {
  return h("select", { change: (event) => changed(event.target.value) },
    options.map(([value, text]) => h("option", { value, selected: String(value) === String(chosen) }, text)));
}

/** Tells a screen reader what has changed. */
function say(text) {
  document.getElementById("said").textContent = text;
}

/** The values of a gzipped payload of this file. */
async function payload(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
