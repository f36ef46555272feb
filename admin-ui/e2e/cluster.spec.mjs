// Two instances behind HAProxy, with Redis and Nacos: what the dashboard of one shows of all, and does to the other.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { faultsOf } from "./axe.mjs";
import { startCluster } from "./cluster.mjs";
import { until } from "./gateway.mjs";
import { Instances } from "./pages/instances.mjs";
import { stage } from "./stage.mjs";

let s;
before(async () => {
  s = await stage({ start: startCluster });
  await s.page.emulateMedia({ reducedMotion: "reduce" });
  s.traffic();
});
after(() => s?.end());

test("the instances, the balancer, Redis and Nacos are shown as they are", async () => {
  const { page, frame } = s;
  const instances = new Instances(page);
  await frame.goto("/instances");
  await page.getByText("all instances have the same version").waitFor();
  await instances.member("gateway1").getByText("this one").waitFor();
  await instances.member("gateway2").getByText("serving").waitFor();
  await instances.balancer.getByText("leastconn").waitFor();
  await instances.server(s.gateway.instances[0].address).getByText("up").waitFor();
  await instances.server(s.gateway.instances[1].address).getByText("up").waitFor();
  await instances.source.getByText("the server answers").waitFor();
  await instances.source.getByText("Nacos at").waitFor();
  await instances.redis.getByText("connected", { exact: true }).waitFor();
  await instances.redis.getByText(/leader|follower/).waitFor();
  assert.deepEqual(await faultsOf(page), []);
});

test("another instance is weighted, drained and taken in again", async () => {
  const { page, frame, gateway } = s;
  const instances = new Instances(page);
  const two = gateway.instances[1];
  await frame.goto("/instances");
  await instances.weigh("gateway2", 50);
  await instances.server(two.address).getByText("50", { exact: true }).waitFor();
  await instances.member("gateway2").getByRole("button", { name: "Weight of gateway2: 50" }).waitFor();
  await instances.drain("gateway2");
  await instances.away("gateway2").getByText("drained").waitFor();
  await until("HAProxy to send it nobody", async () => !(await instances.takes(two.address)));
  assert.equal((await gateway.chat({ channelcode: "busy001" })).status, 200);
  assert.deepEqual(await faultsOf(page), []);
  await instances.away("gateway2").getByRole("button", { name: "Take clients again" }).click();
  await instances.member("gateway2").getByText("serving").waitFor();
  await until("HAProxy to have it again", () => instances.takes(two.address));
  assert.equal((await two.chat({ channelcode: "busy001" })).status, 200);
});

test("the newest requests of all instances are seen at one", async () => {
  const { page, frame, gateway } = s;
  await frame.goto("/requests");
  const rows = page.getByRole("table").getByRole("row");
  await rows.nth(1).waitFor();
  await page.locator("[data-test=scope]").getByText("All instances, newest").click();
  const refresh = page.getByRole("button", { name: "Refresh" });
  for (const name of ["gateway1", "gateway2"]) {
    await until(`a request of ${name}`, async () => {
      await gateway.instances[name === "gateway1" ? 0 : 1].chat({ channelcode: "busy001" });
      await refresh.click();
      return (await rows.filter({ hasText: name }).count()) > 0;
    });
  }
  assert.match(page.url(), /scope=cluster/);
  assert.deepEqual(await faultsOf(page), []);
});

test("a Redis that is gone is named with what to do, in both languages, and its return too", async () => {
  const { page, frame, gateway } = s;
  const instances = new Instances(page);
  await frame.goto("/instances");
  const phone = await s.window({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, locale: "zh-CN", colorScheme: "dark", reducedMotion: "reduce" });
  await phone.frame.goto("/instances");
  await gateway.stopRedis();
  await page.locator("[data-test=redis-trouble]").getByText("Redis cannot be reached, for").waitFor();
  await phone.page.locator("[data-test=redis-trouble]").getByText("无法连接 Redis").first().waitFor();
  for (const view of [page, phone.page]) {
    assert.deepEqual(await faultsOf(view), []);
    assert.ok((await view.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)) <= 1);
  }
  await frame.goto("/");
  await page.getByText("Redis cannot be reached").waitFor();
  assert.equal((await gateway.chat({ channelcode: "busy001" })).status, 200);
  await gateway.startRedis();
  await page.getByText("Redis answers").waitFor();
  await frame.goto("/instances");
  await instances.redis.getByText("connected", { exact: true }).waitFor();
  assert.equal(await page.locator("[data-test=redis-trouble]").count(), 0);
});

test("what another instance needs is told, without a name that is there", async () => {
  const { page, frame } = s;
  const instances = new Instances(page);
  await frame.goto("/instances");
  const dialog = await instances.add("gateway2", "10.0.0.3:8080");
  await dialog.problem("Address that the balancer reaches").getByText("there is an instance `gateway2` already").waitFor();
  await page.locator("[data-test=join-name]").fill("gateway3");
  await page.locator("[data-test=join-make]").click();
  await dialog.scope.getByText("TOLLGATE_INSTANCE=gateway3").waitFor();
  await dialog.scope.getByText("TOLLGATE_ADVERTISE=10.0.0.3:8080").waitFor();
  await dialog.scope.getByText("tollgate instance join gateway3").waitFor();
  assert.deepEqual(await faultsOf(page, "[role=dialog]"), []);
});

test("an instance that is gone leaves the list, and what it had of its own is taken away", async () => {
  const { page, frame, gateway, api } = s;
  const instances = new Instances(page);
  await gateway.instances[1].stop();
  await frame.goto("/instances");
  await instances.away("gateway2").getByText("not there").waitFor();
  assert.equal(await instances.member("gateway2").count(), 0);
  await instances.absent.getByRole("button", { name: "Remove" }).click();
  await page.locator(".el-message-box").getByRole("button", { name: "Remove" }).click();
  await instances.absent.waitFor({ state: "hidden" });
  const { documents } = (await api("GET", "/documents")).body;
  assert.ok(!documents.some((d) => d.name.includes("gateway2")), JSON.stringify(documents));
  assert.deepEqual(s.complaints(), []);
});
