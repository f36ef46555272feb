// The dashboard as people use it: real daemon, real nginx, real Chromium. The tests share one gateway and run in order.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { launch, open } from "./browser.mjs";
import { sleep, startGateway, until } from "./gateway.mjs";
import { ChannelForm, Channels } from "./pages/channels.mjs";
import { Console } from "./pages/console.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SHOTS = process.env.TOLLGATE_SCREENSHOTS ?? resolve(import.meta.dirname, "../../target/screenshots");
const PASSWORD = "a-browser-test-password-1";
const PAGES = ["/", "/channels", "/channels/wechat001", "/channels/wechat001/edit", "/templates", "/models", "/models/chat-large", "/models/chat-large/edit", "/providers", "/rules", "/counting", "/usage", "/requests", "/instances", "/history", "/audit", "/accounts", "/settings"];

let gateway;
let browser;
let admin;
let trouble;
let page;
let traffic = true;
let sending = Promise.resolve();

async function send() {
  let n = 0;
  while (traffic) {
    n += 1;
    await gateway.chat({ channelcode: n % 4 ? "busy001" : "wechat001" }, n % 3 ? {} : { model: "chat-large" }).catch(() => null);
    await sleep(150);
  }
}

before(async () => {
  gateway = await startGateway();
  browser = await launch();
  ({ page, trouble } = await open(browser, gateway.console));
  admin = new Console(page, gateway.console);
  mkdirSync(SHOTS, { recursive: true });
  sending = send();
});

after(async () => {
  traffic = false;
  await sending;
  await browser?.close();
  await gateway?.stop();
});

test("a wrong password is refused, the first one must be changed", async () => {
  await admin.signIn("admin", "wrong-password");
  await page.getByRole("alert").filter({ hasText: "Name or password is wrong." }).waitFor();
  await admin.signIn("admin", gateway.password);
  await admin.changePassword(gateway.password, PASSWORD);
  await page.locator("main h1").filter({ hasText: "Overview" }).waitFor();
});

test("the overview shows live traffic by itself", async () => {
  await admin.goto("/");
  const figure = page.locator(".stat .value").first();
  await until("requests on the overview", async () => Number.parseFloat(await figure.innerText()) > 0);
  await page.locator("table.top").first().getByText("busy001").waitFor();
});

test("a channel is created, its limit is met within a second, edited, deleted and brought back", async () => {
  const list = new Channels(page);
  const form = new ChannelForm(page);
  await admin.menu("Channels");
  await list.create.click();
  await form.code.fill("browser900");
  await form.name.fill("Made in a browser");
  await form.trust();
  await form.addLimit("request rate");
  await form.maximum(1000);
  await form.save.click();
  await admin.says("Saved");
  await until("the new channel to be served", async () => (await gateway.chat({ channelcode: "browser900" })).status === 200, 5_000);

  await page.locator("[data-test=edit]").click();
  await form.openLimit(0);
  await form.maximum(0);
  await form.save.click();
  await admin.says("Saved");
  const started = Date.now();
  await until("the edited limit in nginx's answers", async () => (await gateway.chat({ channelcode: "browser900" })).status === 429, 5_000);
  assert.ok(Date.now() - started < 5_000);

  await admin.menu("Channels");
  await list.search.fill("browser900");
  await list.row("Made in a browser").waitFor();
  await list.remove("browser900");
  await admin.says("is deleted");
  await until("the deleted channel to be refused", async () => (await gateway.chat({ channelcode: "browser900" })).status === 401, 5_000);
  await page.locator(".el-message").getByRole("button", { name: "Undo" }).click();
  await list.row("Made in a browser").waitFor();
});

test("what is wrong is said at its field, and nothing is lost", async () => {
  const form = new ChannelForm(page);
  await admin.goto("/channels/new");
  await form.code.fill("bad code with spaces");
  await form.name.fill("kept");
  await form.save.click();
  await until("a problem at the field", async () => (await form.problems()).length > 0, 10_000);
  assert.equal(await form.name.inputValue(), "kept");
  await page.getByRole("button", { name: "Cancel" }).click();
  await admin.confirm("Discard changes");
});

test("two editors: the second sees the difference and decides", async () => {
  const form = new ChannelForm(page);
  await admin.goto("/channels/mobile002/edit");
  await form.name.fill("mine");
  const other = await open(browser, gateway.console);
  const second = new Console(other.page, gateway.console);
  await second.signIn("admin", PASSWORD);
  await other.page.locator("main h1").first().waitFor();
  await second.goto("/channels/mobile002/edit");
  const theirs = new ChannelForm(other.page);
  await theirs.name.fill("theirs");
  await theirs.save.click();
  await second.says("Saved");
  await other.context.close();
  await form.save.click();
  const dialog = page.getByRole("dialog").filter({ hasText: "Somebody else changed this meanwhile" });
  await dialog.getByText("theirs").first().waitFor();
  await dialog.getByRole("button", { name: "Keep mine" }).click();
  await admin.says("Saved");
  await page.locator("main").getByText("mine").first().waitFor();
});

test("a key is shown once and opens the channel", async () => {
  await admin.goto("/channels/partner003");
  await page.locator("[data-test=new-key]").click();
  await page.locator("[data-test=make-key]").click();
  const secret = await page.locator("[data-test=secret]").innerText();
  await until("the key to work", async () => (await gateway.chat({ authorization: `Bearer ${secret}` })).status === 200, 5_000);
  await page.keyboard.press("Escape");
  await admin.goto("/channels/partner003");
  assert.ok(!(await page.content()).includes(secret));
});

test("the canary slider moves real traffic", async () => {
  await admin.goto("/models/chat-large");
  await page.getByRole("button", { name: "100 %", exact: true }).click();
  await page.locator("[data-test=canary-save]").click();
  await admin.says("of the traffic goes to the new version");
  const deployments = async () => {
    const found = new Set();
    for (let i = 0; i < 12; i += 1) {
      await gateway.chat({ channelcode: "busy001" }, { model: "chat-large" });
    }
    await sleep(1_200);
    const lines = await page.evaluate(async () => (await (await fetch("/api/v1/requests?model=chat-large&class=ok&limit=8")).json()).requests);
    for (const line of lines) found.add(line.deployment);
    return found;
  };
  await until("all traffic at the canary", async () => {
    const found = await deployments();
    return found.size === 1 && found.has("chat-large/canary");
  }, 30_000);
});

test("a rule is built without JSON, decides, and is explained", async () => {
  await admin.goto("/rules");
  await page.locator("[data-test=new-rule]").click();
  const dialog = page.getByRole("dialog").filter({ hasText: "New rule" });
  await dialog.locator("[data-test=name]").fill("no visitors");
  await dialog.getByRole("button", { name: "+ condition" }).click();
  await dialog.getByRole("textbox", { name: "Value" }).fill("browser9*");
  await dialog.getByRole("combobox", { name: "Field" }).click();
  await page.getByRole("option", { name: "channel", exact: true }).click();
  await dialog.locator("[data-test=save]").click();
  await page.locator(".rules li").filter({ hasText: "no visitors" }).waitFor();
  await page.locator("[data-test=try]").click();
  await page.locator("[data-test=try-channel]").fill("browser900");
  await page.locator("[data-test=try-run]").click();
  await page.locator("[data-test=try-result]").getByText("Would be refused: 403").waitFor();
  await until("the rule to decide", async () => (await gateway.chat({ channelcode: "browser900" })).status === 403, 5_000);
});

test("a counting rule is published, counts the next request, and is rolled back", async () => {
  const count = async () => {
    await gateway.chat({ channelcode: "busy001" }, {});
    return page.evaluate(async () => (await (await fetch("/api/v1/tokenizers")).json()).models.find((m) => m.model === "chat-small"));
  };
  await admin.goto("/counting");
  await page.locator("[data-test=bench-tokens]").waitFor();
  const before = await count();
  await page.locator("[data-test=new-counting]").click();
  const dialog = page.getByRole("dialog").filter({ hasText: "New counting rule" });
  await dialog.locator("[data-test=name]").fill("double");
  await dialog.locator("[data-test=factor] input").fill("2");
  await dialog.locator("[data-test=factor] input").blur();
  await dialog.locator("[data-test=save]").click();
  await admin.says("Saved");
  await until("the new rule to count", async () => (await count()).version !== before.version, 10_000);
  await page.locator(".rule").filter({ hasText: "double" }).getByRole("button", { name: "Delete" }).click();
  await admin.confirm("Delete");
  await until("the former rule to count", async () => (await count()).version === before.version, 10_000);
});

test("history shows a version's difference and rolls back", async () => {
  await admin.goto("/channels/mobile002/edit");
  const form = new ChannelForm(page);
  await form.name.fill("to be rolled back");
  await form.save.click();
  await admin.says("Saved");
  await admin.goto("/history");
  await page.getByRole("button", { name: "Compare" }).first().click();
  await page.locator(".diff").getByText("to be rolled back").first().waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Roll back" }).nth(1).click();
  await page.locator(".el-message-box").getByRole("button", { name: "Roll back" }).click();
  await admin.says("in force again");
  await until("the former name", async () => (await page.evaluate(async () => (await (await fetch("/api/v1/channels/mobile002")).json()).value.name)) === "mine", 10_000);
});

test("a viewer sees, and changes nothing, neither by UI nor by API", async () => {
  await admin.goto("/accounts");
  await page.locator("[data-test=new-account]").click();
  await page.locator("[data-test=account-name]").fill("visitor");
  await page.locator("[data-test=account-save]").click();
  const password = await page.locator("[data-test=secret]").innerText();
  await page.keyboard.press("Escape");
  const viewer = await open(browser, gateway.console);
  const console_ = new Console(viewer.page, gateway.console);
  await console_.signIn("visitor", password);
  await console_.changePassword(password, "another-test-password-2");
  await console_.goto("/channels");
  await viewer.page.getByText("wechat001").first().waitFor();
  assert.equal(await viewer.page.locator("[data-test=new-channel]").count(), 0);
  const names = await console_.menuNames();
  assert.ok(!names.includes("Accounts") && !names.includes("Audit"), names.join());
  const status = await viewer.page.evaluate(async () => {
    const session = await (await fetch("/api/v1/session")).json();
    return (await fetch("/api/v1/channels/wechat001", { method: "DELETE", headers: { "x-csrf-token": session.csrf, "if-match": "*" } })).status;
  });
  assert.equal(status, 403);
  assert.deepEqual(viewer.trouble, []);
  await viewer.context.close();
  await admin.goto("/audit");
  await page.getByText("403 denied").first().waitFor();
  await page.locator("[data-test=verify]").click();
  await admin.says("rows are intact");
});

test("a daemon that dies and a session that ends do not cost the form", async () => {
  const form = new ChannelForm(page);
  await admin.goto("/channels/wechat001/edit");
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
  await form.save.click();
  const dialog = page.getByRole("dialog").filter({ hasText: "Your session has ended" });
  if (await dialog.waitFor({ timeout: 8_000 }).then(() => true, () => false)) {
    await dialog.locator("input[type=password]").fill(PASSWORD);
    await dialog.getByRole("button", { name: "Sign in" }).click();
  }
  await admin.says("Saved");
  await page.locator("main").getByText("survives").first().waitFor();
});

test("every page in both languages, light and dark, wide and narrow, without an accessibility fault", async () => {
  const faults = [];
  const looks = [
    { name: "desktop", options: {} },
    { name: "phone", options: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true } },
    { name: "dark-zh", options: { viewport: { width: 1280, height: 800 }, colorScheme: "dark", locale: "zh-CN" } },
  ];
  for (const look of looks) {
    const view = await open(browser, gateway.console, look.options);
    const frame = new Console(view.page, gateway.console);
    await frame.signIn("admin", PASSWORD);
    await view.page.locator("main h1").first().waitFor();
    for (const path of PAGES) {
      await frame.goto(path);
      await sleep(900);
      const wide = await view.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (wide > 1) faults.push(`${look.name} ${path}: ${wide} px wider than the window`);
      await view.page.evaluate(AXE);
      const found = await view.page.evaluate(async () => {
        const result = await window.axe.run(document, { resultTypes: ["violations"] });
        return result.violations.filter((v) => ["serious", "critical"].includes(v.impact)).map((v) => `${v.id}: ${v.nodes.length} × ${v.nodes[0].html.slice(0, 120)}`);
      });
      for (const fault of found) faults.push(`${look.name} ${path}: ${fault}`);
      await view.page.screenshot({ path: join(SHOTS, `${look.name}${path === "/" ? "-overview" : path.replaceAll("/", "-")}.png`) });
      if (look.name === "dark-zh") {
        const text = await view.page.locator("main h1").first().innerText();
        assert.ok(path.split("/").length > 2 || /[\u4e00-\u9fff]/.test(text), `${path} is not in Chinese: ${text}`);
      }
    }
    assert.deepEqual(view.trouble, [], look.name);
    await view.context.close();
  }
  assert.deepEqual(faults, []);
});

test("the first page is there within a second, and nothing complained", async () => {
  const { page: fresh, context } = await open(browser, gateway.console);
  const frame = new Console(fresh, gateway.console);
  await frame.signIn("admin", PASSWORD);
  await fresh.locator("main h1").first().waitFor();
  await fresh.reload();
  await fresh.locator("main h1").first().waitFor();
  const timing = await fresh.evaluate(() => performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd);
  // A figure for whoever reads the run.
  process.stdout.write(`page loaded in ${Math.round(timing)} ms\n`);
  await context.close();
  assert.deepEqual(trouble, []);
});
