// What the log says of a request that failed over, and what usage says of the versions that served.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { faultsOf } from "./axe.mjs";
import { until } from "./gateway.mjs";
import { stage } from "./stage.mjs";

let s;
/** Requests to the model `two`, whose first deployment is broken. */
let served = 0;
const lines = async (query) => (await s.api("GET", `/requests?model=two&${query}`)).body.requests;

before(async () => {
  s = await stage();
  await s.page.emulateMedia({ reducedMotion: "reduce" });
  const cost = { input: 4_000, output: 4_000 };
  const model = {
    name: "two", tokenizer: "o200k_base", price: { input: 1, output: 1 },
    deployments: [
      { id: "two/broken", provider: "mock", upstream_model: "mock-small?garbage=before", version: "v1", weight: 999, cost },
      { id: "two/sound", provider: "mock", upstream_model: "mock-small?tokens=8", version: "v2", weight: 1, cost },
    ],
  };
  const made = await s.api("POST", "/models", model);
  assert.equal(made.status, 201, JSON.stringify(made.body));
  // Each worker takes the generation up by itself, and the one with the greater weight is asked first.
  await until("a request that failed over", async () => {
    const { status } = await s.gateway.chat({ channelcode: "busy001" }, { model: "two" });
    if (status !== 404) {
      assert.equal(status, 200);
      served += 1;
    }
    return (await lines("deployment=two%2Fsound")).some((line) => line.attempts === 2);
  });
});
after(() => s?.end());

test("a request that failed over shows its attempts, and what each may have cost", async () => {
  const { page, frame } = s;
  const row = (text) => page.getByRole("table").getByRole("row").filter({ hasText: text }).first();
  await frame.goto("/requests?model=two");
  await row("two/sound").waitFor();
  // An attempt is no request: it has a line only where it is asked for.
  assert.equal(await row("two/broken").count(), 0);
  await page.locator("[data-test=with-attempts]").click();
  await row("two/broken").waitFor();
  const line = (await lines("deployment=two%2Fsound")).find((l) => l.attempts === 2);
  await frame.goto(`/requests?id=${line.request_id}`);
  await row("two/sound").locator(".link").click();
  const drawer = page.getByRole("dialog", { name: "Request" });
  await drawer.getByText("2 attempts").waitFor();
  const attempts = drawer.locator("[data-test=attempts] > li");
  await attempts.nth(1).waitFor();
  const [first, second] = await attempts.allInnerTexts();
  assert.equal(await attempts.count(), 2);
  assert.match(first, /two\/broken/);
  assert.match(first, /went on to the next/);
  assert.match(first, /may cost 0\.\d+ USD, which is in no sum/);
  assert.match(second, /two\/sound/);
  assert.match(second, /200[^]*answered/);
  assert.deepEqual(await faultsOf(page, "[role=dialog]"), []);
  await page.keyboard.press("Escape");
  await drawer.waitFor({ state: "hidden" });
  // The attempt's own line leads to the same.
  await row("two/broken").locator(".link").click();
  await attempts.nth(1).waitFor();
  assert.equal(await attempts.count(), 2);
});

test("usage is told apart by version and by deployment, with latencies", async () => {
  const { page, frame, api } = s;
  await until("all requests to be booked", async () => (await api("GET", "/usage/series?group_by=version&model=two")).body.series[0]?.total.requests === served);
  for (const [group, name] of [["version", "two@v2"], ["deployment", "two/sound"]]) {
    await frame.goto(`/usage?hours=1&metric=requests&group=${group}&model=two`);
    const table = page.locator(".table[role=table]");
    const row = table.getByRole("row").filter({ hasText: name });
    await row.waitFor();
    // Who only failed has served nothing.
    assert.equal(await table.getByRole("row").count(), 2);
    const heads = await table.getByRole("columnheader").allInnerTexts();
    const cells = await row.getByRole("cell").allInnerTexts();
    const cell = (head) => cells[heads.findIndex((h) => h.trim().toLowerCase() === head.toLowerCase())];
    assert.equal(cell("requests"), String(served));
    assert.match(cell("Latency p50"), /^[\d.]+ (µs|ms|s)$/);
    assert.equal(await page.getByRole("textbox", { name: "Channel" }).count(), 0);
  }
  assert.deepEqual(s.complaints(), []);
});
