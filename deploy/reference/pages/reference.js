// The reference, made of the OpenAPI document that lies beside this page.
import { fetched, part, said, searchable, table } from "./parts.js";

const found = await fetched("openapi.json");
const follow = (node) => {
  if (!node?.$ref) return node ?? {};
  return node.$ref.slice(2).split("/").reduce((at, key) => at[key], found);
};
const nameOf = (node) => node?.$ref?.split("/").pop();

/** A type in a few words, with a link where it has a name. */
function typed(schema) {
  const name = nameOf(schema);
  if (name) return part("a", { href: `#schema-${name}` }, name);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return part("span", {}, ...choices.flatMap((each, index) => (index ? [" or ", typed(each)] : [typed(each)])));
  if (schema.type === "array") return part("span", {}, "list of ", typed(schema.items ?? {}));
  if (schema.enum) return part("span", {}, schema.enum.join(" | "));
  if ("const" in schema) return part("span", {}, String(schema.const));
  return part("span", {}, [schema.type ?? "anything", schema.format].filter(Boolean).join(", "));
}

function members(schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, member]) => [
    part("code", {}, name),
    typed(member),
    part("span", {}, required.has(name) ? "" : "may be absent. ", said(member.description, "span")),
  ]);
  if (rows.length) return table(["Member", "Type", ""], rows);
  return part("p", {}, typed(schema));
}

const FORMATS = { uuid: "0198c0de-0000-7000-8000-000000000001", "date-time": "2026-11-29T12:00:00Z" };

/** What such a thing looks like: the examples that are written, else what the schema allows. */
function example(schema, depth = 0) {
  if (schema.examples?.length) return schema.examples[0];
  const meant = follow(schema);
  if (meant.example !== undefined) return meant.example;
  if (meant.examples?.length) return meant.examples[0];
  if (meant.default !== undefined && meant.default !== null) return meant.default;
  if (meant.enum) return meant.enum[0];
  if ("const" in meant) return meant.const;
  const choice = (meant.anyOf ?? meant.oneOf ?? []).find((each) => each.type !== "null");
  if (choice) return example(choice, depth);
  if (meant.type === "array") return depth > 3 ? [] : [example(meant.items ?? {}, depth + 1)];
  if (meant.type === "object" || meant.properties) {
    const shown = Object.entries(meant.properties ?? {}).filter(([name]) => (meant.required ?? []).includes(name) || depth < 1);
    return depth > 3 ? {} : Object.fromEntries(shown.map(([name, member]) => [name, example(member, depth + 1)]));
  }
  return { integer: meant.minimum ?? 1, number: 1, boolean: true }[meant.type] ?? FORMATS[meant.format] ?? "text";
}

/** A path with something in each of its places, and the query it cannot do without. */
function addressed(path, parameters) {
  const shown = (each) => encodeURIComponent(each.example ?? example(each.schema ?? {}));
  const named = Object.fromEntries(parameters.filter((each) => each.in === "path").map((each) => [each.name, shown(each)]));
  const query = parameters.filter((each) => each.in === "query" && each.required).map((each) => `${each.name}=${shown(each)}`);
  return path.replace(/\{(\w+)\}/g, (_, name) => named[name] ?? name) + (query.length ? `?${query.join("&")}` : "");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function asked(path, verb, operation, parameters) {
  const lines = [`curl -X ${verb.toUpperCase()} "$CARTWRIGHT${addressed(path, parameters)}"`];
  if ((operation.security ?? []).some((each) => "bearer" in each)) lines.push('-H "Authorization: Bearer $TOKEN"');
  for (const parameter of parameters) {
    if (parameter.in === "header" && parameter.required) lines.push(`-H "${parameter.name}: ${parameter.example ?? "text"}"`);
  }
  for (const [type, body] of Object.entries(operation.requestBody?.content ?? {})) {
    lines.push(`-H "Content-Type: ${type}"`);
    const shown = body.example ?? example(body.schema);
    if (type === "application/json") lines.push(`-d ${quoted(JSON.stringify(shown))}`);
    else lines.push(...Object.entries(shown).map(([name, value]) => `--data-urlencode ${quoted(`${name}=${value}`)}`));
  }
  return part("pre", { tabindex: "0" }, part("code", {}, lines.join(" \\\n  ")));
}

function permissions(operation) {
  const named = (operation.security ?? []).flatMap((each) => each.bearer ?? []);
  if (named.length) return `Permission: ${named.join(" or ")}`;
  const open = !operation.security?.length || operation.security.some((each) => !Object.keys(each).length);
  return open ? "Open to anybody" : "Any valid token";
}

function answers(operation) {
  const rows = Object.entries(operation.responses).map(([status, given]) => {
    const answer = follow(given);
    const types = Object.values(answer.content ?? {}).filter((each) => each.schema).flatMap(({ schema }) => [typed(schema), " "]);
    const headers = Object.keys(answer.headers ?? {}).filter((name) => name !== "X-Request-Id");
    return [part("code", {}, status), part("span", {}, ...types), part("span", {}, answer.description, headers.length ? ` (${headers.join(", ")})` : "")];
  });
  return part("details", {}, part("summary", {}, "Answers"), table(["Status", "Body", ""], rows));
}

function shown(path, verb, operation) {
  const parameters = (operation.parameters ?? []).map(follow);
  const rows = parameters.map((each) => [
    part("code", {}, each.name),
    part("span", {}, each.in, each.required ? ", required" : ""),
    part("span", {}, typed(each.schema ?? {}), " ", said(each.description, "span")),
  ]);
  const bodies = Object.values(operation.requestBody?.content ?? {}).flatMap(({ schema }) => [part("h4", {}, "Body"), members(follow(schema))]);
  return part(
    "article",
    { id: operation.operationId },
    part("h3", {}, part("span", { class: "verb" }, verb.toUpperCase()), part("code", {}, path)),
    said(operation.description ?? operation.summary),
    part("p", { class: "dim" }, permissions(operation)),
    rows.length ? table(["Parameter", "Where", ""], rows) : undefined,
    ...bodies,
    asked(path, verb, operation, parameters),
    answers(operation),
  );
}

const [side, main] = [document.getElementById("operations"), document.getElementById("main")];
const items = [];
for (const tag of found.tags) {
  const links = part("ul", {});
  const section = part("section", { "aria-label": tag.name }, part("h2", { id: `tag-${tag.name}` }, tag.name), said(tag.description));
  for (const [path, operations] of Object.entries(found.paths)) {
    for (const [verb, operation] of Object.entries(operations)) {
      if (!operation.tags?.includes(tag.name)) continue;
      const node = shown(path, verb, operation);
      const link = part("li", {}, part("a", { href: `#${operation.operationId}` }, operation.summary));
      const text = `${verb} ${path} ${operation.summary} ${operation.description}`.toLowerCase();
      items.push({ node, text }, { node: link, text });
      section.append(node);
      links.append(link);
    }
  }
  side.append(part("details", {}, part("summary", {}, tag.name), links));
  main.append(section);
}
const schemas = part("section", { "aria-label": "Schemas" }, part("h2", {}, "Schemas"));
for (const [name, schema] of Object.entries(found.components.schemas)) {
  schemas.append(part("article", { id: `schema-${name}` }, part("h3", {}, name), said(schema.description), members(schema)));
}
main.append(schemas);
main.removeAttribute("aria-busy");
searchable(document.getElementById("search"), items);
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
