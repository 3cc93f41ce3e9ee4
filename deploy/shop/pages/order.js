// An order as it goes on: its state, what came back of its money, and its story.
import { request, everything } from "./api.js";
import { totals } from "./cart.js";
import { announce, el, moment, money, notice, pause, show } from "./ui.js";

const LOOK_MS = 1500;
const MONEY = {
  authorized: "Your bank holds the money for us; it is taken in a moment.",
  captured: "Paid.",
  partially_refunded: "Paid, and part of it has been given back.",
  refunded: "All of your money has been given back.",
  disputed: "Your bank is asking about this payment.",
};
const TOLD = {
  request: "You asked to buy",
  "checkout.requested": "Your cart was asked for",
  "cart.frozen": "Your cart was fixed, at its prices",
  "payment.requested": "The goods were set aside, and the money asked for",
  create: "The payment was prepared at the bank",
  confirm: "The bank was asked",
  "payment.action-required": "The bank asked you to confirm",
  webhook: "The bank told us something",
  "payment.authorized": "The bank holds the money",
  "order.confirmed": "Your order was confirmed",
  "cart.ordered": "Your cart became the order",
  capture: "The money was taken",
  "payment.captured": "The payment is complete",
  "refund.requested": "Money back was asked for",
  refund: "The bank was told to give it back",
  "refund.pending": "Money is on its way back",
  "refund.succeeded": "The money is back with you",
  "order.refunded": "The order knows that it was given back",
};
const REFUND = { requested: "asked for", pending: "on its way", succeeded: "arrived", failed: "did not work; the shop has been told" };

// Read again and again while somebody looks; unchanged, an answer has no body.
export async function orderView(signal, id) {
  const place = el("div", {});
  const story = el("ol", { class: "story" });
  let heading = null;
  let tag = null;
  let refunded = null;
  for (let quiet = 0; !signal.aborted; quiet += 1) {
    const answer = document.hidden && tag ? { status: 304 } : await readOrder(id, tag, signal);
    if (!answer || signal.aborted) return;
    if (answer.status !== 304) {
      const order = answer.body;
      tag = answer.tag;
      quiet = 0;
      heading ??= show(`Order ${order.number}`, place, el("h2", {}, "What happened"), story);
      place.replaceChildren(...drawn(order));
      if (refunded !== null && order.refunded_minor > refunded) announce(`${money(order.refunded_minor - refunded, order.currency)} have come back to you.`);
      refunded = order.refunded_minor;
    }
    if (quiet < 4) await tell(id, story, signal);
    await pause(LOOK_MS, signal);
  }
}

async function readOrder(id, tag, signal) {
  try {
    return await request("GET", `/v1/orders/${id}`, { tag, signal });
  } catch (error) {
    if (error.status !== 404) throw error;
    show("Not found", el("p", {}, "There is no such order of yours."), el("p", {}, el("a", { href: "#/orders" }, "Your orders")));
    return null;
  }
}

function drawn(order) {
  const state = order.state === "canceled" ? "This order was called off." : (MONEY[order.payment_state] ?? "Nothing is held of your money.");
  const line = (each) =>
    el("li", { class: "line" }, el("span", {}, `${each.quantity} × ${each.name}`), el("strong", {}, money(each.total_minor, order.currency)));
  return [
    notice(order.state === "canceled" ? "unsure" : "good", el("p", { id: "standing" }, state)),
    el("p", { class: "small" }, `Placed on ${moment(order.placed_at)}`),
    el("ul", { class: "lines" }, order.lines.map(line)),
    totals(order),
    order.refunds?.length ? el("section", { class: "refunds" }, el("h2", {}, "Money back"), el("ul", {}, order.refunds.map(refundOf))) : null,
  ].filter(Boolean);
}

function refundOf(refund) {
  return el("li", { class: refund.state }, `${money(refund.amount_minor, refund.currency)} ${REFUND[refund.state] ?? refund.state}: ${refund.reason}`);
}

async function tell(id, story, signal) {
  const { body } = await request("GET", `/v1/orders/${id}/timeline`, { signal });
  if (signal.aborted || story.childElementCount === body.items.length) return;
  const start = body.items.length ? Date.parse(body.items[0].at) : 0;
  story.replaceChildren(
    ...body.items.map((entry) =>
      el(
        "li",
        { class: entry.compensation ? "undone" : "" },
        el("time", { datetime: entry.at }, `+${((Date.parse(entry.at) - start) / 1000).toFixed(2)} s`),
        el("span", { class: "service" }, entry.service),
        el("span", {}, TOLD[entry.name] ?? entry.name.replaceAll(/[._-]/g, " "), entry.duration_ms ? ` (${entry.duration_ms} ms)` : ""),
      ),
    ),
  );
}

export async function ordersView(signal) {
  const orders = await everything("/v1/orders", signal, 200);
  const row = (order) =>
    el(
      "li",
      { class: "line" },
      el("a", { href: `#/o/${order.id}` }, `Order ${order.number}`),
      el("span", {}, moment(order.placed_at)),
      el("strong", {}, money(order.total_minor, order.currency)),
    );
  show(
    "Your orders",
    orders.length ? el("ul", { class: "lines" }, orders.map(row)) : el("p", {}, "You have not ordered anything here yet."),
    el("p", {}, "From another device? ", el("a", { href: "#/find" }, "Find an order by its number")),
  );
}

export async function findView(_signal, shop) {
  const said = el("div", {});
  const input = (label, given) => el("label", { class: "field" }, el("span", {}, label), el("input", { required: true, ...given }));
  const form = el(
    "form",
    { class: "checkout" },
    input("Order number", { name: "number", inputmode: "numeric", pattern: "[1-9][0-9]{0,17}" }),
    input("E-mail it was ordered with", { name: "email", type: "email", autocomplete: "email" }),
    el("button", { class: "act" }, "Send me a link"),
    said,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = new FormData(form);
    const body = { tenant_id: shop.tenant_id, number: Number(given.get("number")), email: given.get("email") };
    await request("POST", "/v1/order-lookups", { body }).then(
      () => said.replaceChildren(notice("good", el("p", {}, "If there is such an order, a link to it is on its way to that address."))),
      (error) => said.replaceChildren(notice("bad", el("p", {}, error.detail))),
    );
  });
  show("Find an order", form);
}
