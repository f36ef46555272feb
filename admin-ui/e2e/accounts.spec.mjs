// Who may come in, and what they may do: by the pages, and by the API behind them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open } from "./browser.mjs";
import { until } from "./gateway.mjs";
import { Fields, Table } from "./pages/entries.mjs";
import { Console } from "./pages/console.mjs";
import { signIn, stage } from "./stage.mjs";

let s;
before(async () => { s = await stage(); });
after(() => s?.end());

/** A new account with one role; its generated password. */
async function account(name, fill = async () => {}) {
  const { page, frame } = s;
  await frame.goto("/accounts");
  await page.locator("[data-test=new-account]").click();
  const dialog = page.getByRole("dialog").filter({ hasText: "New account" });
  await page.locator("[data-test=account-name]").fill(name);
  await fill(new Fields(dialog));
  await page.locator("[data-test=account-save]").click();
  const password = await page.locator("[data-test=secret]").innerText();
  await page.keyboard.press("Escape");
  return password;
}

test("a wrong password is refused, and a generated one must be changed", async () => {
  const password = await account("fresh");
  const view = await open(s.browser, s.gateway.console);
  const frame = new Console(view.page, s.gateway.console);
  await frame.signIn("fresh", "wrong-password");
  await view.page.getByRole("alert").filter({ hasText: "Name or password is wrong." }).waitFor();
  await frame.signIn("fresh", password);
  await frame.changePassword(password, "another-test-password-2");
  await view.page.locator("main h1").filter({ hasText: "Overview" }).waitFor();
  assert.deepEqual(view.trouble, []);
  await view.context.close();
});

test("an account is made with all fields, checked, changed, disabled and taken away", async () => {
  const { page, frame, api } = s;
  const table = new Table(page);
  await frame.goto("/accounts");
  await page.locator("[data-test=new-account]").click();
  await page.locator("[data-test=account-name]").fill("no name at all!");
  await page.locator("[data-test=account-save]").click();
  const dialog = page.getByRole("dialog").filter({ hasText: "New account" });
  await dialog.locator(".el-form-item__error, [role=alert]").first().waitFor();
  await page.locator("[data-test=account-name]").fill("team");
  await page.locator("[data-test=account-display]").fill("The team");
  const fields = new Fields(dialog);
  await fields.choose("Roles", "operator");
  await page.keyboard.press("Tab");
  await fields.tag("Channels", "team-*");
  await dialog.locator(".el-input-tag").getByText("*", { exact: true }).locator("xpath=../..").locator(".el-tag__close").click().catch(() => null);
  await page.locator("[data-test=account-save]").click();
  await page.locator("[data-test=secret]").waitFor();
  await page.keyboard.press("Escape");
  const made = (await api("GET", "/accounts/team")).body;
  assert.equal(made.display_name, "The team");
  assert.ok(made.roles.includes("operator") && made.channels.includes("team-*"), JSON.stringify(made));
  await table.press("The team", "Disable");
  await table.row("The team").getByText("disabled").waitFor();
  await table.press("The team", "Enable");
  await table.row("The team").getByText("enabled").waitFor();
  await table.press("The team", "Edit");
  await page.locator("[data-test=account-display]").fill("Another team");
  await page.locator("[data-test=account-save]").click();
  await table.press("Another team", "Reset password");
  await page.locator(".el-message-box").getByRole("button", { name: "Reset password" }).click();
  await page.locator("[data-test=secret]").waitFor();
  await page.keyboard.press("Escape");
  await table.remove("Another team");
  await until("the account to be gone", async () => (await api("GET", "/accounts/team")).status === 404, 5_000);
});

test("a role of one's own is made like another, changed and taken away", async () => {
  const { page, frame, api } = s;
  await frame.goto("/accounts");
  await page.locator("main .el-segmented").getByText("viewer", { exact: true }).click();
  await page.locator("[data-test=new-role]").click();
  await page.locator("[data-test=role-name]").fill("on-call");
  await page.getByRole("checkbox", { name: "Emergency: execute" }).locator("xpath=..").click();
  await page.locator("[data-test=role-save]").click();
  await until("the role", async () => (await api("GET", "/roles/on-call")).status === 200, 5_000);
  const role = (await api("GET", "/roles/on-call")).body;
  assert.deepEqual(role.permissions.emergency, ["execute"]);
  assert.ok(role.permissions.channels.includes("read") && !role.permissions.channels.includes("update"));
  await page.locator("[data-test=edit-role]").click();
  await page.getByRole("checkbox", { name: "Channels: change" }).locator("xpath=..").click();
  await page.locator("[data-test=role-save]").click();
  await until("the changed role", async () => (await api("GET", "/roles/on-call")).body.permissions.channels.includes("update"), 5_000);
  await page.locator("[data-test=delete-role]").click();
  await page.locator(".el-message-box").getByRole("button", { name: "Delete" }).click();
  await until("the role to be gone", async () => (await api("GET", "/roles/on-call")).status === 404, 5_000);
});

test("a token is shown once, works, and is taken away", async () => {
  const { page, frame, gateway } = s;
  await frame.goto("/accounts");
  await page.locator("[data-test=token-label]").fill("a script");
  await page.locator("[data-test=token-make]").click();
  const token = await page.locator("[data-test=secret]").innerText();
  await page.keyboard.press("Escape");
  const ask = async () => (await fetch(`${gateway.console}/api/v1/channels`, { headers: { authorization: `Bearer ${token}` } })).status;
  assert.equal(await ask(), 200);
  assert.ok(!(await page.content()).includes(token));
  await new Table(page).remove("a script");
  await until("the token to be refused", async () => (await ask()) === 401, 5_000);
});

test("a viewer sees, and changes nothing, neither by UI nor by API", async () => {
  const password = await account("visitor");
  const viewer = await open(s.browser, s.gateway.console);
  await signIn(viewer.context, s.gateway.console, "visitor", password, "another-test-password-3");
  const frame = new Console(viewer.page, s.gateway.console);
  for (const [path, button] of [["/channels", "new-channel"], ["/templates", "new-template"], ["/models", "new-model"], ["/providers", "new-provider"], ["/rules", "new-rule"], ["/counting", "new-counting"]]) {
    await frame.goto(path);
    await viewer.page.locator("[role=row], .rules li, .rule, main .panel").first().waitFor();
    assert.equal(await viewer.page.locator(`[data-test=${button}]`).count(), 0, path);
    assert.equal(await viewer.page.locator("main").getByRole("button", { name: "Delete", exact: true }).count(), 0, path);
  }
  await frame.goto("/channels/wechat001");
  await viewer.page.getByRole("meter").first().waitFor();
  assert.equal(await viewer.page.locator("[data-test=edit], [data-test=new-key]").count(), 0);
  await frame.goto("/settings");
  assert.equal(await viewer.page.locator("[data-test=save]").count(), 0);
  const names = await frame.menuNames();
  assert.ok(!names.includes("Accounts") && !names.includes("Audit"), names.join());
  assert.equal(await viewer.page.getByRole("button", { name: "Emergency" }).count(), 0);
  const refused = await viewer.page.evaluate(async () => {
    const { csrf } = await (await fetch("/api/v1/session")).json();
    const call = async (method, path, body) => (await fetch(`/api/v1${path}`, { method, headers: { "x-csrf-token": csrf, "if-match": "*", "content-type": "application/json" }, ...(body ? { body: JSON.stringify(body) } : {}) })).status;
    return Promise.all([
      call("DELETE", "/channels/wechat001"), call("PATCH", "/models/chat-large", { deployments: [] }), call("POST", "/rules", { name: "x" }), call("PUT", "/settings", {}),
      call("POST", "/emergency/maintenance", { on: true }), call("POST", "/versions/1/rollback", {}), call("POST", "/accounts", { name: "x", roles: ["admin"] }),
    ]);
  });
  assert.deepEqual(refused, refused.map(() => 403));
  assert.deepEqual(viewer.trouble, []);
  await viewer.context.close();
});

test("the audit log has it all, and says whether it is whole", async () => {
  const { page, frame } = s;
  await frame.goto("/audit");
  await page.getByText("403 denied").first().waitFor();
  await page.getByRole("row").filter({ hasText: "visitor" }).first().click();
  await page.getByRole("dialog").getByText("/api/v1/").first().waitFor();
  await page.keyboard.press("Escape");
  await page.locator("[data-test=verify]").click();
  await frame.says("rows are intact");
  assert.deepEqual(s.complaints(), []);
});
