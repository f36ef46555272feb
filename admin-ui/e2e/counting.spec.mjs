// Counting rules: tried on a text, published, counting the very next request, and rolled back.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { until } from "./gateway.mjs";
import { EntryDialog, pick } from "./pages/entries.mjs";
import { stage } from "./stage.mjs";

let s;
before(async () => { s = await stage(); });
after(() => s?.end());

/** Version of what counted the next request. */
async function counted() {
  const { gateway, api } = s;
  await gateway.chat({ channelcode: "busy001" }, {});
  const line = await until("the request in the log", async () => (await api("GET", "/requests?limit=1&channel=busy001")).body.requests[0], 5_000);
  return line.counting;
}

test("a counting rule is published, counts the next request, and is rolled back", async () => {
  const { page, frame, api } = s;
  await frame.goto("/counting");
  const tokens = page.locator("[data-test=bench-tokens]");
  await tokens.waitFor();
  const plain = Number(await tokens.innerText());
  const before = await counted();
  await page.locator("[data-test=new-counting]").click();
  const dialog = new EntryDialog(page, "New counting rule");
  await dialog.root.locator("[data-test=factor] input").fill("-1");
  await dialog.root.locator("[data-test=factor] input").blur();
  await dialog.save();
  await dialog.problem("Name").waitFor();
  await dialog.root.locator("[data-test=name]").fill("double");
  await dialog.root.locator("[data-test=factor] input").fill("2");
  await dialog.root.locator("[data-test=factor] input").blur();
  await dialog.fill("At least", 3);
  await dialog.fill("At most", 5000);
  await dialog.saved();
  const saved = Date.now();
  await until("the new rule to count requests", async () => (await counted()) !== before, 10_000);
  process.stdout.write(`a published counting rule counted a request ${Date.now() - saved} ms later\n`);
  const { value } = (await api("GET", "/counting-rules/double")).body;
  assert.deepEqual([value.factor, value.minimum, value.maximum], [2, 3, 5000]);
  await page.locator("[data-test=bench-text]").fill("How cold is the water? 水有多冷? ");
  await until("the bench by the new rule", async () => Number(await tokens.innerText()) >= 2 * plain - 2, 10_000);

  // Another edit, so that the first one is a former version, which the bench still knows.
  await page.locator(".rule").filter({ hasText: "double" }).getByRole("button", { name: "Edit" }).click();
  const edit = new EntryDialog(page, "double");
  await edit.root.locator("[data-test=factor] input").fill("3");
  await edit.root.locator("[data-test=factor] input").blur();
  await edit.saved();
  await pick(page, page.locator(".el-select__wrapper").filter({ has: page.getByRole("combobox", { name: "With another rule" }) }), "double as of version");
  await page.getByText("× 2", { exact: false }).first().waitFor();

  // And back, twice: by the history.
  await frame.goto("/history");
  await page.getByRole("row").filter({ hasText: "in force" }).waitFor();
  const versions = (await api("GET", "/versions")).body.versions;
  const target = versions.find((v) => !v.changed.includes("tollgate.tokenizers.json")) ?? versions.at(-1);
  await page.getByRole("row").filter({ has: page.locator("b", { hasText: new RegExp(`^${target.number}$`) }) }).getByRole("button", { name: "Roll back" }).click();
  await page.locator(".el-message-box").getByRole("button", { name: "Roll back" }).click();
  await frame.says("in force again");
  await until("the former rule to count requests", async () => (await counted()) === before, 10_000);
  assert.deepEqual(s.complaints(), []);
});

test("a rule by ratios is made and taken away", async () => {
  const { page, frame, api } = s;
  await frame.goto("/counting");
  await page.locator("[data-test=new-counting]").click();
  const dialog = new EntryDialog(page, "New counting rule");
  await dialog.root.locator("[data-test=name]").fill("ratios");
  await dialog.check("Count by ratios");
  await dialog.fill("Letters", 1);
  await dialog.saved();
  assert.equal((await api("GET", "/counting-rules/ratios")).body.value.characters.letter, 1);
  await page.locator(".rule").filter({ hasText: "ratios" }).getByRole("button", { name: "Delete" }).click();
  await frame.confirm("Delete");
  await until("the rule to be gone", async () => (await api("GET", "/counting-rules/ratios")).status === 404, 5_000);
});
