// Every code of a refusal, and what to do about it.
import { fetched, part, said, searchable, table } from "./parts.js";

const codes = await fetched("errors.json");
const rows = codes.map(({ code, statuses, advice }) => [part("code", { id: code }, code), statuses.join(", "), said(advice, "span")]);
const made = table(["Code", "Status", "What to do"], rows);
document.getElementById("codes").replaceWith(made);
const items = [...made.tBodies[0].rows].map((node) => ({ node, text: node.textContent.toLowerCase() }));
searchable(document.getElementById("search"), items);
