// Which view an address shows, and what of a shop's look the page takes on.
import { openShop, slug } from "./api.js";
import { browseView, productView } from "./browse.js";
import { cartView, count } from "./cart.js";
import { checkoutView, payingView, progressView } from "./checkout.js";
import { findView, orderView, ordersView } from "./order.js";
import { el, oops, show } from "./ui.js";
import { greet, inView, youView } from "./you.js";

const VIEWS = {
  "": (signal, shop) => browseView(signal, shop),
  p: (signal, _shop, sku) => productView(signal, sku),
  cart: (signal) => cartView(signal),
  checkout: (signal, shop) => checkoutView(signal, shop),
  paying: (signal) => payingView(signal),
  c: (signal, _shop, id) => progressView(signal, id),
  o: (signal, _shop, id) => orderView(signal, id),
  orders: (signal) => ordersView(signal),
  find: (signal, shop) => findView(signal, shop),
  you: (signal) => youView(signal),
  in: (signal, _shop, token) => inView(signal, token),
};

let leaving = new AbortController();
let isFirst = true;

async function route(shop) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [, name = "", ...rest] = location.hash.split("/");
  const view = VIEWS[name] ?? (async () => show("Not found", el("p", {}, el("a", { href: "#/" }, "All products"))));
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.getAttribute("href") === `#/${name}`;
    here ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  // Whoever hears the page hears where they are, as soon as the view says it; nobody is moved who has only just come.
  const heard = new MutationObserver(() => (heard.disconnect(), signal.aborted || document.querySelector("main h1")?.focus()));
  if (!isFirst) heard.observe(document.getElementById("main"), { childList: true });
  isFirst = false;
  scrollTo(0, 0);
  try {
    await view(signal, shop, decodeURIComponent(rest.join("/")));
  } catch (error) {
    if (!signal.aborted) oops(error);
  }
}

// An accent may be any colour: what is written on it is black or white, whichever is easier to read.
function dress(shop) {
  const { accent, logo_text: logo, typeface, corners } = shop.look;
  const root = document.documentElement;
  if (accent) {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(accent.slice(at, at + 2), 16) / 255);
    const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    const light = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
    root.style.setProperty("--accent", accent);
    root.style.setProperty("--on-accent", (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000" : "#fff");
  }
  root.classList.toggle("serif", typeface === "serif");
  root.classList.toggle("square", corners === "square");
  document.getElementById("logo").textContent = logo ?? shop.name;
}

function landing() {
  const form = el(
    "form",
    { class: "checkout", method: "get", action: "." },
    el("label", { class: "field" }, el("span", {}, "Shop"), el("input", { name: "shop", required: true, pattern: "[a-z0-9][a-z0-9\\-]{1,62}", autocapitalize: "none" })),
    el("button", { class: "act" }, "Go in"),
  );
  document.querySelector("nav").hidden = true;
  show("Which shop?", el("p", {}, "Every tenant has a shop here, under its name."), form);
}

async function start() {
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  if (!slug) return landing();
  // A bank leads back with a query of its own; nothing of it is needed, and it does not stay in the address.
  if (new URLSearchParams(location.search).has("redirect_status")) {
    history.replaceState(null, "", `?shop=${encodeURIComponent(slug)}${location.hash}`);
  }
  try {
    const shop = await openShop();
    dress(shop);
    addEventListener("hashchange", () => route(shop));
    await Promise.all([route(shop), count().then(() => greet())]);
  } catch (error) {
    show("Closed", el("p", {}));
    oops(error);
  }
}

await start();
