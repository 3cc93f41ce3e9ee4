// Looking around: all products, one product.
import { everything, request } from "./api.js";
import { add } from "./cart.js";
import { announce, button, el, money, notice, show } from "./ui.js";

let products = null;
let asked = { text: "", category: "" };

function tile(product, size) {
  const picture = el("span", { class: `picture ${size}`, "aria-hidden": "true" }, [...product.name][0] ?? "?");
  let hue = 0;
  for (const letter of product.sku) hue = (hue * 31 + letter.codePointAt(0)) % 360;
  picture.style.setProperty("--hue", String(hue));
  return picture;
}

function priceOf(product) {
  return product.unit_minor === undefined || product.unit_minor === null ? "no price just now" : money(product.unit_minor, product.currency);
}

function card(product) {
  return el(
    "li",
    {},
    el(
      "a",
      { class: "card", href: `#/p/${encodeURIComponent(product.sku)}` },
      tile(product, "small"),
      el("span", { class: "name" }, product.name),
      el("span", { class: "price" }, priceOf(product)),
    ),
  );
}

function found() {
  const wanted = asked.text.trim().toLocaleLowerCase();
  return products.filter(
    (product) =>
      (!asked.category || product.category === asked.category) &&
      (!wanted || `${product.name} ${product.category} ${product.sku}`.toLocaleLowerCase().includes(wanted)),
  );
}

export async function browseView(signal, shop) {
  const list = el("ul", { class: "cards" });
  const search = el("input", { type: "search", placeholder: "Search", "aria-label": "Search the products", value: asked.text });
  const chips = el("div", { class: "chips", role: "group", "aria-label": "Categories" });
  show(shop.look.tagline ?? `Welcome to ${shop.name}`, el("div", { class: "find" }, search, chips), list);
  if (!products) {
    list.setAttribute("aria-busy", "true");
    list.replaceChildren(...Array.from({ length: 8 }, () => el("li", { class: "skeleton", "aria-hidden": "true" })));
    const all = await everything("/v1/products", signal);
    products = all.filter((product) => !product.withdrawn);
    list.removeAttribute("aria-busy");
  }
  const draw = () => {
    const seen = found();
    list.replaceChildren(...seen.map(card));
    if (!seen.length) list.replaceChildren(el("li", { class: "none" }, products.length ? "Nothing is called that." : "Nothing is on sale yet."));
    return seen.length;
  };
  const chip = (category, name) => {
    const node = el("button", { type: "button", "aria-pressed": String(asked.category === category) }, name);
    node.addEventListener("click", () => {
      asked.category = category;
      for (const each of chips.children) each.setAttribute("aria-pressed", String(each === node));
      announce(`${draw()} products`);
    });
    return node;
  };
  const categories = [...new Set(products.map((product) => product.category))].sort();
  if (categories.length > 1) chips.append(chip("", "Everything"), ...categories.map((each) => chip(each, each)));
  search.addEventListener("input", () => {
    asked.text = search.value;
    announce(`${draw()} products`);
  });
  draw();
}

export async function productView(signal, sku) {
  let product;
  try {
    product = (await request("GET", `/v1/products/${encodeURIComponent(sku)}`, { signal })).body;
  } catch (error) {
    if (error.status !== 404) throw error;
    show("Not found", el("p", {}, "There is no such product."), el("p", {}, el("a", { href: "#/" }, "All products")));
    return;
  }
  const many = el("input", { type: "number", min: "1", max: "1000000", value: "1", inputmode: "numeric", id: "many" });
  const said = el("div", {});
  const put = button("Put in the cart", async () => {
    await add(product.sku, Math.max(1, Math.trunc(Number(many.value)) || 1));
    said.replaceChildren(notice("good", el("p", {}, "It is in your cart. "), el("a", { href: "#/cart" }, "Go to the cart")));
  });
  const sold = !product.withdrawn && product.unit_minor !== undefined && product.unit_minor !== null;
  show(
    product.name,
    el(
      "div",
      { class: "product" },
      tile(product, "large"),
      el(
        "div",
        {},
        el("p", { class: "kind" }, product.category),
        el("p", { class: "price" }, product.withdrawn ? "Not sold any more" : priceOf(product)),
        sold ? el("p", { class: "row" }, el("label", { class: "many" }, el("span", {}, "How many"), many), put) : null,
        said,
      ),
    ),
    el("p", {}, el("a", { href: "#/" }, "All products")),
  );
}
