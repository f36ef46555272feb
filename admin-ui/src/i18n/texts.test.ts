// Every key that a template names exists, and none is there that nobody names.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { texts as all } from "./all";

const texts: Record<string, readonly [string, string]> = all;

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return sources(path);
    return /\.(vue|ts)$/.test(entry.name) && !/\.test\.ts$/.test(entry.name) && !path.includes("i18n") ? [readFileSync(path, "utf8")] : [];
  });
}
const code = sources("src").join("\n");

describe("texts", () => {
  const named = [...code.matchAll(/\bt\(\s*["']([\w.]+)["']/g)].map((m) => m[1] ?? "");
  const chosen = [...code.matchAll(/'((?:nav|key|try|state|form|overview|error)\.[a-zA-Z_.]+)'|(?:title|name): "(nav\.\w+)"|[?:] "([a-z]+\.[a-zA-Z]+)"/g)].map((m) => m[1] ?? m[2] ?? m[3] ?? "");
  const prefixes = [
    ...[...code.matchAll(/\bt\(`([\w.]+\.?)\$\{/g)].map((m) => m[1] ?? ""),
    ...[...code.matchAll(/\bof\(["']([\w.]+)["'],/g)].map((m) => `${m[1]}.`),
  ];

  it("are there for every key that is named", () => {
    expect([...new Set([...named, ...chosen])].filter((key) => !(key in texts))).toEqual([]);
  });
  it("are all named somewhere", () => {
    const used = new Set([...named, ...chosen]);
    expect(Object.keys(texts).filter((key) => !used.has(key) && !prefixes.some((p) => key.startsWith(p)))).toEqual([]);
  });
  it("are there for every prefix", () => {
    expect(prefixes.filter((p) => !Object.keys(texts).some((key) => key.startsWith(p)))).toEqual([]);
  });
  it("are no branch and leaf at once", () => {
    const keys = Object.keys(texts);
    expect(keys.filter((key) => keys.some((other) => other.startsWith(`${key}.`)))).toEqual([]);
  });
  it("have the same placeholders in both languages", () => {
    const holes = (s: string) => [...s.matchAll(/\{(\w+)\}/g)].map((m) => m[1]).sort();
    for (const [key, [en, zh]] of Object.entries(texts)) expect(holes(zh), key).toEqual(holes(en));
  });
});
