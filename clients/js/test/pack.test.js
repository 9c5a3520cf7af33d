/** What npm packs. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const TOP = dirname(dirname(fileURLToPath(import.meta.url)));

test("the package has what is built, its types, README and LICENSE, and nothing else", () => {
  const options = ["pack", "--dry-run", "--json", "--ignore-scripts"];
  const told = JSON.parse(execFileSync("npm", options, { cwd: TOP, encoding: "utf8", stdio: "pipe" }));
  const [{ files }] = Array.isArray(told) ? told : Object.values(told);
  const sources = readdirSync(`${TOP}/src`).map((name) => name.replace(/\.ts$/, ""));
  const built = sources.flatMap((name) => [`dist/${name}.d.ts`, `dist/${name}.js`]);
  assert.deepEqual(
    files.map((file) => file.path).sort(),
    ["LICENSE", "README.md", "package.json", ...built].sort(),
  );
});

test("it needs nothing, and no module imports anything but its neighbours", () => {
  const about = JSON.parse(readFileSync(`${TOP}/package.json`, "utf8"));
  assert.equal(about.dependencies, undefined);
  for (const name of readdirSync(`${TOP}/dist`)) {
    const text = readFileSync(`${TOP}/dist/${name}`, "utf8");
    for (const [, from] of text.matchAll(/\bfrom "([^"]*)"|\bimport\(/g)) assert.match(from, /^\.\/\w+\.js$/);
  }
});
