// What every view is built with: elements, tables, dialogs, money and times. Text only ever becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function h(tag, properties, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

export function say(text) {
  const place = document.getElementById("said");
  place.textContent = text;
  setTimeout(() => place.textContent === text && place.replaceChildren(), 8000);
}

// --- Values ---------------------------------------------------------------------------------------------------------

const digits = (currency) => new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits;

export function money(minor, currency) {
  if (minor === undefined || minor === null || !currency) return "";
  return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(minor / 10 ** digits(currency));
}

// What somebody typed, in minor units; null for what is no such amount. Never by way of a fraction.
export function minor(text, currency) {
  const places = digits(currency);
  const found = /^(\d{1,13})(?:[.,](\d+))?$/.exec(text.trim());
  if (!found || (found[2] ?? "").length > places) return null;
  return Number(found[1] + (found[2] ?? "").padEnd(places, "0"));
}

export function plain(amount, currency) {
  return (amount / 10 ** digits(currency)).toFixed(digits(currency));
}

export function when(moment) {
  if (!moment) return "";
  const at = new Date(moment);
  const shown = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  return h("time", { datetime: moment, title: `${at.toISOString().replace("T", " ").replace("Z", "")} UTC` }, shown);
}

export const words = (text) => String(text ?? "").replaceAll(/[-_]/g, " ");

const TONES = {
  good: ["captured", "confirmed", "active", "succeeded", "delivered", "fulfilled", "finished", "accepted", "done", "replayed"],
  warn: ["authorized", "requested", "pending", "provisioning", "partially_refunded", "open", "closing", "suspended", "unknown",
    "waiting", "queued", "rejected", "parked", "requires_action"],
  bad: ["failed", "disputed", "declined", "erased"],
};

export function pill(state) {
  if (!state) return "";
  const tone = Object.keys(TONES).find((name) => TONES[name].includes(state)) ?? "";
  return h("span", { class: `pill ${tone}` }, words(state));
}

export const short = (id) => (id ? h("code", { title: id }, id.length > 13 ? `…${id.slice(-12)}` : id) : "");

// --- Parts of pages -------------------------------------------------------------------------------------------------

// Columns: [heading, item => cell, "number"?]. The first cell of a row names it.
export function table(caption, columns, items, nothing = "There is nothing here.") {
  if (!items.length) return h("p", { class: "empty" }, nothing);
  const cell = (item, [, of, kind], index) => h(index ? "td" : "th", { class: kind, scope: index ? null : "row" }, of(item));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", null,
      h("caption", null, caption),
      h("thead", null, h("tr", null, columns.map(([name, , kind]) => h("th", { scope: "col", class: kind }, name)))),
      h("tbody", null, items.map((item) => h("tr", null, columns.map((column, index) => cell(item, column, index)))))));
}

// A list that goes on: `load(cursor)` answers a page of the API.
export async function listed(caption, columns, load, nothing) {
  const first = await load(null);
  const items = [...first.items];
  const place = h("div");
  const show = (cursor) => {
    const more = async (event) => {
      event.target.disabled = true;
      try {
        const next = await load(cursor);
        items.push(...next.items);
        show(next.next_cursor);
      } catch (error) {
        place.append(problem(error));
      }
    };
    place.replaceChildren(table(caption, columns, items, nothing),
      cursor ? h("p", null, h("button", { type: "button", onclick: more }, "Show more")) : "");
  };
  show(first.next_cursor);
  return place;
}

export function facts(pairs) {
  return h("dl", null, pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}

let fields = 0;

export function field(label, input, hint) {
  input.id ||= `field-${++fields}`;
  if (hint) input.setAttribute("aria-describedby", `${input.id}-hint`);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input,
    hint && h("span", { class: "quiet", id: `${input.id}-hint` }, hint));
}

export const input = (name, properties) => h("input", { name, autocomplete: "off", ...properties });
export const check = (name, text, properties) => h("label", { class: "plain" }, h("input", { type: "checkbox", name, ...properties }), text);

export function select(name, options, chosen) {
  return h("select", { name }, options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
}

const ADVICE = {
  401: "Sign in again.",
  403: "Your roles do not allow this. Whoever manages members can change them; nothing was done.",
  404: "It is gone, or it never was yours to see.",
  409: "It does not fit how things stand now. Look at it again before you decide; nothing was done.",
  412: "Somebody has changed it since you looked. Look at it again; nothing was done.",
  422: "Mend what is named, and send it again. Nothing was done.",
  429: "That was too much at once. Nothing was done.",
  503: "Something that this needs does not answer just now. Nothing was done.",
  0: "If something was to be done, it may have been or not. Send it again: the same try is never done twice.",
};

export function problem(error) {
  if (error.status === undefined) console.error(error);
  const status = error.status ?? -1;
  const after = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  return h("div", { class: "bad", role: "alert" },
    h("p", null, h("b", null, error.detail || error.message || "That went wrong.")),
    error.errors?.length ? h("ul", null, error.errors.map((each) => h("li", null, `${each.pointer}: ${each.detail}`))) : "",
    h("p", null, (error.isOnce ? "It may have been done or not: look before you send it again." : ADVICE[status] ?? "Try again; if it stays so, tell whoever runs this.") + after),
    error.requestId ? h("p", { class: "quiet" }, "Request ", h("code", null, error.requestId)) : "");
}

// --- Dialogs --------------------------------------------------------------------------------------------------------

// Ask before something is done. `effect` says what will happen; `act(form, key)` does it, always under the same key.
export function ask({ title, effect, content, label, grave, act }) {
  return new Promise((resolve) => {
    const key = crypto.randomUUID();
    const wrong = h("div");
    const done = h("button", { type: "submit", class: grave ? "grave" : "main" }, label);
    const close = h("button", { type: "button", onclick: () => dialog.close() }, "Leave it");
    const send = async (event) => {
      event.preventDefault();
      done.disabled = true;
      try {
        const answer = await act(new FormData(event.target), key, event.target);
        resolve(answer ?? true);
        dialog.close();
      } catch (error) {
        wrong.replaceChildren(problem(error));
        done.disabled = false;
      }
    };
    const dialog = h("dialog", { "aria-labelledby": "asked", onclose: () => { dialog.remove(); resolve(null); } },
      h("form", { onsubmit: send },
        h("h2", { id: "asked" }, title),
        effect && h("p", { class: "effect" }, effect),
        content, wrong,
        h("div", { class: "row" }, done, close)));
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Show what is shown once. Nothing of it is kept.
export function tell(title, ...content) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "told", onclose: () => { dialog.remove(); resolve(); } },
      h("h2", { id: "told" }, title), content,
      h("div", { class: "row" }, h("button", { type: "button", class: "main", onclick: () => dialog.close() }, "I have it")));
    document.body.append(dialog);
    dialog.showModal();
  });
}
