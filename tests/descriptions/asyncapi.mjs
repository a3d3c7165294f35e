// Validates docs/asyncapi.yaml. Severities: 0 is an error, 1 a warning; the rest are hints, such as that AsyncAPI has a newer version.

import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const page = new URL("../../docs/asyncapi.yaml", import.meta.url);
const found = await new Parser().validate(readFileSync(page, "utf8"));
const faults = found.filter(({ severity }) => severity <= 1);
for (const { message, path } of faults) console.error(`${path.join(".")}: ${message}`);
process.exitCode = faults.length > 0 ? 1 : 0;
if (faults.length === 0) console.log("docs/asyncapi.yaml is valid");
