// Signing in at an identity provider: the button, who gets in, what is said to those who do not, and going on after a session ended.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { faultsOf } from "./axe.mjs";
import { open } from "./browser.mjs";
import { until } from "./gateway.mjs";
import { CLIENT, startProvider } from "./identity.mjs";
import { ChannelForm } from "./pages/channels.mjs";
import { Console } from "./pages/console.mjs";
import { Fields } from "./pages/entries.mjs";
import { freePort } from "./processes.mjs";
import { PASSWORD, stage } from "./stage.mjs";

let s;
let provider;
before(async () => {
  provider = await startProvider();
  provider.claims = { sub: "7", preferred_username: "mia", name: "Mia", groups: ["operators"] };
  s = await stage();
});
after(async () => {
  await s?.end();
  await provider?.stop();
});

/** A browser of somebody who is not signed in. */
async function visitor(looks = {}) {
  const view = await open(s.browser, s.gateway.console, { also: [provider.issuer], reducedMotion: "reduce", ...looks });
  return { ...view, frame: new Console(view.page, s.gateway.console), button: view.page.locator("[data-test=oidc]") };
}

/** Puts the provider into the settings, and waits until the daemon offers it. */
async function offer(fields) {
  const settings = (await s.api("GET", "/settings")).body;
  const oidc = { issuer: provider.issuer, client_id: CLIENT, redirect_url: `${s.gateway.console}/api/v1/oidc/callback`, label: "Example ID", roles: [{ value: "operators", roles: ["operator"] }], ...fields };
  const written = await s.api("PATCH", "/settings", { api: { oidc } }, `"${settings.etag}"`);
  assert.equal(written.status, 200, JSON.stringify(written.body));
  await until("the provider to be offered", async () => (await s.api("GET", "/login/ways")).body.oidc?.label === oidc.label);
}

test("without a provider there is no button", async () => {
  const { page, button, context } = await visitor();
  const told = page.waitForResponse((response) => response.url().endsWith("/login/ways"));
  await page.goto(s.gateway.console);
  await page.locator("#login-name").waitFor();
  await (await told).finished();
  assert.equal(await button.count(), 0);
  await context.close();
});

test("the provider is set by a form, checked at its fields", async () => {
  const { page, frame } = s;
  await frame.goto("/settings");
  await page.locator("[data-test=oidc-on]").click();
  const fields = new Fields(page.locator("main"));
  assert.equal(await fields.value("Redirect address"), `${s.gateway.console}/api/v1/oidc/callback`);
  await fields.fill("Issuer", "http://id.example");
  await fields.fill("Client id", CLIENT);
  await fields.fill("What the button calls it", "Example ID");
  const role = new Fields(page.locator("[data-test=oidc-role]"));
  await role.fill("Is (glob)", "operators");
  await page.locator("[data-test=save]").click();
  await fields.problem("Issuer").filter({ hasText: "https" }).waitFor();
  await page.locator("[data-test=oidc-role]").getByRole("alert").filter({ hasText: "must name roles" }).waitFor();
  await fields.fill("Issuer", provider.issuer);
  await role.choose("Roles", "operator");
  await page.keyboard.press("Escape");
  await page.locator("[data-test=save]").click();
  await frame.says("Saved");
  const { oidc } = (await s.api("GET", "/settings")).body.value.api;
  assert.deepEqual(oidc, {
    issuer: provider.issuer, client_id: CLIENT, redirect_url: `${s.gateway.console}/api/v1/oidc/callback`, label: "Example ID",
    roles: [{ claim: "groups", value: "operators", roles: ["operator"], channels: ["*"] }],
  });
  await until("the provider to be offered", async () => (await s.api("GET", "/login/ways")).body.oidc?.label === "Example ID");
});

test("a provider of the settings has its button, which leads back to where one wanted to be", async () => {
  const { page, frame, button, trouble, context } = await visitor({ viewport: { width: 390, height: 844 }, isMobile: true });
  await page.goto(`${s.gateway.console}/channels/wechat001`);
  await button.filter({ hasText: "Sign in with Example ID" }).waitFor();
  assert.deepEqual(await faultsOf(page), []);
  await frame.page.getByText("中文", { exact: true }).click();
  await button.filter({ hasText: "使用 Example ID 登录" }).click();
  await page.locator("main h1").filter({ hasText: "wechat001" }).waitFor();
  assert.ok(page.url().endsWith("/channels/wechat001"), page.url());
  assert.deepEqual(trouble, []);
  await context.close();
});

test("who is not let in is told why, in words, and only once", async () => {
  const { page, button, trouble, context } = await visitor();
  const alert = page.getByRole("alert");
  await page.goto(s.gateway.console);
  provider.claims = { sub: "8", preferred_username: "bo", groups: ["nobodies"] };
  await button.click();
  await alert.getByText("have no role here").waitFor();
  await until("the address to say nothing of it", () => !page.url().includes("sign_in"));
  assert.deepEqual(await faultsOf(page), []);
  provider.claims = { sub: "9", preferred_username: "admin", groups: ["operators"] };
  await button.click();
  await alert.getByText("belongs to somebody else").waitFor();
  provider.error = "access_denied";
  await button.click();
  await alert.getByText("did not sign you in").waitFor();
  provider.error = "";
  await page.goto(`${s.gateway.console}/api/v1/oidc/callback?code=x&state=y`);
  await alert.getByText("took too long").waitFor();
  await until("the address to say nothing of it", () => !page.url().includes("sign_in"));
  await page.reload();
  await page.locator("#login-name").waitFor();
  assert.equal(await alert.count(), 0);
  assert.deepEqual(trouble, []);
  await context.close();
});

test("a session that ended is begun again in another window, and the form is still there", async () => {
  provider.claims = { sub: "7", preferred_username: "mia", groups: ["operators"] };
  const { page, frame, button, trouble, context } = await visitor();
  await page.goto(`${s.gateway.console}/channels/wechat001/edit`);
  await button.click();
  const form = new ChannelForm(page);
  await form.name.fill("typed before");
  await context.clearCookies();
  await form.save.evaluate((save) => save.click());
  const dialog = page.getByRole("dialog").filter({ hasText: "Your session has ended" });
  await dialog.locator("[data-test=oidc-again]").click();
  await dialog.waitFor({ state: "hidden" });
  await frame.says("Saved");
  await until("the name", async () => (await s.api("GET", "/channels/wechat001")).body.value.name === "typed before", 5_000);
  assert.deepEqual(trouble, []);
  await context.close();
});

test("a provider that is gone is said to be so, and locks nobody out", async () => {
  // Nobody is there, and the daemon has never seen this one.
  await offer({ issuer: `http://127.0.0.1:${await freePort()}`, label: "Gone ID" });
  const { page, frame, button, trouble, context } = await visitor();
  await page.goto(s.gateway.console);
  await button.filter({ hasText: "Gone ID" }).click();
  await page.getByRole("alert").getByText("cannot be used now").waitFor();
  await until("the address to say nothing of it", () => !page.url().includes("sign_in"));
  await frame.signIn("admin", PASSWORD);
  await page.locator("main h1").filter({ hasText: "Overview" }).waitFor();
  assert.deepEqual(trouble, []);
  await context.close();
  assert.deepEqual(s.complaints(), []);
});
