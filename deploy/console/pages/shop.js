// The shop's stock, who did what, and one's own log-in.

import { ask, facts, field, h, input, listed, pill, problem, say, select, short, table, tell, when, words } from "./dom.js";
import { call, current, get, may } from "./session.js";

// --- Stock ----------------------------------------------------------------------------------------------------------

const POLICIES = [
  ["tracked", "Only while there is some"],
  ["backorder", "Beyond that too: what is missing is owed"],
  ["untracked", "Always: nobody counts it"],
];

export async function stock({ id, query, again }) {
  const sku = id ?? query.get("sku") ?? "";
  const search = (event) => {
    event.preventDefault();
    const wanted = new FormData(event.target).get("sku").trim();
    location.hash = wanted ? `#/stock/${encodeURIComponent(wanted)}` : "#/stock";
  };
  const policy = async (each) => {
    const done = await ask({
      title: `How is ${each.sku} sold?`, label: "Sell it so",
      effect: "It counts for every checkout from now on. How many there are is your inventory's to say, and is not changed.",
      content: field("When there is none", select("policy", POLICIES, each.policy)),
      act: (form) => call("PUT", `/v1/stock/${encodeURIComponent(each.sku)}`, { json: { policy: form.get("policy") } }),
    });
    if (done) { say(`${each.sku} is ${done.policy} now.`); again(); }
  };
  const columns = [
    ["SKU", (each) => h("a", { href: `#/stock/${encodeURIComponent(each.sku)}` }, each.sku)],
    ["Free to sell", (each) => each.on_hand, "number"],
    ["Reserved", (each) => each.reserved, "number"],
    ["Sold", (each) => each.sold, "number"],
    ["Owed", (each) => each.backordered || "", "number"],
    ["Sold when there is none", (each) => pill(each.policy)],
    ["", (each) => may("settings:write") && h("button", { type: "button", onclick: () => policy(each) }, "Change …")],
  ];
  const parts = [h("h1", null, "Stock"), h("section", null, h("form", { class: "row", role: "search", onsubmit: search },
    field("SKU", input("sku", { value: sku, maxlength: 64 })), h("button", { type: "submit", class: "main" }, "Find")))];
  if (!sku) {
    return [...parts, h("section", null, await listed("Stock over all locations, by SKU", columns, (cursor) => get("/v1/stock", { cursor }), "Nothing was ever counted."))];
  }
  try {
    const found = await get(`/v1/stock/${encodeURIComponent(sku)}`);
    return [...parts, h("section", null, table(`Stock of ${sku}`, columns, [found])), h("section", null, table("By location", [
      ["Location", (each) => each.location], ["Free to sell", (each) => each.on_hand, "number"],
      ["Reserved", (each) => each.reserved, "number"], ["Sold", (each) => each.sold, "number"],
    ], found.locations, "It lies nowhere."))];
  } catch (error) {
    return [...parts, problem(error)];
  }
}

// --- Audit trail ----------------------------------------------------------------------------------------------------

const SERVICES = ["identity", "cart", "checkout", "payments"];

export async function audit({ query }) {
  const wanted = Object.fromEntries(["action", "object_kind", "object_id", "actor"].map((name) => [name, query.get(name) ?? ""]));
  const service = SERVICES.includes(query.get("service")) ? query.get("service") : "identity";
  const search = (event) => {
    event.preventDefault();
    location.hash = `#/audit?${new URLSearchParams([...new FormData(event.target)].filter(([, value]) => value))}`;
  };
  let list;
  try {
    list = await listed(`What was done in ${service}, newest first. Each entry is chained to the one before`, [
      ["Entry", (each) => each.number],
      ["When", (each) => when(each.at)],
      ["Who", (each) => h("span", null, each.by_platform ? "the platform " : "", short(each.actor))],
      ["What", (each) => words(each.action)],
      ["Of", (each) => h("span", null, `${words(each.object_kind)} `, short(each.object_id))],
      ["Why", (each) => each.reason],
      ["From", (each) => each.address],
      ["Digest", (each) => h("code", { title: each.digest }, each.digest.slice(0, 10))],
    ], (cursor) => get(service === "identity" ? "/v1/audit-entries" : `/v1/${service}-audit-entries`, { ...wanted, cursor }), "Nothing of this kind was done.");
  } catch (error) {
    list = problem(error);
  }
  return [h("h1", null, "Audit trail"), h("section", null, h("form", { class: "row", role: "search", onsubmit: search },
    field("Service", select("service", SERVICES.map((each) => [each, each]), service)),
    field("What", input("action", { value: wanted.action })),
    field("Kind of thing", input("object_kind", { value: wanted.object_kind })),
    field("Id of it", input("object_id", { value: wanted.object_id })),
    field("Who", input("actor", { value: wanted.actor })),
    h("button", { type: "submit", class: "main" }, "Search"))), h("section", null, list)];
}

// --- One's own log-in -----------------------------------------------------------------------------------------------

const code = (hint) => field("Code", input("code", { required: true, inputmode: "numeric", minlength: 6, maxlength: 40, autocomplete: "one-time-code" }), hint);

const kept = (codes) => tell("Your recovery codes",
  h("p", null, "Each is good once, if you are without your phone. They are not shown again."),
  h("code", { class: "secret" }, codes.flatMap((each) => [each, h("br")])));

// Drawn to stand in a page, it lacks what it needs to stand alone.
function picture(markup) {
  const named = markup.includes("xmlns=") ? markup : markup.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"');
  return `data:image/svg+xml,${encodeURIComponent(named)}`;
}

async function enrol(again) {
  const made = await call("POST", "/v1/second-factors", { json: {}, key: crypto.randomUUID() });
  const done = await ask({
    title: "A second factor", label: "It works",
    content: [
      h("p", null, "Scan this with an authenticator app, or type the secret into it."),
      h("img", { class: "qr", alt: "QR code of the secret below", src: picture(made.qr_svg) }),
      h("code", { class: "secret" }, made.secret), code("What the app shows now"),
    ],
    act: (form, key) => call("POST", "/v1/second-factors/confirm", { json: { code: form.get("code") }, key }),
  });
  if (done) await kept(done.recovery_codes);
  again();
}

async function remove(again) {
  const done = await ask({
    title: "Go without a second factor?", label: "Remove it", grave: true,
    effect: "From now on your password alone lets you in, and whoever else knows it.", content: code("Of the app, or a recovery code"),
    act: (form, key) => call("POST", "/v1/second-factors/remove", { json: { code: form.get("code") }, key }),
  });
  if (done) { say("Your second factor is gone."); again(); }
}

export async function myself({ again }) {
  const [factor, session] = await Promise.all([get("/v1/second-factors"), get("/v1/sessions/current")]);
  const isActive = factor.state === "active";
  const wrong = h("div");
  const begin = async () => { try { await enrol(again); } catch (error) { wrong.replaceChildren(problem(error)); } };
  return [
    h("h1", null, "My log-in"),
    h("section", null, h("h2", null, "Second factor"), facts([["State", pill(factor.state)], ["Recovery codes left", isActive ? factor.recovery_codes_left : ""]]), wrong,
      h("p", null, isActive ? h("button", { type: "button", class: "grave", onclick: () => remove(again) }, "Remove …")
        : h("button", { type: "button", class: "main", onclick: begin }, "Set one up …"))),
    h("section", null, h("h2", null, "This session"), facts([["Session", short(session.id)], ["Me", short(current().subject)], ["Over at the latest", when(session.expires_at)]])),
    h("section", null, h("h2", null, "What you may do here"), h("p", null, [...current().scope].sort().map((each) => [h("code", null, each), " "]))),
  ];
}

// An address that leads nowhere, or to what somebody's roles do not show them.
export const nowhere = () => [h("h1", null, "Not here"),
  h("p", null, "This page is not there, or your roles do not show it to you. What they do show stands in the menu.")];
