// The cart: one for all tabs, made when the first thing goes in.
import { everything, kept, request } from "./api.js";
import { announce, button, el, field, money, notice, oops, show } from "./ui.js";

const HINTS = {
  in_stock: "In stock",
  low_stock: "Only a few left",
  backorder: "None here just now: it comes later",
  out_of_stock: "Sold out",
};

export async function readCart(signal) {
  const id = kept.get("cart");
  if (!id) return null;
  try {
    const { body } = await request("GET", `/v1/carts/${id}`, { signal });
    if (body.state === "open" || body.state === "frozen") return body;
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  if (kept.get("cart") === id) kept.drop("cart", "after");
  return null;
}

export async function put(sku, quantity) {
  const path = `/v1/carts/${kept.get("cart")}/lines/${encodeURIComponent(sku)}`;
  await (quantity ? request("PUT", path, { body: { quantity } }) : request("DELETE", path).catch(gone));
  await count();
}

function gone(error) {
  if (error.status !== 404) throw error;
}

export async function add(sku, quantity) {
  const cart = (await readCart()) ?? (await request("POST", "/v1/carts", { body: {} })).body;
  kept.set("cart", cart.id);
  const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  await request("POST", `/v1/carts/${cart.id}/lines`, { body: { sku, quantity }, key });
  await count();
}

export async function count(signal) {
  const cart = await readCart(signal);
  const pieces = cart ? cart.lines.reduce((sum, line) => sum + line.quantity, 0) : 0;
  const link = document.getElementById("basket");
  link.textContent = pieces ? `Cart (${pieces})` : "Cart";
  return cart;
}

export function totals(of) {
  const { currency } = of;
  const row = (name, minor) => el("div", {}, el("dt", {}, name), el("dd", {}, money(minor, currency)));
  return el(
    "dl",
    { class: "totals" },
    row("Goods", of.subtotal_minor),
    of.discounts?.length
      ? of.discounts.map((each) => row(each.promotion ? each.reason : "Rounded down", -each.amount_minor))
      : of.discount_minor ? row("Discount", -of.discount_minor) : null,
    of.shipping_minor === undefined ? null : row("Shipping", of.shipping_minor),
    of.tax_minor ? row(of.tax_included ? "Tax, included" : "Tax", of.tax_minor) : null,
    row("Total", of.total_minor),
  );
}

function lineOf(cart, line, again) {
  const quantity = el("input", { type: "number", min: "0", max: "1000000", value: String(line.quantity), inputmode: "numeric" });
  quantity.addEventListener("change", async () => {
    await put(line.sku, Math.max(0, Math.trunc(Number(quantity.value)) || 0));
    announce(`${line.name}: ${quantity.value}`);
    await again();
  });
  const hint = HINTS[line.availability];
  return el(
    "li",
    { class: "line" },
    el("a", { href: `#/p/${encodeURIComponent(line.sku)}` }, line.name),
    el("label", { class: "many" }, el("span", { class: "quiet" }, `How many of ${line.name}`), quantity),
    el("strong", {}, money(line.total_minor, cart.currency)),
    line.price_was_minor === undefined || line.price_was_minor === null
      ? null
      : el("small", {}, `${money(line.unit_minor, cart.currency)} each; it was ${money(line.price_was_minor, cart.currency)}`),
    line.discount_minor ? el("small", {}, `${money(line.discount_minor, cart.currency)} off`) : null,
    hint ? el("small", {}, hint) : null,
    button("Remove", async () => (await put(line.sku, 0), await again()), { class: "plain", "aria-label": `Remove ${line.name}` }),
  );
}

// What was entered stays until it is taken away, and says why nothing is given for it.
async function coupons(cart, signal, again) {
  const path = (code) => `/v1/carts/${cart.id}/coupons/${encodeURIComponent(code)}`;
  const asked = cart.coupons.length ? (await request("GET", `/v1/carts/${cart.id}/explanation`, { signal })).body.promotions : [];
  const entered = asked.filter((each) => each.coupon);
  const rows = entered.map((each) =>
    el(
      "li",
      { class: "line" },
      el("strong", {}, each.coupon),
      el("small", {}, each.applied ? `${money(each.amount_minor, cart.currency)} off` : each.detail),
      button("Remove", async () => (await request("DELETE", path(each.coupon)).catch(gone), await again()), {
        class: "plain",
        "aria-label": `Remove the coupon ${each.coupon}`,
      }),
    ),
  );
  const use = el("button", {}, "Use it");
  const form = el("form", { class: "row" }, field("Coupon", { name: "code", required: true, maxlength: "64", autocomplete: "off", autocapitalize: "characters" }), use);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    use.disabled = true;
    try {
      await request("PUT", path(new FormData(form).get("code").trim()));
      announce("The coupon is in your cart.");
      await again();
    } catch (error) {
      oops(error);
    } finally {
      use.disabled = false;
    }
  });
  return [rows.length ? el("ul", { class: "lines", id: "coupons" }, rows) : null, form];
}

export async function cartView(signal) {
  const cart = await count(signal);
  if (signal.aborted) return;
  if (!cart?.lines.length) {
    show("Your cart", el("p", {}, "There is nothing in it yet."), el("p", {}, el("a", { class: "act", href: "#/" }, "Look around")));
    return;
  }
  if (cart.state === "frozen") {
    show("Your cart", underWay(cart));
    return;
  }
  const again = () => cartView(signal);
  const entered = await coupons(cart, signal, again);
  if (signal.aborted) return;
  show(
    "Your cart",
    el("ul", { class: "lines" }, cart.lines.map((line) => lineOf(cart, line, again))),
    entered,
    totals(cart),
    el("p", {}, el("a", { class: "act", href: "#/checkout" }, "Go to the checkout")),
  );
}

export function underWay(cart) {
  return notice(
    "good",
    el("p", {}, "You are buying what is in this cart just now."),
    el("p", {}, el("a", { class: "act", href: `#/c/${cart.checkout_id}` }, "See how far it is")),
  );
}

// What a guest had chosen comes along when they sign in.
export async function carry(lines) {
  if (!lines.length) return;
  const open = (await everything("/v1/carts")).find((cart) => cart.state === "open");
  const cart = open ?? (await request("POST", "/v1/carts", { body: {} })).body;
  kept.set("cart", cart.id);
  for (const { sku, quantity } of lines) await put(sku, quantity);
}
