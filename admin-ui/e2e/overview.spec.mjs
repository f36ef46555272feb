// The first look: live traffic, how fast it is there, and what somebody new is offered.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { until } from "./gateway.mjs";
import { stage } from "./stage.mjs";

let s;
let empty;
before(async () => {
  s = await stage();
  s.traffic();
});
after(async () => {
  await s?.end();
  await empty?.end();
});

test("the overview shows live traffic by itself", async () => {
  const { page, frame } = s;
  await frame.goto("/");
  const figure = page.locator(".stat .value").first();
  await until("requests on the overview", async () => Number.parseFloat(await figure.innerText()) > 0);
  await page.locator("table.top").first().getByText("busy001").waitFor();
  await page.getByText("3 of 3 deployments ready").waitFor();
});

test("the first page is there within a second, and asks no other host", async () => {
  const { page, trouble } = await s.window();
  await page.goto(s.gateway.console);
  await page.locator("main h1").first().waitFor();
  const times = [];
  for (let n = 0; n < 3; n += 1) {
    await page.reload();
    await page.locator("main h1").first().waitFor();
    times.push(await page.evaluate(() => performance.now()));
  }
  process.stdout.write(`the overview stands after ${Math.round(Math.min(...times))} ms (best of ${times.length})\n`);
  const scripts = await page.evaluate(() => performance.getEntriesByType("resource").filter((r) => r.name.endsWith(".js")).reduce((n, r) => n + r.encodedBodySize, 0));
  process.stdout.write(`with ${Math.round(scripts / 1024)} KiB of script\n`);
  assert.deepEqual(trouble, []);
});

test("whoever is here for the first time is offered a tour, once", async () => {
  const { page, frame } = await s.window({ fresh: true });
  await frame.goto("/");
  await page.locator("[data-test=tour-begin]").click();
  await page.locator(".el-tour").getByText("What happens now").waitFor();
  for (const title of ["Who calls", "Who answers", "What decides", "What was used", "The way back", "When it is urgent"]) {
    await page.locator(".el-tour__footer button").last().click();
    await page.locator(".el-tour").getByText(title).waitFor();
  }
  await page.locator(".el-tour__footer button").last().click();
  await page.reload();
  await page.locator("main h1").first().waitFor();
  assert.equal(await page.locator("[data-test=tour-invite]").count(), 0);
});

test("an empty gateway says what it needs, and takes sample data", async () => {
  empty = await stage({ gateway: { documents: { channels: { channels: [] }, models: { models: [] }, providers: { providers: [] }, rules: { rules: [] }, templates: { templates: [] } } } });
  const { page, frame, api, gateway } = empty;
  await frame.goto("/channels");
  await page.getByText("No channels yet").waitFor();
  await frame.goto("/");
  await page.locator("[data-test=first-steps]").getByText("Add a provider").waitFor();
  await page.locator("[data-test=sample]").click();
  await frame.says("The sample is there");
  assert.equal((await api("GET", "/channels/sample001")).status, 200);
  // The sample's provider stands at a port that is not this test's.
  const provider = (await api("GET", "/providers/sample")).body;
  await api("PATCH", "/providers/sample", { base_url: gateway.mock }, `"${provider.etag}"`);
  await until("the sample to answer", async () => (await gateway.chat({ channelcode: "sample001" }, { model: "sample-chat" })).status === 200, 10_000);
  await until("the first steps to be done", async () => (await page.locator("[data-test=first-steps]").count()) === 0, 20_000);
  assert.deepEqual([...s.complaints(), ...empty.complaints()], []);
});
