// What is taken off carts: what there is, a new one, other terms for one, and its end.

import { ask, check, field, h, input, listed, minor, money, pill, plain, say, select, when } from "./dom.js";
import { call, get, may } from "./session.js";

const KINDS = [["percentage", "A percentage"], ["amount", "An amount"]];
const path = (code) => `/v1/promotions/${encodeURIComponent(code)}`;

const takes = (each) => (each.kind === "percentage" ? `${each.percent} %` : money(each.amount_minor, each.currency));

function terms(each) {
  const of = [...each.skus, ...each.categories.map((category) => `all of ${category}`)];
  return [
    of.length && `Of ${of.join(", ")}`,
    each.minimum_subtotal_minor && `From ${money(each.minimum_subtotal_minor, each.currency)}`,
    each.exclusive && "Alone",
    each.priority && `Priority ${each.priority}`,
  ].filter(Boolean).join("; ");
}

function standing(each) {
  const at = Date.now();
  if (each.valid_until && Date.parse(each.valid_until) <= at) return pill("over");
  if (each.valid_from && Date.parse(each.valid_from) > at) return pill("to come");
  if (each.max_uses && each.used_count >= each.max_uses) return pill("used up");
  return pill("active");
}

// A field for a time shows and takes the reader's own; the API has UTC.
const local = (moment) => moment && new Date(Date.parse(moment) - new Date(moment).getTimezoneOffset() * 60000).toISOString().slice(0, 16);
const utc = (text) => (text ? new Date(text).toISOString() : undefined);
const several = (text) => text.split(",").map((each) => each.trim()).filter(Boolean);

function amountOf(text, currency, what) {
  const found = text ? minor(text, currency || "GBP") : undefined;
  if (found === null || (text && !currency)) throw new Error(`${what} is an amount of a currency, such as 5.00 and GBP.`);
  return found;
}

function body(form) {
  const text = (name) => form.get(name).trim();
  const currency = text("currency").toUpperCase();
  const isPercentage = form.get("kind") === "percentage";
  return {
    name: text("name"), kind: form.get("kind"),
    percent: isPercentage ? text("off") : undefined,
    amount_minor: isPercentage ? undefined : amountOf(text("off"), currency, "What it takes off"),
    currency: currency || undefined,
    skus: several(text("skus")), categories: several(text("categories")),
    minimum_subtotal_minor: amountOf(text("least"), currency, "The least"),
    valid_from: utc(text("valid_from")), valid_until: utc(text("valid_until")),
    requires_coupon: form.has("requires_coupon"), exclusive: form.has("exclusive"),
    max_uses: text("max_uses") ? Number(text("max_uses")) : undefined, priority: Number(text("priority") || 0),
  };
}

function fields(each) {
  const off = each && (each.kind === "percentage" ? each.percent : plain(each.amount_minor, each.currency));
  const least = each?.minimum_subtotal_minor;
  return [
    each ? "" : field("Code", input("code", { required: true, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]{0,63}", maxlength: 64 }), "What shoppers enter, if it needs a coupon"),
    field("Name", input("name", { required: true, maxlength: 100, value: each?.name ?? "" }), "What shoppers are told"),
    h("div", { class: "row" }, field("It takes off", select("kind", KINDS, each?.kind)),
      field("So much", input("off", { required: true, inputmode: "decimal", value: off ?? "" }), "In percent, or in money"),
      field("Currency", input("currency", { maxlength: 3, value: each?.currency ?? "" }), "Of its amounts; none: any cart")),
    field("Of these SKUs", input("skus", { value: each?.skus.join(", ") ?? "" }), "With commas between; neither these nor categories: of all"),
    field("Of these categories", input("categories", { value: each?.categories.join(", ") ?? "" })),
    h("div", { class: "row" }, field("From", input("valid_from", { type: "datetime-local", value: local(each?.valid_from) ?? "" })),
      field("Until", input("valid_until", { type: "datetime-local", value: local(each?.valid_until) ?? "" }))),
    h("div", { class: "row" }, field("Goods for at least", input("least", { inputmode: "decimal", value: least ? plain(least, each.currency) : "" })),
      field("Uses at most", input("max_uses", { type: "number", min: 1, value: each?.max_uses ?? "" })),
      field("Priority", input("priority", { type: "number", min: -1000, max: 1000, value: each?.priority ?? 0 }), "The highest comes first")),
    check("requires_coupon", "Only for who enters its code", { checked: each?.requires_coupon }),
    check("exclusive", "Never together with another", { checked: each?.exclusive }),
  ];
}

export async function promotions({ again }) {
  const define = async (each) => {
    const done = await ask({
      title: each ? `Other terms for ${each.code}` : "A new promotion", label: each ? "Change it" : "Give it",
      effect: "It counts for every cart from now on. Carts that are being bought keep what they were given.",
      content: fields(each),
      act: (form) => call("PUT", path(each?.code ?? form.get("code").trim()), { json: body(form) }),
    });
    if (done) { say(`${done.code} is given now.`); again(); }
  };
  const end = async (each) => {
    const done = await ask({
      title: `End ${each.code}?`, label: "End it", grave: true,
      effect: "It is given no more, to no cart that is not being bought already. Its code can be used for another one.",
      act: () => call("DELETE", path(each.code)),
    });
    if (done) { say(`${each.code} is given no more.`); again(); }
  };
  const columns = [
    ["Code", (each) => each.code],
    ["Name", (each) => each.name],
    ["Takes off", takes, "number"],
    ["Terms", terms],
    ["For", (each) => (each.requires_coupon ? "who has its code" : "everybody")],
    ["From", (each) => when(each.valid_from)],
    ["Until", (each) => when(each.valid_until)],
    ["Used", (each) => (each.max_uses ? `${each.used_count} of ${each.max_uses}` : ""), "number"],
    ["", standing],
    ["", (each) => may("promotions:write") && [
      h("button", { type: "button", onclick: () => define(each) }, "Change …"), " ",
      h("button", { type: "button", class: "grave", onclick: () => end(each) }, "End …")]],
  ];
  return [h("h1", null, "Promotions"),
    h("section", null, may("promotions:write") && h("p", null, h("button", { type: "button", class: "main", onclick: () => define(null) }, "New promotion …")),
      await listed("What is taken off carts, by code", columns, (cursor) => get("/v1/promotions", { cursor }), "Nothing is taken off at present."))];
}
