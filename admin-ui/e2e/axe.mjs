// What axe finds against a page, or a part of it: serious and critical faults alone.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export async function faultsOf(page, part = null) {
  await page.evaluate(AXE);
  return page.evaluate(async (within) => {
    const result = await window.axe.run(within ?? document, { resultTypes: ["violations"] });
    return result.violations.filter((v) => ["serious", "critical"].includes(v.impact)).map((v) => `${v.id}: ${v.nodes.length} × ${v.nodes.slice(0, 4).map((n) => n.html.slice(0, 160)).join(" | ")}`);
  }, part);
}
