// Ten thousand channels: the list scrolls, searches and sorts, and only what is looked at is in the page.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { until } from "./gateway.mjs";
import { Channels } from "./pages/channels.mjs";
import { stage } from "./stage.mjs";

let s;
before(async () => { s = await stage({ gateway: { channels: 10_000 } }); });
after(() => s?.end());

test("ten thousand channels are scrolled through with few rows in the page", async () => {
  const { page, frame } = s;
  const list = new Channels(page);
  await frame.goto("/channels");
  await page.getByText("10005 of 10005").waitFor();
  const rows = page.locator(".table .body > [role=row]");
  await list.row("busy001").waitFor();
  let most = 0;
  let read = 0;
  for (let n = 0; n < 12; n += 1) {
    await page.evaluate(() => window.scrollTo(0, document.documentElement.scrollHeight));
    const before = read;
    read = await until("further rows", async () => {
      const now = Number(await page.locator(".table").getAttribute("aria-rowcount"));
      return now > before && now;
    }, 10_000);
    most = Math.max(most, await rows.count());
  }
  assert.ok(read > 2_000, `${read} rows read`);
  assert.ok(most < 120, `${most} rows in the page at once`);
  process.stdout.write(`${read} channels read, at most ${most} rows in the page\n`);
  // Back up again: the first rows are there at once.
  await page.evaluate(() => window.scrollTo(0, 0));
  await list.row("busy001").waitFor();
});

test("they are searched and sorted by the daemon", async () => {
  const { page, frame } = s;
  const list = new Channels(page);
  await frame.goto("/channels");
  await list.search.fill("number 9876");
  await list.row("many09876").waitFor();
  await page.getByText("1 of 10005").waitFor();
  await list.search.fill("");
  await list.row("busy001").waitFor();
  await page.getByRole("columnheader", { name: "Channel" }).getByRole("button").click();
  await list.row("wechat001").waitFor();
  assert.equal(await page.getByRole("columnheader", { name: "Channel" }).getAttribute("aria-sort"), "descending");
  assert.deepEqual(s.complaints(), []);
});
