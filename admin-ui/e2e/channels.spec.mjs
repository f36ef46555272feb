// Channels and their templates: made, changed, checked, taken away, brought back; and nginx follows within a second.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { until } from "./gateway.mjs";
import { ChannelForm, Channels } from "./pages/channels.mjs";
import { EntryDialog, Fields, Table } from "./pages/entries.mjs";
import { stage } from "./stage.mjs";

let s;
before(async () => { s = await stage(); });
after(() => s?.end());
const status = async (code) => (await s.gateway.chat({ channelcode: code })).status;

test("a channel of required fields is created, its limit is met within a second, deleted and brought back", async () => {
  const { page, frame } = s;
  const list = new Channels(page);
  const form = new ChannelForm(page);
  await frame.goto("/");
  await frame.menu("Channels");
  await list.create.click();
  await form.code.fill("browser900");
  await form.name.fill("Made in a browser");
  await form.trust();
  await form.addLimit("request rate");
  await form.maximum(1000);
  await form.save.click();
  await frame.says("Saved");
  await until("the new channel to be served", async () => (await status("browser900")) === 200, 5_000);

  await page.locator("[data-test=edit]").click();
  await form.openLimit(0);
  await form.maximum(0);
  await form.save.click();
  await frame.says("Saved");
  const saved = Date.now();
  await until("the edited limit in nginx's answers", async () => (await status("browser900")) === 429, 5_000);
  process.stdout.write(`an edited limit is in nginx's answers ${Date.now() - saved} ms after the form said so\n`);

  await frame.menu("Channels");
  await list.search.fill("browser900");
  await list.row("Made in a browser").waitFor();
  await list.remove("browser900");
  await frame.says("is deleted");
  await until("the deleted channel to be refused", async () => (await status("browser900")) === 401, 5_000);
  await list.undo();
  await list.row("Made in a browser").waitFor();
  await until("the channel to be back", async () => (await status("browser900")) === 429, 5_000);
});

test("every field of a channel is saved as it was set", async () => {
  const { page, frame, api } = s;
  const form = new ChannelForm(page);
  await frame.goto("/channels/new");
  await form.code.fill("full001");
  await form.name.fill("Everything");
  await form.choose("Template", "standard");
  await form.tag("Tags", "vip");
  await form.trust();
  await form.choose("Models allowed (globs)", "chat-small");
  await page.keyboard.press("Escape");
  await form.choose("Models denied", "chat-large");
  await page.keyboard.press("Escape");
  await form.addLimit("input tokens");
  await form.maximum(500);
  await form.choose("Algorithm", "fixed window");
  await form.choose("Enforcement", "soft: settled afterwards");
  await form.choose("Only for model", "chat-small");
  await form.fill("Name", "Everything");
  await form.addLimit("connections");
  await form.maximum(7);
  await form.choose("Enforcement of limits that do not say", "strict: never exceeded");
  await form.choose("Charge for aborted answers", "the whole reservation");
  // What is in force is said while it is typed, with where each part comes from.
  const preview = page.locator(".preview");
  await preview.getByText("template standard").first().waitFor();
  await preview.locator("li").filter({ hasText: "this channel" }).first().waitFor();
  await form.save.click();
  await frame.says("Saved");
  const { value } = (await api("GET", "/channels/full001")).body;
  assert.deepEqual(value, {
    code: "full001", name: "Everything", enabled: true, trusted: true, extends: "standard", tags: ["vip"],
    models: { allow: ["chat-small"], deny: ["chat-large"] },
    limits: [{ metric: "input_tokens", max: 500, window: "10m", algorithm: "fixed_window", enforcement: "soft", model: "chat-small" }, { metric: "connections", max: 7 }],
    enforcement: "strict", abort_policy: "reserved",
  });
  const session = await s.context.request.get(`${s.gateway.console}/api/v1/channels/full001/effective`);
  assert.equal(session.status(), 200);
});

test("a limit of money is typed and shown in the currency, and kept in millionths of it", async () => {
  const { page, frame, api } = s;
  const form = new ChannelForm(page);
  await frame.goto("/channels/new");
  await form.code.fill("money001");
  await form.trust();
  await form.addLimit("money");
  await page.getByRole("spinbutton", { name: "Maximum (USD)" }).waitFor();
  await form.maximum(0.5);
  await page.locator(".limits").getByText("0.50 USD cost per 24h").waitFor();
  await page.locator(".preview li").filter({ hasText: "0.50 USD cost per 24h · strict" }).waitFor();
  // The number in the field stays when it becomes one of something else, and when it comes back.
  await form.addLimit("input tokens");
  await form.maximum(3);
  await form.choose("What is counted", "cost");
  await page.locator(".limits").getByText("3.00 USD cost per 10m").waitFor();
  await form.choose("What is counted", "input tokens");
  await page.locator(".limits").getByText("3 input tokens per 10m").waitFor();
  await form.save.click();
  await frame.says("Saved");
  const { limits } = (await api("GET", "/channels/money001")).body.value;
  assert.deepEqual(limits, [{ metric: "cost", max: 500_000, window: "24h" }, { metric: "input_tokens", max: 3, window: "10m" }]);
  const topped = await api("POST", "/emergency/channels/money001/limits/top-up", { limit: "cost/24h", add: 1_250_000, for: "10m", reason: "" });
  assert.equal(topped.status, 200, JSON.stringify(topped.body));
  await frame.goto("/channels/money001");
  await page.locator("main").getByText("money001: cost per 24h has 1.25 USD more").waitFor();
  const meter = page.getByRole("meter", { name: "cost / 1d" });
  await until("what is used of the money, in its currency", async () => /0 USD \/ [\d.]+ USD/.test((await meter.innerText()).replaceAll("\n", " ")));
  await page.locator(".effective").getByText("0.50 USD cost per 24h").waitFor();
  await frame.language("中文");
  await page.locator(".effective").getByText("每 10m 3 输入 token").waitFor();
  await frame.language("EN");
});

test("what is wrong is said at its field, and nothing is lost", async () => {
  const { page, frame } = s;
  const form = new ChannelForm(page);
  await frame.goto("/channels/new");
  await form.name.fill("kept");
  await form.save.click();
  await form.problem("Channel code").waitFor();
  await form.code.fill("good001");
  await form.trust();
  await form.addLimit("input tokens");
  await page.getByRole("spinbutton", { name: "Window", exact: true }).fill("");
  await page.getByRole("spinbutton", { name: "Window", exact: true }).blur();
  await form.save.click();
  await form.problem("Window").waitFor();
  assert.equal(await form.name.inputValue(), "kept");
  await page.getByRole("button", { name: "Cancel" }).click();
  await frame.confirm("Discard changes");
});

test("two editors: the second sees the difference and decides", async () => {
  const { page, frame } = s;
  const form = new ChannelForm(page);
  await frame.goto("/channels/mobile002/edit");
  await form.name.fill("mine");
  const other = await s.window();
  await other.frame.goto("/channels/mobile002/edit");
  const theirs = new ChannelForm(other.page);
  await theirs.name.fill("theirs");
  await theirs.save.click();
  await other.frame.says("Saved");
  await other.context.close();
  await form.save.click();
  const dialog = page.getByRole("dialog").filter({ hasText: "Somebody else changed this meanwhile" });
  await dialog.getByText("theirs").first().waitFor();
  await dialog.getByRole("button", { name: "Back to the form" }).click();
  assert.equal(await form.name.inputValue(), "mine");
  await form.save.click();
  await dialog.getByRole("button", { name: "Keep mine" }).click();
  await frame.says("Saved");
  await page.locator("main").getByText("mine").first().waitFor();
});

test("a key is shown once, opens the channel, is rotated and taken away", async () => {
  const { page, frame, gateway } = s;
  const opens = (secret) => gateway.chat({ authorization: `Bearer ${secret}` }).then((answer) => answer.status);
  await frame.goto("/channels/partner003");
  await page.locator("[data-test=new-key]").click();
  const fields = new Fields(page.getByRole("dialog").filter({ hasText: "New key" }));
  await fields.fill("Name of the key", "browser");
  await page.locator("[data-test=make-key]").click();
  const secret = await page.locator("[data-test=secret]").innerText();
  await until("the key to work", async () => (await opens(secret)) === 200, 5_000);
  await page.keyboard.press("Escape");
  await frame.goto("/channels/partner003");
  assert.ok(!(await page.content()).includes(secret));
  const row = page.locator(".key").filter({ hasText: "browser" }).first();
  await row.getByRole("button", { name: "Delete" }).click();
  await frame.confirm("Delete");
  await until("the key to be refused", async () => (await opens(secret)) === 401, 5_000);
});

test("a template is made, extended, refused while in use, and taken away", async () => {
  const { page, frame, api } = s;
  const table = new Table(page);
  await frame.goto("/templates");
  await page.locator("[data-test=new-template]").click();
  const dialog = new EntryDialog(page, "New template");
  await dialog.save();
  await dialog.problem("Name").waitFor();
  await dialog.fill("Name", "gold");
  await dialog.choose("Extends", "standard");
  await dialog.tag("Models allowed (globs)", "chat-*");
  await dialog.tag("Models denied", "chat-large");
  await dialog.tag("Tags", "paid");
  await dialog.root.getByRole("button", { name: "+ connections" }).click();
  await dialog.choose("Enforcement of limits that do not say", "soft: settled afterwards");
  await dialog.choose("Charge for aborted answers", "what was produced");
  await dialog.saved();
  assert.deepEqual((await api("GET", "/templates/gold")).body.value, {
    name: "gold", extends: "standard", models: { allow: ["chat-*"], deny: ["chat-large"] }, tags: ["paid"],
    limits: [{ metric: "connections", max: 100 }], enforcement: "soft", abort_policy: "counted",
  });
  await table.press("gold", "Edit");
  const edit = new EntryDialog(page, "gold");
  await edit.tag("Tags", "eu");
  await edit.saved();
  // One that channels extend cannot go, and it is said why.
  await page.getByRole("row").filter({ has: page.getByText("standard", { exact: true }) }).filter({ hasNotText: "gold" }).getByRole("button", { name: "Delete" }).click();
  await frame.confirm("Delete");
  await page.locator(".el-message--error").first().waitFor();
  await table.remove("gold");
  await frame.says("is deleted");
  assert.equal((await api("GET", "/templates/gold")).status, 404);
  assert.deepEqual(s.complaints(), []);
});
