// What goes wrong in between costs nobody their form: a dead daemon, a session that ended, a lost connection.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { until } from "./gateway.mjs";
import { ChannelForm } from "./pages/channels.mjs";
import { EntryDialog } from "./pages/entries.mjs";
import { PASSWORD, stage } from "./stage.mjs";

let s;
before(async () => { s = await stage(); });
after(() => s?.end());

test("a daemon that dies and a session that ends do not cost the form", async () => {
  const { page, frame, gateway } = s;
  const form = new ChannelForm(page);
  await frame.goto("/channels/wechat001/edit");
  await form.name.fill("survives");
  await gateway.killDaemon();
  await form.save.click();
  await page.getByText("The daemon does not answer").first().waitFor();
  const alone = await gateway.chat({ channelcode: "busy001" });
  await gateway.startDaemon();
  assert.equal(alone.status, 200, "nginx goes on alone");
  assert.equal(await form.name.inputValue(), "survives");
  // The session ends elsewhere.
  await page.context().clearCookies();
  // What the page asks by itself may have noticed already, and the dialog lies over the button.
  await form.save.evaluate((button) => button.click());
  const dialog = page.getByRole("dialog").filter({ hasText: "Your session has ended" });
  await dialog.locator("input[type=password]").fill("not-the-password");
  await dialog.getByRole("button", { name: "Sign in" }).click();
  await dialog.getByRole("alert").waitFor();
  await dialog.locator("input[type=password]").fill(PASSWORD);
  await dialog.getByRole("button", { name: "Sign in" }).click();
  await frame.says("Saved");
  await page.locator("main").getByText("survives").first().waitFor();
});

test("a lost connection is shown, and what is live goes on by itself", async () => {
  const { page, frame, context } = s;
  await frame.goto("/channels/mobile002/edit");
  const form = new ChannelForm(page);
  await form.name.fill("typed while offline");
  await page.locator(".pulse:not(.off)").waitFor();
  await context.setOffline(true);
  await form.save.click();
  await page.getByText("The daemon does not answer").first().waitFor();
  assert.equal(await form.name.inputValue(), "typed while offline");
  await context.setOffline(false);
  await page.getByRole("button", { name: "Try again" }).click();
  await frame.says("Saved");
  await until("the live stream to be back", async () => (await page.locator(".pulse:not(.off)").count()) === 1, 20_000);
});

test("a dialog is not closed over what was typed, and a page is not left without a question", async () => {
  const { page, frame } = s;
  await frame.goto("/rules");
  await page.locator("[data-test=new-rule]").click();
  const dialog = new EntryDialog(page, "New rule");
  await dialog.root.locator("[data-test=name]").fill("half typed");
  await page.keyboard.press("Escape");
  await page.locator(".el-message-box").getByRole("button", { name: "Stay" }).click();
  assert.equal(await dialog.root.locator("[data-test=name]").inputValue(), "half typed");
  await dialog.cancel();
  await page.locator(".el-message-box").getByRole("button", { name: "Discard changes" }).click();
  await dialog.root.waitFor({ state: "hidden" });
  await frame.goto("/channels/mobile002/edit");
  const form = new ChannelForm(page);
  await form.name.fill("not saved");
  await frame.menu("Models");
  await page.locator(".el-message-box").getByRole("button", { name: "Stay" }).click();
  assert.equal(await form.name.inputValue(), "not saved");
  assert.deepEqual(s.complaints(), []);
});
