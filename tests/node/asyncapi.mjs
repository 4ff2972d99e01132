// Reads an AsyncAPI document from standard input and prints what @asyncapi/parser finds wrong with it, as JSON.
import { Parser } from "@asyncapi/parser";

let text = "";
for await (const chunk of process.stdin) text += chunk;

const { document, diagnostics } = await new Parser().parse(text);
const told = diagnostics.map(({ severity, message, path }) => ({ severity, message, path: path.join(".") }));
const operations = document ? document.operations().all().map((one) => one.id()) : [];
console.log(JSON.stringify({ parsed: document !== undefined, operations, diagnostics: told }));
