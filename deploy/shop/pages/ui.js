// What every view draws with: elements, money, words for what goes wrong. Text is always text, never markup.

export function el(name, given = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && typeof value !== "string") node[key] = value;
    else if (value !== undefined && value !== null) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Digits after the point, as the payment provider counts minor units: docs say which currencies differ from two.
const NONE = new Set("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split(" "));
const THREE = new Set(["BHD", "JOD", "KWD", "OMR", "TND"]);

export function digitsOf(currency) {
  return NONE.has(currency) ? 0 : THREE.has(currency) ? 3 : 2;
}

// An amount never becomes a float: Intl takes decimals as text.
export function money(minor, currency) {
  const digits = digitsOf(currency);
  const text = String(Math.abs(minor)).padStart(digits + 1, "0");
  const whole = text.slice(0, text.length - digits);
  const decimal = (minor < 0 ? "-" : "") + whole + (digits ? "." + text.slice(text.length - digits) : "");
  const shape = { style: "currency", currency, minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(navigator.languages, shape).format(decimal);
}

export function moment(text) {
  return new Intl.DateTimeFormat(navigator.languages, { dateStyle: "medium", timeStyle: "short" }).format(new Date(text));
}

export function announce(text) {
  document.getElementById("status").textContent = text;
}

// A view's page: its heading takes the focus, so that whoever hears the page hears where they are.
export function show(title, ...children) {
  const main = document.getElementById("main");
  const heading = el("h1", { tabindex: "-1" }, title);
  main.replaceChildren(heading, ...children.flat().filter(Boolean));
  document.title = `${title} · ${document.getElementById("logo").textContent}`;
  return heading;
}

export function button(text, act, given = {}) {
  const node = el("button", { type: "button", ...given }, text);
  node.addEventListener("click", async () => {
    if (node.disabled) return;
    node.disabled = true;
    node.setAttribute("aria-busy", "true");
    try {
      await act();
    } catch (error) {
      oops(error);
    } finally {
      node.disabled = false;
      node.removeAttribute("aria-busy");
    }
  });
  return node;
}

export function notice(kind, ...children) {
  return el("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : "status" }, ...children);
}

export function field(label, given) {
  return el("label", { class: "field" }, el("span", {}, label), el("input", given));
}

const WORDS = {
  "storefront-not-found": "There is no such shop, or it lets nobody in at the moment.",
  "product-unavailable": "This is not sold any more.",
  "coupon-unknown": "There is no such coupon. Look at how it is written.",
  "too-many-coupons": "That is one coupon too many. Take another away first.",
  "cart-frozen": "This cart is being paid for just now.",
  "tenant-suspended": "This shop is closed for the moment.",
  "too-many-declines": "Too many cards were refused. Wait a while before you try again.",
};

export function words(error) {
  return WORDS[error.code] ?? error.detail ?? "Something went wrong here, and it was not you. Try again.";
}

export function oops(error) {
  if (error.name === "AbortError") return;
  const main = document.getElementById("main");
  main.querySelector(".notice.bad")?.remove();
  main.querySelector("h1")?.after(notice("bad", el("p", {}, words(error))));
  if (error.status === undefined) console.warn(error);
}

export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
