// What is done at once: a channel blocked and its streams ended, limits topped up and reset, maintenance. Each is seen where
// it is in force, and taken back from there.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { faultsOf } from "./axe.mjs";
import { until } from "./gateway.mjs";
import { Emergency } from "./pages/emergency.mjs";
import { signIn, stage } from "./stage.mjs";

let s;
before(async () => {
  s = await stage();
  // Colours are looked at, and must not be on their way.
  await s.page.emulateMedia({ reducedMotion: "reduce" });
  const limits = [{ name: "few", metric: "requests", max: 2, window: "10m" }];
  const made = await s.api("POST", "/channels", { code: "small001", trusted: true, limits });
  assert.equal(made.status, 201, JSON.stringify(made.body));
});
after(() => s?.end());
const ask = (code, body) => s.gateway.chat({ channelcode: code }, body);
const status = async (code, body) => (await ask(code, body)).status;

test("a channel is blocked with its streams, which the drawer shows and takes back", async () => {
  const { page, frame, api } = s;
  const emergency = new Emergency(page);
  const running = await s.gateway.stream({ channelcode: "busy001" }, { max_tokens: 5_000, mock: { tokens: 5_000, interval: "20ms" } });
  assert.equal(running.status, 200);
  await frame.goto("/channels/busy001");
  await emergency.openHere();
  await emergency.inForce.getByText("Nothing: all channels are served").waitFor();
  await emergency.because("a browser test");
  await emergency.press("emergency-ending");
  await emergency.sure("block", "Block");
  await emergency.inForce.getByText("busy001 is blocked").waitFor();
  assert.match(await running.text, /ended_by_operator/);
  assert.equal(await status("busy001"), 403);
  const rows = (await api("GET", "/audit?resource=emergency&limit=5")).body;
  assert.match(JSON.stringify(rows), /a browser test/);
  assert.deepEqual(await faultsOf(page, "[role=dialog]"), []);
  await emergency.takeBack("busy001");
  await emergency.inForce.getByText("Nothing: all channels are served").waitFor();
  assert.equal(await status("busy001"), 200);
});

test("streams of a channel end without blocking it", async () => {
  const { page, frame } = s;
  const emergency = new Emergency(page);
  const running = await s.gateway.stream({ channelcode: "busy001" }, { max_tokens: 5_000, mock: { tokens: 5_000, interval: "20ms" } });
  await frame.goto("/");
  await emergency.open();
  await emergency.about("A channel", "busy001");
  await emergency.sure("end-streams", "End its streams");
  assert.match(await running.text, /ended_by_operator/);
  assert.equal(await status("busy001"), 200);
});

test("a limit is topped up, taken back and reset, and nginx follows", async () => {
  const { page, frame } = s;
  const emergency = new Emergency(page);
  assert.deepEqual([await status("small001"), await status("small001"), await status("small001")], [200, 200, 429]);
  await frame.goto("/channels/small001");
  await emergency.openHere();
  await emergency.topUp("few", 1);
  await emergency.inForce.getByText("small001: few has 1 more").waitFor();
  assert.deepEqual([await status("small001"), await status("small001")], [200, 429]);
  await emergency.close();
  await frame.goto("/channels/small001");
  await page.locator("main").getByText("small001: few has 1 more").waitFor();
  await emergency.openHere();
  await emergency.takeBack("few has 1 more");
  await emergency.inForce.getByText("Nothing: all channels are served").waitFor();
  await emergency.reset("few");
  await until("the limit to be empty", async () => (await emergency.limit("few").getByRole("meter").getAttribute("aria-valuenow")) === "0", 5_000);
  assert.deepEqual([await status("small001"), await status("small001"), await status("small001")], [200, 200, 429]);
});

test("limits of a model and of everything are topped up likewise", async () => {
  const { page, frame, api } = s;
  const emergency = new Emergency(page);
  const model = (await api("GET", "/models/chat-large")).body;
  await api("PATCH", "/models/chat-large", { limits: [{ name: "of the model", metric: "requests", max: 1, window: "10m" }] }, `"${model.etag}"`);
  const settings = (await api("GET", "/settings")).body;
  await api("PATCH", "/settings", { limits: [{ name: "of all", metric: "requests", max: 100_000, window: "10m" }] }, `"${settings.etag}"`);
  const large = { model: "chat-large" };
  assert.deepEqual([await status("busy001", large), await status("busy001", large)], [200, 429]);
  await frame.goto("/models/chat-large");
  await emergency.openHere();
  await emergency.topUp("of the model", 1);
  await emergency.inForce.getByText("chat-large: of the model has 1 more").waitFor();
  assert.deepEqual([await status("busy001", large), await status("busy001", large)], [200, 429]);
  await emergency.about("Everything");
  await emergency.topUp("of all", 500);
  await emergency.inForce.getByText("everything together: of all has 500 more").waitFor();
  await emergency.takeBack("of all has 500 more");
  await emergency.takeBack("of the model has 1 more");
  await emergency.inForce.getByText("Nothing: all channels are served").waitFor();
  await emergency.close();
});

test("maintenance stands on top of every page, for everybody, until it is taken back", async () => {
  const { page, frame, api } = s;
  const emergency = new Emergency(page);
  const { body } = await api("POST", "/accounts", { name: "onlooker", roles: ["viewer"] });
  const viewer = await s.window({ colorScheme: "dark", reducedMotion: "reduce", locale: "zh-CN" }, null);
  await signIn(viewer.context, s.gateway.console, "onlooker", body.password, "another-test-password-4");
  await viewer.frame.goto("/usage");
  const seen = new Emergency(viewer.page);
  assert.equal(await seen.banner.count(), 0);

  await frame.goto("/");
  await emergency.open();
  await emergency.root.locator("[data-test=maintenance-message]").fill("back at noon");
  await emergency.sure("maintenance-on", "Begin maintenance");
  await emergency.banner.getByText("back at noon").waitFor();
  const refused = await ask("busy001");
  assert.equal(refused.status, 503);
  assert.equal(refused.headers.get("retry-after"), "60");
  assert.match(JSON.stringify(refused.body), /back at noon/);
  await seen.banner.getByText("维护中").waitFor();
  assert.equal(await seen.banner.getByRole("button").count(), 0);
  assert.deepEqual(await faultsOf(viewer.page), []);

  await emergency.close();
  assert.deepEqual(await faultsOf(page), []);
  await page.locator("[data-test=banner-off]").click();
  await emergency.banner.waitFor({ state: "hidden" });
  assert.equal(await status("busy001"), 200);
  await seen.banner.waitFor({ state: "hidden" });
  assert.deepEqual(s.complaints(), []);
});
