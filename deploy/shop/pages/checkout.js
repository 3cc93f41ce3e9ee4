// Buying: what is asked for, one request that may be repeated for ever, and the truth about how far it is.
import { everything, follow, kept, Refused, request, slug } from "./api.js";
import { count, readCart, totals, underWay } from "./cart.js";
import { announce, button, el, field, money, notice, pause, show, words } from "./ui.js";

const CARDS = [
  ["pm_card_visa", "Visa 4242", "goes through"],
  ["pm_card_authenticationRequired", "Visa 3184", "the bank asks you to confirm (3-D Secure)"],
  ["pm_card_chargeDeclined", "Visa 0002", "is declined"],
  ["pm_card_chargeDeclinedInsufficientFunds", "Visa 9995", "is declined: not enough money"],
];
const STEPS = ["Order received", "Price fixed", "Goods set aside", "Payment", "Confirmed"];
const AT = { started: 0, frozen: 1, quoted: 2, reserved: 3, paying: 3, confirmed: 5 };
const FINAL = new Set(["confirmed", "failed", "canceled", "expired"]);
const REASONS = {
  "cart-not-found": "The cart is not there any more.",
  "cart-empty": "There was nothing in the cart.",
  "cart-unavailable": "The cart was busy with another purchase.",
  "product-unavailable": "Something in the cart is not sold any more.",
  "out-of-stock": "Sold out: there are not as many left as you wanted.",
  "reservation-limit": "So many cannot be set aside for one buyer.",
  "price-changed": "A price has risen since you put it in the cart.",
  "payment-declined": "Your bank declined the card.",
  "payment-failed": "The payment did not work. It was not your card's fault.",
  "payment-capture-failed": "The payment could not be taken.",
  "amount-mismatch": "The amount did not match, so nothing was taken.",
  "timed-out": "It took too long, so it was called off.",
  canceled: "It was called off.",
};
const SLOW_MS = 5000;
const LOOK_MS = 1500;

// The same wish has the same key, from any tab and after any reload; what was tried and failed is not the same again.
function keyOf(body) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(JSON.stringify(body))) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return `${body.cart_id}.${kept.get("after") ?? "first"}.${hash.toString(16)}`;
}

function begin(body) {
  kept.set("paying", { body, key: keyOf(body) });
  location.hash = "#/paying";
}

// A cart whose last purchase failed is opened again a moment later.
async function settledCart(signal) {
  for (;;) {
    const cart = await readCart(signal);
    if (cart?.state !== "frozen" || cart.checkout_id !== kept.get("after") || signal.aborted) return cart;
    await pause(300, signal);
  }
}

export async function checkoutView(signal, shop) {
  const cart = await settledCart(signal);
  if (signal.aborted) return;
  if (!cart?.lines.length) {
    show("Checkout", el("p", {}, "There is nothing to pay for. "), el("p", {}, el("a", { href: "#/orders" }, "See your orders")));
    return;
  }
  if (cart.state === "frozen") {
    show("Checkout", underWay(cart));
    return;
  }
  const methods = await everything("/v1/shipping-methods", signal);
  const form = el(
    "form",
    { class: "checkout" },
    totals(cart),
    field("E-mail", { name: "email", type: "email", required: true, autocomplete: "email", maxlength: "254", value: kept.get("email") ?? "" }),
    methods.length ? shipping(methods, shop) : null,
    el("fieldset", {}, el("legend", {}, "Test card"), CARDS.map(cardChoice)),
    isDearer(cart) ? newPrices() : null,
    el("button", { class: "act", id: "pay" }, `Pay ${money(cart.total_minor, cart.currency)}${methods.length ? " and shipping" : ""}`),
    el("p", { class: "small" }, "Pressed once or ten times, it is one order. If the connection breaks, this page asks again by itself."),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    form.querySelector("#pay").disabled = true;
    begin(wishOf(cart, new FormData(form)));
  });
  show("Checkout", form);
}

const isDearer = (cart) => [cart.discount_was_minor, ...cart.lines.map((line) => line.price_was_minor)].some((minor) => minor !== undefined && minor !== null);

function newPrices() {
  const box = el("input", { type: "checkbox", name: "accept", value: "yes", required: true });
  return el("label", { class: "choice" }, box, el("span", {}, "What it costs has changed since it went into the cart. I buy at what is shown here."));
}

function cardChoice([method, name, what], index) {
  return el(
    "label",
    { class: "choice" },
    el("input", { type: "radio", name: "method", value: method, checked: index === 0 }),
    el("span", {}, el("strong", {}, name), ` ${what}`),
  );
}

function shipping(methods, shop) {
  return [
    el(
      "fieldset",
      {},
      el("legend", {}, "Shipping"),
      methods.map((each, index) =>
        el(
          "label",
          { class: "choice" },
          el("input", { type: "radio", name: "shipping_method", value: each.code, checked: index === 0 }),
          el("span", {}, each.name),
        ),
      ),
    ),
    el(
      "fieldset",
      {},
      el("legend", {}, "Address"),
      field("Name", { name: "name", required: true, autocomplete: "name", maxlength: "200" }),
      field("Street", { name: "line1", required: true, autocomplete: "address-line1", maxlength: "200" }),
      field("Town", { name: "city", autocomplete: "address-level2", maxlength: "100" }),
      field("Region", { name: "region", autocomplete: "address-level1", maxlength: "100" }),
      field("Postal code", { name: "postal_code", autocomplete: "postal-code", maxlength: "20" }),
      field("Country", { name: "country", required: true, autocomplete: "country", pattern: "[A-Z]{2}", maxlength: "2", value: shop.country }),
    ),
  ];
}

// Should the bank want to see its customer, it leads back to where this very purchase is shown.
function payBy(method) {
  return { method, return_url: `${location.origin}${location.pathname}?shop=${encodeURIComponent(slug)}#/c/{checkout_id}` };
}

function wishOf(cart, form) {
  const body = { cart_id: cart.id, email: form.get("email").trim(), payment: payBy(form.get("method")) };
  kept.set("email", body.email);
  if (form.get("accept")) body.accept_price_changes = true;
  if (form.get("shipping_method")) {
    const address = ["name", "line1", "city", "region", "postal_code", "country"].map((name) => [name, form.get(name)?.trim()]);
    body.shipping_method = form.get("shipping_method");
    body.shipping_address = Object.fromEntries(address.filter(([, value]) => value));
  }
  return body;
}

// The one request that buys. A reload comes back here, and asks the same again.
export async function payingView(signal) {
  const wish = kept.get("paying");
  if (!wish) {
    location.replace("#/cart");
    return;
  }
  if (wish.checkout_id) {
    location.replace(`#/c/${wish.checkout_id}`);
    return;
  }
  show("Paying", steps(0), el("p", { role: "status" }, "Your order is on its way to us."));
  try {
    const { body } = await request("POST", "/v1/checkouts", { body: wish.body, key: wish.key, signal });
    begun(wish, body.id);
  } catch (error) {
    if (signal.aborted || !(error instanceof Refused)) throw error;
    if (error.problem.checkout_id) {
      begun(wish, error.problem.checkout_id);
      return;
    }
    forgetWish(wish);
    show("Not bought", notice("bad", el("p", {}, words(error)), fields(error)), back("Back to the checkout", "#/checkout"));
  }
}

// What became of it stays beside the wish: a reload at this very moment comes back to it.
function begun(wish, checkoutId) {
  if (kept.get("paying")?.key === wish.key) kept.set("paying", { ...wish, checkout_id: checkoutId });
  location.replace(`#/c/${checkoutId}`);
}

function forgetWish(wish) {
  if (kept.get("paying")?.key === wish.key) kept.drop("paying");
}

function fields(error) {
  const errors = error.problem.errors ?? [];
  return errors.length ? el("ul", {}, errors.map((each) => el("li", {}, `${each.pointer.split("/").pop()}: ${each.detail}`))) : null;
}

function back(text, href) {
  return el("p", {}, el("a", { class: "act", href }, text));
}

function steps(at, stopped = false) {
  const state = (index) => (index < at ? "done" : index > at ? "" : stopped ? "stopped" : "now");
  return el(
    "ol",
    { class: "steps" },
    STEPS.map((name, index) =>
      el("li", { class: state(index), "aria-current": index === at && !stopped ? "step" : null }, name, index < at ? el("span", { class: "quiet" }, " (done)") : null),
    ),
  );
}

// Follows a checkout to its end, and tells of every state what is known, and what is not.
export async function progressView(signal, id) {
  const place = el("div", {}, steps(0));
  const said = el("div", { role: "status" }, el("p", {}, "Looking how far it is."));
  const heading = show("Your order is being made", place, said);
  let last = null;
  const payer = watchPayer(signal, said, () => last);
  const told = (checkout) => {
    last = checkout;
    payer.wake();
    if (FINAL.has(checkout.state)) {
      end(checkout, heading, place, said);
      return true;
    }
    place.replaceChildren(steps(AT[checkout.state] ?? 3));
    if (checkout.state !== "paying") said.replaceChildren(el("p", {}, sentence(checkout)));
    return false;
  };
  try {
    await follow(id, told, signal);
  } catch (error) {
    if (error.status !== 404) throw error;
    show("Not found", el("p", {}, "There is no such purchase of yours."), back("See your orders", "#/orders"));
  }
}

function sentence(checkout) {
  if (checkout.state === "canceling") return "It is being called off; the bank is being told to let go of the money.";
  if (checkout.state === "expiring") return "It took too long. It is being called off, unless the bank has the money already.";
  if (checkout.state === "reserved") return "Your goods are set aside for you.";
  return "We have your order, and are looking whether everything is there.";
}

// While the bank is asked: what payments knows of it, which the checkout does not.
function watchPayer(signal, said, current) {
  let since = 0;
  let running = false;
  const look = async () => {
    running = true;
    since ||= Date.now();
    for (let shown = ""; current()?.state === "paying" && !signal.aborted; await pause(LOOK_MS, signal)) {
      const checkout = current();
      const slow = Date.now() - since > SLOW_MS;
      const payment = checkout.action_required || slow ? await paymentOf(checkout, signal) : null;
      if (current()?.state !== "paying" || signal.aborted) break;
      const url = payment?.next_action?.url ?? "";
      const now = `${payment?.state} ${slow} ${Boolean(url)}`;
      if (now !== shown) said.replaceChildren(...bank(payment, url, slow));
      shown = now;
    }
    running = false;
  };
  return { wake: () => void (current()?.state === "paying" && !running && look()) };
}

async function paymentOf(checkout, signal) {
  try {
    return (await request("GET", `/v1/payments/${checkout.payment_id}`, { signal })).body;
  } catch {
    return null; // it is a moment behind the checkout that tells of it
  }
}

function bank(payment, url, slow) {
  if (payment?.state === "unknown") {
    const text = "The bank has not answered, so we do not know yet whether it said yes. We are finding out. You are never charged twice: do not order again. You may close this page; it is in your orders when it is done.";
    return [notice("unsure", el("p", {}, text))];
  }
  if (url) {
    return [
      notice("good", el("p", {}, "Your bank wants to be sure that it is you. Nothing is paid until you have confirmed."), el("p", {}, el("a", { class: "act", href: url }, "Continue to your bank"))),
    ];
  }
  return [el("p", {}, slow ? "The bank is taking its time. Nothing is decided yet; this page goes on by itself." : "Your bank is being asked.")];
}

function end(checkout, heading, place, said) {
  const isBought = checkout.state === "confirmed";
  if (isBought) {
    if (kept.get("cart") === checkout.cart_id) kept.drop("cart", "after");
    place.replaceChildren(steps(AT.confirmed));
    heading.textContent = "Thank you";
    said.replaceChildren(
      notice("good", el("p", {}, `It is yours: ${money(checkout.total_minor, checkout.currency)}, charged once.`), back("See your order", `#/o/${checkout.order_id}`)),
    );
  } else {
    if (kept.get("cart") === checkout.cart_id) kept.set("after", checkout.id);
    place.replaceChildren(steps(failedAt(checkout), true));
    heading.textContent = "Not bought";
    said.replaceChildren(notice("bad", el("p", {}, `${REASONS[checkout.reason] ?? REASONS.canceled} You have not been charged.`)), ...onward(checkout));
  }
  announce(isBought ? "Your order is confirmed." : "Your order did not come about.");
  void count().catch(() => null);
}

function failedAt(checkout) {
  return checkout.reason?.startsWith("payment") ? 3 : checkout.quote ? 2 : 1;
}

function onward(checkout) {
  if (checkout.reason === "price-changed" && checkout.quote) {
    const now = { ...checkout.quote, currency: checkout.currency };
    return [totals(now), el("p", {}, "That is what it costs now. Your cart is still there."), back("To the cart", "#/cart"), accept(checkout)];
  }
  const again = checkout.reason?.startsWith("payment") || checkout.reason === "timed-out";
  return [back(again ? "Try another card" : "Back to the cart", again ? "#/checkout" : "#/cart")];
}

function accept(checkout) {
  const method = CARDS[0][0];
  const buy = async () => {
    await settledCart(new AbortController().signal);
    begin({ cart_id: checkout.cart_id, email: kept.get("email") ?? undefined, payment: payBy(method), accept_price_changes: true });
  };
  return el("p", {}, button(`Buy for ${money(checkout.quote.total_minor, checkout.currency)} with ${CARDS[0][1]}`, buy));
}
