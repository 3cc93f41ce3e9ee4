// What does not end by itself: what waits for a person, unknown payments, parked messages, breaks; and what must always hold.

import { ask, facts, field, h, input, listed, money, pill, problem, say, select, short, table, tell, when, words } from "./dom.js";
import { call, get, may } from "./session.js";

const SERVICES = ["cart", "checkout", "payments"];
const EVERY_MS = 15_000;
const MOST = 200;

// --- What must hold -------------------------------------------------------------------------------------------------

async function every(path, query) {
  const first = await get(path, { ...query, limit: MOST });
  return { count: first.items.length, more: first.next_cursor !== null, items: first.items };
}

const many = ({ count, more }) => `${count}${more ? " or more" : ""}`;

async function balanced() {
  const { items } = await get("/v1/ledger/accounts");
  const sums = new Map();
  for (const { currency, debited_minor: debited, credited_minor: credited } of items) {
    sums.set(currency, (sums.get(currency) ?? 0) + debited - credited);
  }
  const off = [...sums].filter(([, sum]) => sum !== 0);
  return { holds: off.length === 0, told: off.length ? off.map(([currency, sum]) => money(sum, currency)).join(", ") : `${items.length} accounts` };
}

async function agreed() {
  const { items: [last] } = await get("/v1/reconciliations", { limit: 1 });
  if (!last) return { holds: null, told: "nothing was compared yet" };
  if (last.state !== "finished") return { holds: null, told: `the last comparison is ${words(last.state)}` };
  const off = last.totals.filter(({ ours, theirs }) => ours.net_minor !== theirs.net_minor || ours.gross_minor !== theirs.gross_minor);
  return { holds: off.length === 0, told: h("a", { href: `#/reconciliations/${last.id}` }, "the last comparison") };
}

async function none(path, query) {
  const found = await every(path, query);
  return { holds: found.count === 0, told: many(found) };
}

async function noneParked() {
  const found = await Promise.all(SERVICES.map((service) => every(`/v1/${service}-parked-messages`)));
  const waiting = found.reduce((sum, each) => sum + each.items.filter(({ state }) => !["replayed", "discarded"].includes(state)).length, 0);
  return { holds: waiting === 0, told: `${waiting}${found.some((each) => each.more) ? " or more" : ""}` };
}

const INVARIANTS = [
  ["Every ledger entry has two sides", "ledger:read", balanced, "#/reconciliations"],
  ["Our books and the provider's agree", "ledger:read", agreed, "#/reconciliations"],
  ["No money was taken without an order", "ledger:read", () => none("/v1/reviews", { kind: "money-without-order" }), "#/reviews"],
  ["No refund failed without anybody seeing to it", "ledger:read", () => none("/v1/reviews", { kind: "refund-failed" }), "#/reviews"],
  ["No payment's outcome is unknown", "payments:read", () => none("/v1/payments", { state: "unknown" }), "#/payments?state=unknown"],
  ["No dispute waits for evidence", "ledger:read", () => none("/v1/reviews", { kind: "dispute-wants-evidence" }), "#/reviews"],
  ["No message is parked", "parked:read", noneParked, "#/parked"],
];

function invariant([name, , , href], result) {
  const [tone, said] = result.error ? ["bad", "could not be read"] : result.holds === null ? ["", "not known"] : result.holds ? ["good", "holds"] : ["warn", "look"];
  return h("section", null,
    h("h2", null, h("a", { href }, name)),
    h("p", null, h("b", { class: tone }, said), " ", h("span", { class: "quiet" }, result.error ? result.error.detail : result.told)));
}

// Nobody looks, or somebody is in the middle of something: what they are at must not be drawn anew under their hands.
function isBusy() {
  const at = document.activeElement;
  return document.hidden || document.querySelector("dialog[open]") !== null || (at?.closest("main") ? !at.matches("main, h1") : false);
}

export async function overview({ again, isShown }) {
  const mine = INVARIANTS.filter(([, permission]) => may(permission));
  const results = await Promise.all(mine.map(([, , look]) => look().catch((error) => ({ error }))));
  const last = await get("/v1/orders", { limit: 5 });
  const at = new Date();
  const later = () => setTimeout(() => isShown() && (isBusy() ? later() : again()), EVERY_MS);
  later();
  return [
    h("h1", null, "Overview"),
    h("div", { class: "cards" }, mine.map((each, index) => invariant(each, results[index]))),
    h("p", { class: "quiet" }, "Read again every 15 seconds; last at ", when(at.toISOString()), ". What must hold in the databases themselves is checked on the command line: ", h("code", null, "./cartwright invariants"), "."),
    h("section", null, h("h2", null, "The newest orders"), table("The five newest orders", [
      ["Number", (each) => h("a", { href: `#/orders/${each.id}` }, each.number)],
      ["Placed", (each) => when(each.placed_at)],
      ["State", (each) => pill(each.state)],
      ["Money", (each) => pill(each.payment_state)],
      ["Total", (each) => money(each.total_minor, each.currency), "number"],
    ], last.items, "There is no order yet.")),
  ];
}

// --- What waits for a person ----------------------------------------------------------------------------------------

const KINDS = ["outcome-unknown", "refund-failed", "money-without-order", "break-open", "dispute-wants-evidence"];

const LABELS = [
  [/\/resolve$/, (body) => (body.verdict === "read-again" ? "Read it again" : "It did not happen")],
  [/\/refunds$/, () => "Refund again"],
  [/\/close$/, () => "Close it"],
];

function labelled({ path, body }) {
  return LABELS.find(([pattern]) => pattern.test(path))?.[1](body ?? {}) ?? "Do it";
}

const withReason = (body, reason) => Object.fromEntries(
  Object.entries(body ?? {}).map(([name, value]) => [name, value === "{reason}" ? reason : value]));

function action(review, each, again) {
  const label = labelled(each);
  if (each.method === "GET") return looking(each);
  if (!may(each.permission)) return "";
  return h("button", { type: "button", onclick: async () => {
    const needsReason = Object.values(each.body ?? {}).includes("{reason}");
    const done = await ask({
      title: `${label}?`, effect: `This ${each.effect}.`, label, grave: each.path.endsWith("/close"),
      content: [h("p", { class: "quiet" }, `${words(review.kind)}: ${review.subject}${review.why ? `, ${review.why}` : ""}`), needsReason && field("Why", input("reason", { required: true, maxlength: 500 }), "It stands in the audit trail.")],
      act: (form, key) => call(each.method, each.path, { json: each.body ? withReason(each.body, form.get("reason")) : undefined, key }),
    });
    if (done) { say("Done as asked. What comes of it shows here."); again(); }
  } }, `${label} …`);
}

function looking({ path, permission, effect }) {
  const run = /^\/v1\/reconciliations\/([^/]+)$/.exec(path);
  const to = run ? `#/reconciliations/${run[1]}` : path.endsWith("-parked-messages") ? "#/parked" : null;
  return to && may(permission) ? h("a", { class: "button", href: to, title: effect }, "Look") : "";
}

export async function reviews({ query, again }) {
  const kind = query.get("kind") ?? "";
  const list = await listed("What the machine will not end by itself, the oldest first", [
    ["What", (each) => h("span", null, words(each.kind), h("br"), h("span", { class: "quiet" }, each.meaning))],
    ["Of", (each) => h("span", null, words(each.subject), each.why ? [h("br"), words(each.why)] : "")],
    ["Since", (each) => when(each.since)],
    ["Until", (each) => (each.respond_by ? when(each.respond_by) : "")],
    ["Amount", (each) => money(each.amount_minor, each.currency), "number"],
    ["What may be done", (each) => h("div", { class: "row" }, each.actions.map((one) => action(each, one, again)))],
  ], (cursor) => get("/v1/reviews", { kind, cursor }), "Nothing waits for a person.");
  const turn = (event) => { location.hash = `#/reviews?kind=${event.target.value}`; };
  const chosen = select("kind", [["", "all"], ...KINDS.map((each) => [each, words(each)])], kind);
  chosen.addEventListener("change", turn);
  return [h("h1", null, "Waits for a person"), h("section", null, field("Kind", chosen)), h("section", null, list)];
}

// --- Payments -------------------------------------------------------------------------------------------------------

const STATES = ["unknown", "authorizing", "requires_action", "authorized", "capturing", "captured", "voiding", "voided", "declined", "expired"];

// What a person may say of an outcome that nobody knows; the words of what follows are those of GET /v1/reviews.
const VERDICTS = [["read-again", "Read it again: the provider is read at once, and it ends as stands there"],
  ["did-not-happen", "It did not happen: counts if the provider does not contradict; nothing is sent again, and what was asked is declined, refused or failed"]];

async function resolve(payment, again) {
  const way = ([value, text], index) => h("label", { class: "plain" }, h("input", { type: "radio", name: "verdict", value, checked: index === 0 }), text);
  const done = await ask({
    title: "What came of this payment?", label: "Have it looked into",
    effect: "The provider is read before anything counts, and nothing is ever sent to it anew on somebody's word.",
    content: [h("fieldset", null, h("legend", null, "You say"), VERDICTS.map(way)), field("Why", input("reason", { required: true, maxlength: 500 }), "It stands in the audit trail.")],
    act: (form, key) => call("POST", `/v1/payments/${payment.id}/resolve`, { json: { verdict: form.get("verdict"), reason: form.get("reason") }, key }),
  });
  if (done) { say("Looked into as asked. What comes of it shows here."); again(); }
}

export async function payments({ query, again }) {
  const state = query.get("state") ?? "unknown";
  const chosen = select("state", [...STATES.map((each) => [each, words(each)]), ["", "any"]], state);
  chosen.addEventListener("change", () => { location.hash = `#/payments?state=${chosen.value}`; });
  const list = await listed(`Payments that are ${state ? words(state) : "in any state"}`, [
    ["Payment", (each) => short(each.id)],
    ["Since", (each) => when(each.created_at)],
    ["State", (each) => h("span", null, pill(each.state), each.decline_code ? ` ${words(each.decline_code)}` : "")],
    ["Amount", (each) => money(each.amount_minor, each.currency), "number"],
    ["Taken", (each) => money(each.captured_minor, each.currency), "number"],
    ["Order", (each) => (each.order_id ? h("a", { href: `#/orders/${each.order_id}` }, "order") : "none yet")],
    ["", (each) => may("payments:resolve") && each.state === "unknown"
      && h("button", { type: "button", onclick: () => resolve(each, again) }, "Look into it …")],
  ], (cursor) => get("/v1/payments", { state, cursor }), state === "unknown" ? "Of every payment it is known what came of it." : "There is none.");
  return [
    h("h1", null, "Payments"),
    state === "unknown" && h("p", { class: "quiet" }, "The provider was asked, and no answer came. Each is looked at again by itself; what that has not settled ", h("a", { href: "#/reviews" }, "waits for a person"), "."),
    h("section", null, field("State", chosen)), h("section", null, list),
  ];
}

// --- Parked messages ------------------------------------------------------------------------------------------------

const isWaiting = ({ state }) => !["replayed", "discarded"].includes(state);

async function show(path, each) {
  try {
    const whole = await get(`${path}/${encodeURIComponent(each.id)}`);
    await tell(`Message ${each.id}`, facts([
      ["Type", whole.type], ["Key", h("code", null, whole.key)], ["Why", `${words(whole.reason)}: ${whole.detail}`],
      ["Decided", whole.decision && `${whole.decision} (${whole.decided_by})`],
      ["It says", h("code", null, whole.payload)],
    ]));
  } catch (error) {
    document.getElementById("content").prepend(problem(error));
  }
}

function decide(path, each, again) {
  const at = `${path}/${encodeURIComponent(each.id)}`;
  const told = (done) => {
    say(`${done.done.length} done.${done.stopped_by ? ` Then it stopped: ${done.stopped_by}` : ""}`);
    again();
  };
  const retry = async () => {
    const done = await ask({
      title: "Decide it again?", label: "Replay it",
      effect: "The message is applied as if it came now, and then whatever waits behind it under the same key. If it still fails, nothing changes and you are told why.",
      act: (_, key) => call("POST", `${at}/replay`, { key }),
    });
    if (done) told(done);
  };
  const discard = async () => {
    const done = await ask({
      title: "Give it up?", label: "Discard it", grave: true,
      effect: "The message is never applied: what it told is lost to this service for good. Whatever waits behind it goes on without it.",
      content: field("Why", input("reason", { required: true, maxlength: 1000 }), "It stands in the audit trail."),
      act: (form, key) => call("POST", `${at}/discard`, { json: { reason: form.get("reason") }, key }),
    });
    if (done) told(done);
  };
  return h("div", { class: "row" },
    h("button", { type: "button", onclick: () => show(path, each) }, "Look"),
    may("parked:repair") && isWaiting(each) && [
      h("button", { type: "button", onclick: retry }, "Replay …"),
      h("button", { type: "button", class: "grave", onclick: discard }, "Discard …"),
    ]);
}

async function parkedIn(service, state, again) {
  const path = `/v1/${service}-parked-messages`;
  let list;
  try {
    list = await listed(`Messages that ${service} did not apply`, [
      ["Message", (each) => h("code", null, each.id)],
      ["Parked", (each) => when(each.parked_at)],
      ["State", (each) => pill(each.state)],
      ["Type", (each) => each.type ?? ""],
      ["Why", (each) => h("span", null, words(each.reason), h("br"), h("span", { class: "quiet" }, each.detail))],
      ["What may be done", (each) => decide(path, each, again)],
    ], (cursor) => get(path, { state, cursor }), "There is none.");
  } catch (error) {
    list = problem(error);
  }
  return h("section", null, h("h2", null, service), list);
}

export async function parked({ query, again }) {
  const state = query.get("state") ?? "";
  const chosen = select("state", [["", "that wait for a decision"], ["replayed", "replayed"], ["discarded", "discarded"]], state);
  chosen.addEventListener("change", () => { location.hash = `#/parked?state=${chosen.value}`; });
  return [
    h("h1", null, "Parked messages"),
    h("p", { class: "quiet" }, "A message that cannot be applied is set aside, with those behind it under the same key, and everything else goes on. These are your shop's; messages of nobody's are for whoever runs the platform."),
    h("section", null, field("Which", chosen)),
    ...await Promise.all(SERVICES.map((service) => parkedIn(service, state, again))),
  ];
}

// --- Reconciliation -------------------------------------------------------------------------------------------------

export async function reconciliations() {
  const list = await listed("Comparisons of our books with the provider's, newest first", [
    ["Began", (each) => h("a", { href: `#/reconciliations/${each.id}` }, when(each.started_at))],
    ["State", (each) => pill(each.state)],
    ["From", (each) => when(each.window_from)],
    ["To", (each) => when(each.window_to)],
    ["Counted", (each) => Object.entries(each.counts).map(([name, count]) => `${count} ${words(name)}`).join(", ")],
  ], (cursor) => get("/v1/reconciliations", { cursor }), "Nothing was compared yet. It happens by itself, and on the command line with ./cartwright reconcile.");
  return [h("h1", null, "Reconciliation"), h("section", null, list)];
}

const side = (said) => (said ? Object.entries(said).map(([name, value]) => `${words(name)}: ${value}`).join(", ") : "nothing");

export async function reconciliation({ id, again }) {
  const run = await get(`/v1/reconciliations/${id}`);
  const rows = run.totals.flatMap(({ currency, ours, theirs }) => Object.keys(ours).map((name) => ({ currency, name, ours: ours[name], theirs: theirs[name] })));
  const close = (each) => may("payments:resolve") && each.state === "open" && h("button", { type: "button", class: "grave", onclick: async () => {
    const done = await ask({
      title: "Close this break?", label: "Close it", grave: true,
      effect: "It is settled and off the list. No money moves and no entry is made; it opens anew if either side moves.",
      content: field("Why", input("reason", { required: true, maxlength: 500 }), "It stands in the audit trail."),
      act: (form, key) => call("POST", `/v1/reconciliations/${id}/breaks/${each.id}/close`, { json: { reason: form.get("reason") }, key }),
    });
    if (done) { say("Closed."); again(); }
  } }, "Close …");
  return [
    h("h1", null, "Reconciliation"),
    h("section", null, facts([["State", pill(run.state)], ["Began", when(run.started_at)], ["Ended", when(run.finished_at)], ["From", when(run.window_from)], ["To", when(run.window_to)], ["What went wrong", run.error]])),
    h("section", null, h("h2", null, "Sums"), table("Both sides' sums", [
      ["Sum", (each) => `${words(each.name.replace(/_minor$/, ""))}, ${each.currency}`],
      ["Ours", (each) => money(each.ours, each.currency), "number"],
      ["Theirs", (each) => money(each.theirs, each.currency), "number"],
      ["", (each) => (each.ours === each.theirs ? h("span", { class: "good" }, "the same") : h("b", { class: "warn" }, "differ"))],
    ], rows, "Nothing was summed.")),
    h("section", null, h("h2", null, "Breaks"), table("Where the books differ", [
      ["What", (each) => words(each.kind)],
      ["Of", (each) => each.provider_id ?? each.our_id ?? ""],
      ["State", (each) => pill(each.state)],
      ["Ours", (each) => side(each.ours)],
      ["Theirs", (each) => side(each.theirs)],
      ["Repair", (each) => (each.repair ? words(each.repair) : each.closed_reason ?? "")],
      ["", close],
    ], run.breaks, "They agree."), run.has_more_breaks && h("p", null, "There are more than are shown.")),
  ];
}
