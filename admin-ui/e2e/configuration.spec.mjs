// The configuration as a whole: settings, history and rollback, what an instance has of its own, maintenance, usage.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { until } from "./gateway.mjs";
import { ChannelForm } from "./pages/channels.mjs";
import { Fields } from "./pages/entries.mjs";
import { stage } from "./stage.mjs";

let s;
before(async () => { s = await stage(); });
after(() => s?.end());

test("history shows a version's difference and rolls back", async () => {
  const { page, frame, api, gateway } = s;
  const before = (await api("GET", "/channels/mobile002")).body.value.name;
  await frame.goto("/channels/mobile002/edit");
  const form = new ChannelForm(page);
  await form.name.fill("to be rolled back");
  await form.save.click();
  await frame.says("Saved");
  await frame.goto("/history");
  await page.getByRole("button", { name: "Compare" }).first().click();
  await page.locator(".diff").getByText("to be rolled back").first().waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Roll back" }).first().click();
  const box = page.locator(".el-message-box");
  await box.getByRole("textbox").fill("as it was");
  await box.getByRole("button", { name: "Roll back" }).click();
  await frame.says("in force again");
  await until("the former name", async () => (await api("GET", "/channels/mobile002")).body.value.name === before, 10_000);
  await page.getByRole("row").filter({ hasText: "as it was" }).getByText("in force").waitFor();
  assert.equal((await gateway.chat({ channelcode: "busy001" })).status, 200);
});

test("settings are checked at their fields, and two editors do not overwrite each other", async () => {
  const { page, frame, api } = s;
  await frame.goto("/settings");
  const fields = new Fields(page.locator("main"));
  await fields.fill("Least output reservation (tokens)", 0);
  await page.locator("[data-test=save]").click();
  await fields.problem("Least output reservation (tokens)").waitFor();
  await fields.fill("Least output reservation (tokens)", 20);
  const other = await s.window();
  await other.frame.goto("/settings");
  const theirs = new Fields(other.page.locator("main"));
  await theirs.fill("Usage is suspicious above × our count", 3);
  await other.page.locator("[data-test=save]").click();
  await other.frame.says("Saved");
  await other.context.close();
  await page.locator("[data-test=save]").click();
  const dialog = page.getByRole("dialog").filter({ hasText: "Somebody else changed this meanwhile" });
  await dialog.getByText("suspicious_usage_factor").waitFor();
  await dialog.getByRole("button", { name: "Take theirs" }).click();
  await fields.fill("Least output reservation (tokens)", 20);
  await fields.tag("Trusted proxies", "10.0.0.0/8");
  await page.locator("[data-test=save]").click();
  await frame.says("Saved");
  const { value } = (await api("GET", "/settings")).body;
  assert.deepEqual([value.min_output_reservation, value.suspicious_usage_factor, value.trusted_proxies], [20, 3, ["10.0.0.0/8"]]);
});

test("a former version is planned for later, and called off", async () => {
  const { page, frame, api } = s;
  await frame.goto("/history");
  await page.getByRole("button", { name: "Later …" }).first().click();
  await page.locator("[data-test=schedule-save]").click();
  await frame.says("It will be published at that time.");
  const panel = page.locator("[data-test=schedules]");
  await panel.getByText("waiting").waitFor();
  assert.equal((await api("GET", "/schedules")).body.items[0].state, "waiting");
  await panel.getByRole("button", { name: "Call off" }).click();
  await page.locator(".el-message-box").getByRole("button", { name: "Call off" }).click();
  await panel.getByText("called off", { exact: true }).waitFor();
});

test("a backup is downloaded, and brings back what was changed since", async () => {
  const { page, frame, api } = s;
  await frame.goto("/settings");
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("[data-test=backup-now]").click()]);
  const file = await download.path();
  assert.ok(!readFileSync(file, "utf8").includes("sample-provider-key"));
  const item = (await api("GET", "/channels/mobile002")).body;
  await api("PATCH", "/channels/mobile002", { name: "changed since" }, `"${item.etag}"`);
  await page.locator("[data-test=backup-file]").setInputFiles({ name: "no-backup.json", mimeType: "application/json", buffer: Buffer.from("{") });
  await frame.says("no backup");
  await page.locator("[data-test=backup-file]").setInputFiles(file);
  await page.locator(".el-message-box").getByRole("button", { name: "Restore …" }).click();
  await frame.says("Restored.");
  await until("the former name", async () => (await api("GET", "/channels/mobile002")).body.value.name === item.value.name, 5_000);
  // Backups by themselves.
  await frame.goto("/settings");
  await page.locator("[data-test=backups-on]").click();
  await page.locator("[data-test=save]").click();
  await frame.says("Saved");
  assert.equal((await api("GET", "/settings")).body.value.backup.keep, 14);
});

test("an instance has values of its own, beside what it inherits", async () => {
  const { page, frame } = s;
  await frame.goto("/instances");
  await page.locator("[data-test=overrides]").click();
  const dialog = page.getByRole("dialog").filter({ hasText: "gateway-1: its own values" });
  const editor = dialog.getByRole("textbox");
  await editor.fill(JSON.stringify({ instance: { providers: { nobody: { base_url: "http://127.0.0.1:1" } } } }));
  await dialog.locator("[data-test=save]").click();
  await dialog.getByRole("alert").filter({ hasText: "nobody" }).waitFor();
  await editor.fill(JSON.stringify({ instance: { settings: { min_output_reservation: 32 } } }));
  await dialog.locator("[data-test=save]").click();
  await frame.says("Saved");
  const row = page.getByRole("row").filter({ hasText: "settings.min_output_reservation" });
  await row.getByText("32").waitFor();
  await row.getByText("tollgate.settings.json").waitFor();
});

test("an instance is drained and takes clients again; what another one needs is told", async () => {
  const { page, frame, api } = s;
  await frame.goto("/instances");
  await page.locator("[data-test=drain]").click();
  await page.locator(".el-message-box").getByRole("button", { name: "Drain" }).click();
  await page.getByText("draining").first().waitFor();
  await frame.goto("/");
  await page.getByText("gateway-1 is drained").waitFor();
  await frame.goto("/instances");
  assert.equal((await api("GET", "/drain")).body.draining, true);
  await page.locator("[data-test=drain]").click();
  await page.getByText("serving").first().waitFor();
  await page.locator("[data-test=add-instance]").click();
  await page.locator("[data-test=join-alone]").getByText("tollgate config publish").waitFor();
  await page.keyboard.press("Escape");
});

test("usage is grouped, compared with the period before, and exported", async () => {
  const { page, frame, gateway } = s;
  for (let n = 0; n < 10; n += 1) await gateway.chat({ channelcode: "busy001" }, n % 2 ? {} : { model: "chat-large" });
  // The page asks again only once a minute.
  await until("the requests in the ledger", async () => {
    const { body } = await s.api("GET", "/usage?step=0&channel=busy001&model=chat-large");
    return body.total.requests >= 5;
  });
  await frame.goto("/usage?hours=1&group=channel_model");
  await page.getByRole("link", { name: "busy001 · chat-large" }).waitFor({ timeout: 30_000 });
  await page.locator(".el-checkbox").filter({ hasText: "Compare with the period before" }).click();
  await page.getByText("nothing before").or(page.getByText("before: ")).first().waitFor();
  await page.getByRole("columnheader", { name: "Change" }).waitFor();
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("[data-test=csv]").click()]);
  const csv = readFileSync(await download.path(), "utf8").replace("\ufeff", "").split("\r\n");
  const head = csv[0].split(",");
  assert.deepEqual(head.slice(0, 3), ['"time"', '"channel"', '"model"']);
  const tokens = csv.slice(1).filter((line) => line.includes('"busy001","chat-large"')).reduce((n, line) => n + Number(line.split(",")[head.indexOf('"total_tokens"')]), 0);
  assert.ok(tokens > 0, csv.slice(0, 3).join("\n"));
  assert.deepEqual(s.complaints(), []);
});
