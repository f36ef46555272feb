// Providers and models: made, changed, checked, taken away; the canary slider and an experiment move real traffic.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { sleep, until } from "./gateway.mjs";
import { EntryDialog, Table } from "./pages/entries.mjs";
import { ModelForm, ModelPage } from "./pages/models.mjs";
import { stage } from "./stage.mjs";

let s;
before(async () => { s = await stage(); });
after(() => s?.end());

test("a provider is made with all of its fields, its key is never shown, and it is taken away", async () => {
  const { page, frame, api, gateway } = s;
  const table = new Table(page);
  await frame.goto("/providers");
  await page.locator("[data-test=new-provider]").click();
  const dialog = new EntryDialog(page, "New provider");
  await dialog.fill("Id", "second");
  await dialog.fill("Base URL", "no address");
  await dialog.save();
  await dialog.problem("Base URL").waitFor();
  await dialog.choose("Protocol", "OpenAI and compatible");
  await dialog.fill("Base URL", gateway.mock);
  await dialog.choose("Credential", "another header");
  await dialog.fill("Header", "x-provider-key");
  await dialog.fill("Key", "sk-secret-of-the-second");
  await dialog.fill("Host header", "second.example.com");
  await dialog.check("Probe this provider");
  // What is said of TLS stays in sight, and is refused, where none is spoken.
  await dialog.fill("Base URL", "https://second.example.com/v1");
  await dialog.fill("TLS server name", "second.example.com");
  await dialog.fill("Base URL", gateway.mock);
  await dialog.save();
  await dialog.problem("TLS server name").waitFor();
  await dialog.fill("TLS server name", "");
  await dialog.saved();
  const { value } = (await api("GET", "/providers/second")).body;
  assert.equal(value.credentials.name, "x-provider-key");
  assert.equal(value.host_header, "second.example.com");
  assert.equal(value.health_check.path, "/v1/models");
  assert.ok(!JSON.stringify(value).includes("sk-secret-of-the-second"));
  await table.press("second", "Edit");
  const edit = new EntryDialog(page, "second");
  assert.ok(!(await page.content()).includes("sk-secret-of-the-second"));
  await edit.fill("Host header", "");
  await edit.saved();
  assert.equal((await api("GET", "/providers/second")).body.value.host_header, undefined);
});

test("a model is made with all of its fields, serves, is changed and taken away", async () => {
  const { page, frame, api, gateway } = s;
  const form = new ModelForm(page);
  await frame.goto("/models/new");
  await form.name.fill("browser-model");
  await form.save.click();
  await page.locator("main").getByRole("alert").filter({ hasText: /deployment/i }).first().waitFor();
  await form.tag("Other names", "bm");
  await form.choose("Stand-in models, in order", "chat-small");
  await page.keyboard.press("Escape");
  await form.fill("Most output tokens", 2000);
  await form.fill("Output tokens if not asked for", 100);
  await form.fill("Tokenizer", "cl100k_base");
  const first = await form.addDeployment("mock");
  await first.fill("Model name there", "mock-small?tokens=10");
  await first.fill("Version", "v1");
  await form.deployment(0).getByRole("button", { name: "Cost" }).click();
  await first.fill("Id of the deployment", "bm/one");
  await form.price("deployments[0].cost", { Input: "0.05", Output: "0.2" });
  await form.choose("Balancing", "least connections");
  await form.fill("Failures until the breaker opens", 9);
  await form.price("price", { Input: "0.15", Output: "nonsense", Currency: "usd" });
  await form.fill("Altogether", 90);
  await form.save.click();
  await page.locator(".price .el-form-item__error").filter({ hasText: "amount" }).waitFor();
  await form.price("price", { Output: "2.50" });
  await form.save.click();
  await frame.says("Saved");
  const { value } = (await api("GET", "/models/browser-model")).body;
  assert.deepEqual(value.price, { input: 0.15, output: "2.50", currency: "USD" });
  assert.deepEqual(value.deployments[0].cost, { input: 0.05, output: 0.2, currency: "USD" });
  assert.equal(value.routing.balance, "least_connections");
  assert.deepEqual(value.aliases, ["bm"]);
  assert.equal(value.timeouts.total, "90s");
  await until("the new model to answer", async () => (await gateway.chat({ channelcode: "busy001" }, { model: "bm" })).status === 200, 5_000);
  // What it cost is on the overview, in the log and in usage.
  await frame.goto("/usage?metric=bill&group=model&hours=1");
  await page.getByRole("row").filter({ hasText: "browser-model" }).getByText(/^0\.0+\d+( USD)?$/).first().waitFor();
  await frame.goto("/");
  const cost = page.locator(".stat").filter({ hasText: "Cost today" });
  await until("the cost of today", async () => Number.parseFloat(await cost.locator(".value").innerText()) > 0, 40_000);

  await frame.goto("/models/browser-model/edit");
  await form.fill("Most output tokens", 3000);
  await form.save.click();
  await frame.says("Saved");
  assert.equal((await api("GET", "/models/browser-model")).body.value.max_output_tokens, 3000);
  await page.getByRole("button", { name: "Delete" }).click();
  await frame.confirm("Delete");
  await frame.says("is deleted");
  await until("the deleted model to be unknown", async () => (await gateway.chat({ channelcode: "busy001" }, { model: "browser-model" })).status === 404, 5_000);
});

test("a provider that nobody uses is deleted", async () => {
  const { page, frame, api } = s;
  const table = new Table(page);
  await frame.goto("/providers");
  // Probes of the second have been counted; no model uses it.
  await table.remove("second");
  await frame.says("is deleted");
  assert.equal((await api("GET", "/providers/second")).status, 404);
});

test("the canary slider moves real traffic", async () => {
  const { page, frame, gateway, api } = s;
  await frame.goto("/models/chat-large");
  await new ModelPage(page).canary("100 %");
  await frame.says("of the traffic goes to the new version");
  const lately = async () => {
    for (let i = 0; i < 12; i += 1) await gateway.chat({ channelcode: "busy001" }, { model: "chat-large" });
    await sleep(1_200);
    return (await api("GET", "/requests?model=chat-large&class=ok&limit=8")).body.requests.map((line) => line.deployment);
  };
  await until("all traffic at the canary", async () => (await lately()).every((d) => d === "chat-large/canary"), 30_000);
  await new ModelPage(page).canary("5 %");
  await until("traffic at the former version again", async () => (await lately()).includes("chat-large/stable"), 30_000);
});

test("an experiment is begun in the form, and its groups stand side by side", async () => {
  const { page, frame, gateway, api } = s;
  const form = new ModelForm(page);
  await frame.goto("/models/chat-large/edit");
  await page.locator("[data-test=experiment]").click();
  await page.locator("[data-test=experiment-name]").fill("bad name!");
  await form.save.click();
  await page.locator(".el-form-item__error").first().waitFor();
  await page.locator("[data-test=experiment-name]").fill("large-ab");
  await form.choose("What makes a caller", "header.x-user-id");
  await form.save.click();
  await frame.says("Saved");
  const { value } = (await api("GET", "/models/chat-large")).body;
  assert.deepEqual(value.experiment.groups.map((g) => [g.name, g.share, g.set_version]), [["a", 50, "v1"], ["b", 50, "v2"]]);
  const groups = async () => {
    for (let i = 0; i < 20; i += 1) await gateway.chat({ channelcode: "busy001", "x-user-id": `user-${i}` }, { model: "chat-large" });
    const found = (await api("GET", "/experiments/large-ab")).body.groups ?? [];
    return found.length === 2 && found.every((g) => g.requests > 0);
  };
  await until("requests in both groups", groups, 20_000);
  await frame.goto("/experiments");
  const table = page.locator("[data-test=experiment-results]");
  await until("both groups' figures", async () => {
    const cells = await table.getByRole("row").filter({ hasText: "Requests" }).getByRole("cell").allInnerTexts();
    return cells.length === 2 && cells.every((c) => Number.parseInt(c, 10) > 0);
  }, 20_000);
  await table.getByRole("link", { name: "a", exact: true }).click();
  await page.locator("main h1").filter({ hasText: "Requests" }).waitFor();
  await page.getByRole("row").filter({ hasText: "chat-large/stable" }).first().waitFor();
  assert.equal(await page.getByRole("row").filter({ hasText: "chat-large/canary" }).count(), 0);
});

test("a model's page has its latencies, and the probes of its deployments", async () => {
  const { page, frame, api } = s;
  const provider = (await api("GET", "/providers/mock")).body;
  await api("PATCH", "/providers/mock", { health_check: { type: "http", path: "/v1/models", interval: "1s" } }, `"${provider.etag}"`);
  await frame.goto("/models/chat-large");
  const histogram = page.locator("figure").filter({ hasText: "whole answer" });
  await until("a percentile", async () => /p99 [\d.]+ (µs|ms|s)/.test(await histogram.locator("dl").innerText()), 15_000);
  await until("a probe in the strip", async () => (await page.locator(".strip i").count()) > 0, 20_000);
  await page.getByRole("button", { name: "History" }).first().click();
  await page.locator(".el-timeline-item").first().waitFor();
  assert.deepEqual(s.complaints(), []);
});
