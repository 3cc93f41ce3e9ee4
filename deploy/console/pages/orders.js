// Orders: searched, looked at from every side, refunded, called off, written about.

import { ask, check, facts, field, h, input, listed, minor, money, pill, plain, problem, say, select, short, table, when, words } from "./dom.js";
import { call, get, may } from "./session.js";
import { story } from "./lanes.js";

const WANTED = ["number", "email", "sku", "state", "payment_state"];
const MONEY = ["authorized", "captured", "partially_refunded", "refunded", "disputed"];

export async function orders({ query }) {
  const wanted = Object.fromEntries(WANTED.map((name) => [name, query.get(name) ?? ""]));
  const search = (event) => {
    event.preventDefault();
    const asked = [...new FormData(event.target)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);
    location.hash = `#/orders?${new URLSearchParams(asked)}`;
  };
  const box = (name, label, properties) => field(label, input(name, { value: wanted[name], ...properties }));
  const form = h("form", { class: "row", role: "search", onsubmit: search },
    box("number", "Number", { inputmode: "numeric", pattern: "[0-9]*", size: 8 }),
    box("email", "E-mail", { type: "email", size: 22 }),
    box("sku", "SKU", { size: 14, maxlength: 64 }),
    field("State", select("state", [["", "any"], ["confirmed", "confirmed"], ["canceled", "canceled"]], wanted.state)),
    field("Money", select("payment_state", [["", "any"], ...MONEY.map((each) => [each, words(each)])], wanted.payment_state)),
    h("button", { type: "submit", class: "main" }, "Search"));
  const isNarrow = WANTED.some((name) => wanted[name]);
  let list;
  try {
    list = await listed(isNarrow ? "Orders that fit, newest first" : "Orders, newest first", [
      ["Number", (each) => h("a", { href: `#/orders/${each.id}` }, each.number)],
      ["Placed", (each) => when(each.placed_at)],
      ["State", (each) => pill(each.state)],
      ["Money", (each) => pill(each.payment_state)],
      ["Goods", (each) => pill(each.fulfilment_state)],
      ["Total", (each) => money(each.total_minor, each.currency), "number"],
      ["Given back", (each) => (each.refunded_minor ? money(each.refunded_minor, each.currency) : ""), "number"],
    ], (cursor) => get("/v1/orders", { ...wanted, cursor }), isNarrow ? "No order fits." : "There is no order yet.");
  } catch (error) {
    list = problem(error);
  }
  return [h("h1", null, "Orders"), h("section", null, form), h("section", null, list)];
}

// --- One order ------------------------------------------------------------------------------------------------------

const tried = (reading) => reading.catch((error) => ({ error }));

export async function order({ id, again }) {
  const path = `/v1/orders/${id}`;
  const [found, way, notes] = await Promise.all([
    get(path), tried(get(`${path}/timeline`)), may("orders:write") ? tried(get(`${path}/notes`)) : null,
  ]);
  const payment = found.payment_id && may("payments:read") ? await tried(get(`/v1/payments/${found.payment_id}`)) : null;
  return [
    h("div", { class: "row top" }, h("h1", null, `Order ${found.number}`), h("div", { class: "row" }, acts(found, again))),
    h("div", { class: "cards" }, h("section", null, h("h2", null, "Order"), sums(found)), payment && h("section", null, h("h2", null, "Payment"), paid(payment, again))),
    h("section", null, h("h2", null, "Lines"), lines(found)),
    found.refunds?.length ? h("section", null, h("h2", null, "Refunds"), refunds(found)) : "",
    h("section", null, h("h2", null, "What happened"), way.error ? problem(way.error)
      : way.items.length ? story(way.items) : h("p", { class: "empty" }, "Nothing has been told yet; it is a moment behind.")),
    notes && h("section", null, h("h2", null, "Notes"), written(found, notes, again)),
  ];
}

function acts(found, again) {
  const left = found.captured_minor - found.refunded_minor;
  return [
    may("orders:refund") && left > 0 && h("button", { type: "button", onclick: () => refund(found, left, again) }, "Refund …"),
    may("orders:write") && found.state === "confirmed" && found.captured_minor === 0
      && h("button", { type: "button", class: "grave", onclick: () => cancel(found, again) }, "Cancel …"),
  ];
}

function sums(found) {
  const of = (amount) => money(amount, found.currency);
  return facts([
    ["State", h("span", null, pill(found.state), found.reason ? ` ${words(found.reason)}` : "")],
    ["Money", pill(found.payment_state)],
    ["Goods", pill(found.fulfilment_state)],
    ["Placed", when(found.placed_at)],
    ["Total", of(found.total_minor)],
    ["Taken", of(found.captured_minor)],
    ["Given back", of(found.refunded_minor)],
    ["Shipped by", found.shipping_method],
    ["To", found.shipping_address && Object.entries(found.shipping_address).filter(([, value]) => value).map(([, value]) => value).join(", ")],
    ["Buyer", short(found.subject_id)],
    ["Checkout", short(found.checkout_id)],
  ]);
}

function lines(found) {
  const of = (amount) => (amount === undefined || amount === null ? "" : money(amount, found.currency));
  return [
    table("What was bought", [
      ["Product", (line) => line.name],
      ["SKU", (line) => h("a", { href: `#/stock/${encodeURIComponent(line.sku)}` }, line.sku)],
      ["Quantity", (line) => line.quantity, "number"],
      ["Each", (line) => of(line.unit_minor), "number"],
      ["Discount", (line) => of(line.discount_minor), "number"],
      ["Tax", (line) => of(line.tax_minor), "number"],
      ["Total", (line) => of(line.total_minor), "number"],
    ], found.lines),
    h("p", { class: "quiet" }, `Subtotal ${of(found.subtotal_minor)}, discount ${of(found.discount_minor)}, shipping ${of(found.shipping_minor)}, tax ${of(found.tax_minor)}${found.tax_included ? " (in the prices)" : ""}.`),
  ];
}

const refunds = (found) => table("Refunds, the oldest first", [
  ["Asked for", (each) => when(each.requested_at)],
  ["State", (each) => h("span", null, pill(each.state), each.code ? ` ${words(each.code)}` : "")],
  ["Amount", (each) => money(each.amount_minor, each.currency), "number"],
  ["Why", (each) => each.reason],
  ["Back into stock", (each) => (each.restock ? "yes" : "no")],
], found.refunds);

function paid(payment, again) {
  if (payment.error) return problem(payment.error);
  const path = `/v1/payments/${payment.id}`;
  const of = (amount) => money(amount, payment.currency);
  const act = (title, effect, label, end, grave) => h("button", { type: "button", onclick: async () => {
    const done = await ask({ title, effect, label, grave, act: (_, key) => call("POST", `${path}/${end}`, { key }) });
    if (done) { say(`Asked for. The payment is ${words(done.state)}.`); again(); }
  } }, label);
  return [
    facts([
      ["State", h("span", null, pill(payment.state), payment.decline_code ? ` ${words(payment.decline_code)}` : "")],
      ["Asked for", of(payment.amount_minor)],
      ["Held", of(payment.authorized_minor)],
      ["Taken", of(payment.captured_minor)],
      ["Being given back", payment.refunding_minor ? of(payment.refunding_minor) : ""],
      ["Held until", payment.expires_at && when(payment.expires_at)],
      ["Payment", short(payment.id)],
    ]),
    payment.state === "authorized" && h("div", { class: "row" },
      may("payments:capture") && act("Take the money?", `Takes all that is held, ${of(payment.authorized_minor)}, from the buyer's card. It goes back by a refund alone.`, "Capture", "capture"),
      may("payments:void") && act("Let the money go?", "Lets go of what is held. The order has no money then, and what it does without is checkout's to decide; to call the order off, cancel it instead.", "Void", "void", true)),
    payment.state === "unknown" && h("p", null, "Nobody knows what came of the last call. ", h("a", { href: "#/payments?state=unknown" }, "See what may be done"), "."),
  ];
}

// --- Acts -----------------------------------------------------------------------------------------------------------

function wish(form, found) {
  const how = form.get("how");
  const said = { reason: form.get("reason").trim(), restock: form.has("restock") };
  if (how === "amount") {
    const amount = minor(form.get("amount"), found.currency);
    if (!amount) throw Object.assign(new Error(), { status: 422, detail: `The amount is not one in ${found.currency}.` });
    return { ...said, amount_minor: amount };
  }
  if (how === "lines") {
    const chosen = found.lines.map((line, index) => ({ line_id: line.line_id, quantity: Number(form.get(`line-${index}`) || 0) }));
    return { ...said, lines: chosen.filter((line) => line.quantity > 0) };
  }
  return said;
}

async function refund(found, left, again) {
  const of = (amount) => money(amount, found.currency);
  const way = (value, text, checked) => h("label", { class: "plain" }, h("input", { type: "radio", name: "how", value, checked }), text);
  const amount = h("div", { hidden: true }, field(`Amount in ${found.currency}`,
    input("amount", { inputmode: "decimal", value: plain(left, found.currency) }), `At most ${of(left)}`));
  const byLine = h("div", { hidden: true }, found.lines.map((line, index) => field(`${line.name} (of ${line.quantity})`,
    input(`line-${index}`, { type: "number", min: 0, max: line.quantity, step: 1, value: 0 }))));
  const turn = (event) => {
    if (event.target.name !== "how") return;
    amount.hidden = event.target.value !== "amount";
    byLine.hidden = event.target.value !== "lines";
  };
  const content = h("div", { onchange: turn },
    h("fieldset", null, h("legend", null, "How much"), way("all", `All that is left: ${of(left)}`, true), way("amount", "An amount"), way("lines", "Some of the lines")),
    amount, byLine,
    check("restock", "The goods came back: put them into stock"),
    field("Why", input("reason", { required: true, maxlength: 500 })));
  const done = await ask({
    title: `Refund order ${found.number}`, label: "Give it back", content,
    effect: "Money goes back to the card it came from. Once the provider has it, nobody here can stop it. The buyer sees it in a few days.",
    act: (form, key) => call("POST", `/v1/orders/${found.id}/refunds`, { json: wish(form, found), key }),
  });
  if (!done) return;
  say(`A refund of ${money(done.amount_minor, done.currency)} was asked for. It is ${words(done.state)}.`);
  again();
}

async function cancel(found, again) {
  const done = await ask({
    title: `Cancel order ${found.number}?`, label: "Cancel the order", grave: true,
    effect: "The order is off for good: the hold on the buyer's card is let go, and the goods are for sale again. If its money was taken meanwhile, nothing is done: refund it then.",
    act: (_, key) => call("POST", `/v1/orders/${found.id}/cancel`, { key }),
  });
  if (done) { say(`Order ${found.number} is ${words(done.state)}.`); again(); }
}

function written(found, notes, again) {
  if (notes.error) return problem(notes.error);
  const wrong = h("div");
  const write = async (event) => {
    event.preventDefault();
    try {
      await call("POST", `/v1/orders/${found.id}/notes`, { json: { body: new FormData(event.target).get("body") } });
      say("Written down.");
      again();
    } catch (error) {
      wrong.replaceChildren(problem(error));
    }
  };
  return [
    table("Notes, the oldest first. Buyers never see them", [
      ["When", (note) => when(note.written_at)], ["Who", (note) => short(note.author)], ["What", (note) => note.body],
    ], notes.items, "Nobody has written anything down."),
    h("form", { onsubmit: write }, field("A new note", h("textarea", { name: "body", required: true, maxlength: 4000 })), wrong,
      h("button", { type: "submit" }, "Write it down")),
  ];
}
