// Who works here and what they may: members, invitations, roles; and what machines come in with: API keys and clients.

import { ask, check, field, h, input, listed, pill, say, short, table, tell, when } from "./dom.js";
import { call, current, get, may } from "./session.js";

async function all(path) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(path, { limit: 200, cursor });
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor);
  return items;
}

const chosenOf = (form, name) => form.getAll(name);

const boxes = (name, legend, options, chosen = []) => h("fieldset", null, h("legend", null, legend),
  options.map(([value, text]) => check(name, text, { value, checked: chosen.includes(value) })));

const roleBoxes = (roles, chosen) => boxes("roles", "Roles",
  roles.map(({ name, description }) => [name, h("span", null, h("b", null, name), description ? `: ${description}` : "")]), chosen);

// --- Members and invitations ----------------------------------------------------------------------------------------

async function invite(known, again) {
  const done = await ask({
    title: "Invite somebody", label: "Invite",
    effect: "They get a token that is good once and for a week. Nobody gives more than they have.",
    content: [field("E-mail", input("email", { type: "email", required: true, maxlength: 254 })), roleBoxes(known)],
    act: (form, key) => call("POST", "/v1/invitations", { json: { email: form.get("email").trim(), roles: chosenOf(form, "roles") }, key }),
  });
  if (!done) return;
  if (done.token) await tell("Invited", h("p", null, "This stack writes to nobody. Hand this token over yourself; it is not shown again."), h("code", { class: "secret" }, done.token));
  else say(`${done.email} is invited.`);
  again();
}

function memberActs(member, known, again) {
  const path = `/v1/members/${member.id}`;
  const change = async (title, effect, label, json, content, grave) => {
    const done = await ask({ title, effect, label, grave, content, act: (form) => call("PATCH", path, { json: json(form) }) });
    if (done) { say("Changed. What was taken away ends within five seconds."); again(); }
  };
  const isActive = member.state === "active";
  const remove = async () => {
    const done = await ask({
      title: `Remove ${member.name}?`, label: "Remove", grave: true,
      effect: "They are off the staff for good: their tokens end within five seconds, and to come back they are invited anew.",
      act: () => call("DELETE", path),
    });
    if (done) again();
  };
  return h("div", { class: "row" },
    h("button", { type: "button", "aria-label": `Roles of ${member.name} …`, onclick: () => change(`Roles of ${member.name}`, "What is taken away ends within five seconds; what is given comes with their next token.", "Change", (form) => ({ roles: chosenOf(form, "roles") }), roleBoxes(known, member.roles)) }, "Roles …"),
    isActive
      ? h("button", { type: "button", class: "grave", onclick: () => change(`Keep ${member.name} out?`, "They are signed out within five seconds and cannot sign in; their roles are kept.", "Keep out", () => ({ state: "deactivated" }), null, true) }, "Keep out …")
      : h("button", { type: "button", onclick: () => change(`Let ${member.name} in again?`, "They can sign in again, with the roles they had.", "Let in", () => ({ state: "active" })) }, "Let in …"),
    h("button", { type: "button", class: "grave", onclick: remove }, "Remove …"));
}

function invitationActs(invitation, again) {
  if (!["open", "expired"].includes(invitation.state)) return "";
  const path = `/v1/invitations/${invitation.id}`;
  const act = async (title, effect, label, work, grave) => {
    const done = await ask({ title, effect, label, grave, act: work });
    if (done?.token) await tell("Sent anew", h("code", { class: "secret" }, done.token));
    if (done) again();
  };
  return h("div", { class: "row" },
    h("button", { type: "button", onclick: () => act("Send it anew?", "They get another token; the one before is good no more.", "Send", () => call("POST", `${path}/resend`)) }, "Send anew …"),
    h("button", { type: "button", class: "grave", onclick: () => act("Withdraw it?", "The token is good no more.", "Withdraw", () => call("DELETE", path), true) }, "Withdraw …"));
}

export async function members({ again }) {
  const known = await all("/v1/roles");
  const [people, asked] = await Promise.all([
    listed("Everybody of the staff", [
      ["Name", (each) => each.name],
      ["E-mail", (each) => each.email],
      ["Roles", (each) => each.roles.join(", ")],
      ["State", (each) => pill(each.state)],
      ["Since", (each) => when(each.joined_at)],
      ["", (each) => (each.id === current().subject ? "that is you" : memberActs(each, known, again))],
    ], (cursor) => get("/v1/members", { cursor })),
    listed("Invitations, and what became of them", [
      ["E-mail", (each) => each.email],
      ["Roles", (each) => each.roles.join(", ")],
      ["State", (each) => pill(each.state)],
      ["Good until", (each) => when(each.expires_at)],
      ["", (each) => invitationActs(each, again)],
    ], (cursor) => get("/v1/invitations", { cursor }), "Nobody was invited."),
  ]);
  return [
    h("div", { class: "row top" }, h("h1", null, "Members"), h("button", { type: "button", class: "main", onclick: () => invite(known, again) }, "Invite …")),
    h("section", null, people), h("section", null, h("h2", null, "Invitations"), asked),
  ];
}

// --- Roles ----------------------------------------------------------------------------------------------------------

// What may be given: what one has oneself.
const grantable = () => [...current().scope].sort().map((each) => [each, each]);

async function editRole(role, again) {
  const content = [
    role ? "" : field("Name", input("name", { required: true, pattern: "[a-z][a-z0-9\\-]{0,62}", maxlength: 63 }), "Small letters, digits and hyphens"),
    field("What for", input("description", { maxlength: 200, value: role?.description ?? "" })),
    boxes("permissions", "It may", grantable(), role?.permissions),
  ];
  const done = await ask({
    title: role ? `Change ${role.name}` : "A new role", label: role ? "Change" : "Make it", content,
    effect: role ? "It counts for everybody who has the role: what is taken away ends within five seconds." : "Nobody has it before you give it to somebody.",
    act: (form) => {
      const json = { description: form.get("description"), permissions: chosenOf(form, "permissions") };
      return role ? call("PATCH", `/v1/roles/${role.name}`, { json }) : call("POST", "/v1/roles", { json: { name: form.get("name"), ...json } });
    },
  });
  if (done) { say("Done."); again(); }
}

async function deleteRole(role, again) {
  const done = await ask({
    title: `Delete ${role.name}?`, label: "Delete", grave: true, effect: "It is gone. While somebody has it or is invited to it, it stays, and you are told.",
    act: () => call("DELETE", `/v1/roles/${role.name}`),
  });
  if (done) again();
}

export async function roles({ again }) {
  const mayEdit = may("roles:manage");
  return [
    h("div", { class: "row top" }, h("h1", null, "Roles"), mayEdit && h("button", { type: "button", class: "main", onclick: () => editRole(null, again) }, "New role …")),
    h("section", null, table("Every role and what it allows. Six are built in", [
      ["Role", (each) => each.name],
      ["What for", (each) => each.description],
      ["It may", (each) => each.permissions.map((one) => [h("code", null, one), " "])],
      ["", (each) => mayEdit && !each.built_in && h("div", { class: "row" },
        h("button", { type: "button", onclick: () => editRole(each, again) }, "Change …"),
        h("button", { type: "button", class: "grave", onclick: () => deleteRole(each, again) }, "Delete …"))],
    ], await all("/v1/roles"))),
  ];
}

// --- Keys and clients -----------------------------------------------------------------------------------------------

const once = (title, secret, what) => tell(title, h("p", null, `${what} It is shown here and never again.`), h("code", { class: "secret" }, secret));

async function makeKey(again) {
  const done = await ask({
    title: "A new API key", label: "Make it", effect: "Whoever has the key may do what you tick, until it ends in a year or you remove it.",
    content: [field("Name", input("name", { required: true, maxlength: 200 })), boxes("scopes", "It may", grantable())],
    act: (form, key) => call("POST", "/v1/api-keys", { json: { name: form.get("name"), scopes: chosenOf(form, "scopes") }, key }),
  });
  if (!done) return;
  await once(`The key of ${done.name}`, done.key, "Give it to the program that it is for.");
  again();
}

async function makeClient(again) {
  const done = await ask({
    title: "A new client", label: "Make it", effect: "A machine with this id and secret may do what you tick, until you delete it. One with addresses to return to gets no secret: people sign in with it.",
    content: [
      field("Name", input("name", { required: true, maxlength: 200 })),
      field("Where people are sent back to, if they sign in with it", input("redirect", { type: "url", maxlength: 2000 })),
      boxes("scopes", "It may", grantable()),
    ],
    act: (form, key) => {
      const places = form.get("redirect").trim() ? { redirect_uris: [form.get("redirect").trim()] } : {};
      return call("POST", "/v1/clients", { json: { name: form.get("name"), scopes: chosenOf(form, "scopes"), ...places }, key });
    },
  });
  if (!done) return;
  if (done.client_secret) await once(done.client_id, done.client_secret, "The client's secret.");
  again();
}

function takeAway(title, effect, path, again) {
  return h("button", { type: "button", class: "grave", onclick: async () => {
    const done = await ask({ title, effect, label: "Remove", grave: true, act: () => call("DELETE", path) });
    if (done) again();
  } }, "Remove …");
}

const scopes = (each) => each.scopes.map((one) => [h("code", null, one), " "]);

export async function keys({ again }) {
  const [ours, machines] = await Promise.all([
    listed("API keys", [
      ["Name", (each) => each.name],
      ["It may", scopes],
      ["Made", (each) => when(each.created_at)],
      ["Ends", (each) => when(each.expires_at)],
      ["Last used", (each) => each.last_used_on ?? "never"],
      ["", (each) => takeAway(`Remove ${each.name}?`, "The key and every token got with it end within five seconds. What uses it stands still.", `/v1/api-keys/${each.id}`, again)],
    ], (cursor) => get("/v1/api-keys", { cursor }), "There is no key."),
    listed("Clients", [
      ["Name", (each) => each.name],
      ["Id", (each) => short(each.client_id)],
      ["It may", scopes],
      ["Secrets", (each) => each.secrets.length, "number"],
      ["Last used", (each) => each.last_used_on ?? "never"],
      ["", (each) => takeAway(`Remove ${each.name}?`, "The client's tokens end within five seconds. What uses it stands still.", `/v1/clients/${each.client_id}`, again)],
    ], (cursor) => get("/v1/clients", { cursor }), "There is no client."),
  ]);
  return [
    h("div", { class: "row top" }, h("h1", null, "Keys and clients"), h("div", { class: "row" },
      h("button", { type: "button", class: "main", onclick: () => makeKey(again) }, "New key …"),
      h("button", { type: "button", onclick: () => makeClient(again) }, "New client …"))),
    h("section", null, h("h2", null, "API keys"), ours), h("section", null, h("h2", null, "Clients"), machines),
  ];
}
