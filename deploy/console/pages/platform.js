// For operators of the platform: its tenants, and how each stands.

import { ask, field, h, input, listed, pill, say, short, tell } from "./dom.js";
import { call, get } from "./session.js";

const EFFECTS = {
  suspend: ["Suspend", "Nothing new begins there, in any service, within seconds. What was begun ends; staff still read and refund. It can be resumed.", false],
  resume: ["Resume", "The shop is open again.", false],
  close: ["Close", "Nothing new begins there ever again. Money comes to its end, and all of it can be taken away. There is no way back to selling.", true],
};

const MAY = { active: ["suspend", "close"], suspended: ["resume", "close"] };

async function act(tenant, name, again) {
  const [label, effect, grave] = EFFECTS[name];
  const confirmed = grave && field(`Type ${tenant.slug} to go on`, input("slug", { required: true, pattern: tenant.slug }));
  const done = await ask({
    title: `${label} ${tenant.name}?`, label, effect, grave: grave || name === "suspend", content: confirmed,
    act: (_, key) => call("POST", `/v1/tenants/${tenant.tenant_id}/${name}`, { key, wait: 10 }),
  });
  if (done) { say(`${done.name} is ${done.status}.`); again(); }
}

async function onboard(again) {
  const done = await ask({
    title: "A new tenant", label: "Onboard", effect: "Every service makes room for it, and its owner is invited.",
    content: [
      field("Short name", input("slug", { required: true, pattern: "[a-z0-9][a-z0-9\\-]{1,62}" }), "Small letters, digits and hyphens; it stays"),
      field("Name", input("name", { required: true, maxlength: 200 })),
      field("Owner's e-mail", input("email", { required: true, type: "email" })),
      field("Currency", input("currency", { required: true, pattern: "[A-Z]{3}", value: "GBP" })),
      field("Country", input("country", { required: true, pattern: "[A-Z]{2}", value: "GB" })),
    ],
    act: (form, key) => call("POST", "/v1/tenants", { key, wait: 20, json: {
      slug: form.get("slug"), name: form.get("name"), currency: form.get("currency"), country: form.get("country"), admin_email: form.get("email"),
    } }),
  });
  if (done?.owner?.token) await tell(`${done.name} is ${done.status}`, h("p", null, "This stack writes to nobody. Hand the owner's token over yourself."), h("code", { class: "secret" }, done.owner.token));
  if (done) again();
}

const services = (told) => Object.entries(told ?? {}).filter(([, is]) => !is).map(([name]) => name).join(", ");

export async function tenants({ query, again }) {
  const slug = query.get("slug") ?? "";
  const search = (event) => {
    event.preventDefault();
    location.hash = `#/?slug=${encodeURIComponent(new FormData(event.target).get("slug"))}`;
  };
  const list = await listed("Every tenant", [
    ["Tenant", (each) => each.name],
    ["Short name", (each) => each.slug],
    ["Id", (each) => short(each.tenant_id)],
    ["State", (each) => pill(each.status)],
    ["Where", (each) => `${each.country}, ${each.currency}`],
    ["Not yet known in", (each) => services(each.acknowledged) || services(each.ready)],
    ["", (each) => h("div", { class: "row" }, (MAY[each.status] ?? []).map((name) =>
      h("button", { type: "button", class: name === "resume" ? null : "grave", "aria-label": `${EFFECTS[name][0]} ${each.name} …`, onclick: () => act(each, name, again) }, `${EFFECTS[name][0]} …`)))],
  ], (cursor) => get("/v1/tenants", { slug, cursor }), slug ? "No tenant is called so." : "There is no tenant.");
  return [
    h("div", { class: "row top" }, h("h1", null, "Tenants"), h("button", { type: "button", class: "main", onclick: () => onboard(again) }, "New tenant …")),
    h("section", null, h("form", { class: "row", role: "search", onsubmit: search }, field("Short name", input("slug", { value: slug, pattern: "[a-z0-9][a-z0-9\\-]{1,62}" })), h("button", { type: "submit" }, "Find"))),
    h("section", null, list),
    h("p", { class: "quiet" }, "Operators' own doors (", h("code", null, "/ops"), ": parked messages of nobody's, signing keys, unknown outcomes of any tenant) stand on the services' inner ports, where no gateway leads. They are opened on the command line."),
  ];
}
