// Alerts: a receiver is added and tried, a model that is down rings the bell and is told, somebody looks at it, it is silenced.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { faultsOf } from "./axe.mjs";
import { until } from "./gateway.mjs";
import { Alerts } from "./pages/alerts.mjs";
import { signIn, stage } from "./stage.mjs";

const SECRET = "a-secret-for-browser-tests";
const came = [];
let s;
let server;
let hook;
before(async () => {
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => { body += piece; });
    request.on("end", () => {
      came.push({ signature: request.headers["tollgate-signature"] ?? "", body });
      response.end();
    });
  });
  await new Promise((done) => { server.listen(0, "127.0.0.1", done); });
  hook = `http://127.0.0.1:${server.address().port}/hook`;
  s = await stage();
  await s.page.emulateMedia({ reducedMotion: "reduce" });
});
after(async () => {
  await s?.end();
  server?.closeAllConnections();
  server?.close();
});

function isSigned({ signature, body }) {
  const [, time, code] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(signature) ?? [];
  return code === createHmac("sha256", SECRET).update(`${time}.${body}`).digest("hex");
}
const told = (rule, state) => came.some(({ body }) => JSON.parse(body).alerts.some((a) => a.rule === rule && a.state === state));

test("a receiver is added, its secret is not shown again, and a trial arrives", async () => {
  const { page, frame, api } = s;
  const alerts = new Alerts(page);
  await frame.goto("/alerts");
  await alerts.receivers.getByText("Nobody is told").waitFor();
  assert.deepEqual(await faultsOf(page), []);
  await alerts.receivers.getByRole("link", { name: "Add one in the settings" }).click();
  await alerts.addReceiver("ops", "ftp://nowhere", SECRET);
  await alerts.save();
  await alerts.settings.getByText("must begin with").waitFor();
  await alerts.settings.locator("[data-test=receiver-url]").fill(hook);
  await alerts.rule("Deployment down").getByLabel("So for").fill("0s");
  await alerts.rule("Model down").getByLabel("So for").fill("0s");
  await alerts.save();
  await frame.says("Saved");
  assert.deepEqual(await faultsOf(page), []);

  await frame.goto("/settings");
  const secret = alerts.settings.locator("[data-test=receiver-secret]");
  await secret.waitFor();
  assert.equal(await secret.inputValue(), "");
  assert.equal(await secret.getAttribute("placeholder"), "stored; type to replace");
  const { body } = await api("GET", "/settings");
  assert.deepEqual(body.value.alerts.receivers[0].secret, { encrypted: "***" });
  assert.equal(body.value.alerts.rules.model_down.for, "0s");

  await frame.goto("/alerts");
  await alerts.receivers.getByRole("button", { name: "Send a trial" }).click();
  await frame.says("Done.");
  const last = came.at(-1);
  assert.ok(isSigned(last), JSON.stringify(last));
  assert.equal(JSON.parse(last.body).test, true);
});

test("a model that is down rings the bell; somebody looks at it, and it is silenced", async () => {
  const { page, frame, api, gateway } = s;
  const alerts = new Alerts(page);
  const provider = await api("POST", "/providers", { id: "nowhere", protocol: "openai", base_url: "http://127.0.0.1:9/v1" });
  assert.equal(provider.status, 201, JSON.stringify(provider.body));
  const model = await api("POST", "/models", { name: "lost-model", deployments: [{ id: "lost", provider: "nowhere", upstream_model: "x" }], routing: { breaker: { failures: 1 } } });
  assert.equal(model.status, 201, JSON.stringify(model.body));
  await frame.goto("/alerts");
  await until("the alert", async () => {
    await gateway.chat({ channelcode: "busy001" }, { model: "lost-model" });
    return (await api("GET", "/alerts?state=firing&rule=model_down")).body.alerts.length === 1;
  }, 30_000);
  await alerts.alert("No deployment of lost-model gets requests").waitFor();
  await alerts.alert("lost gets no requests").waitFor();
  await until("the receiver to be told", () => told("model_down", "firing") && told("deployment_down", "firing"), 30_000);
  assert.ok(came.every(isSigned));
  await alerts.bell.getByText(/^\d+$/).waitFor();
  assert.deepEqual(await faultsOf(page), []);

  await alerts.acknowledge("No deployment of lost-model", "calling them");
  await alerts.alert("No deployment of lost-model").getByText("admin looks at it").waitFor();
  await alerts.alert("No deployment of lost-model").getByText("calling them").waitFor();
  await alerts.silence("lost gets no requests", "being moved");
  await alerts.alert("lost gets no requests").getByText("silenced").waitFor();
  await alerts.silences.getByText("being moved").waitFor();
  await alerts.silences.locator("[data-test=silence-end]").click();
  await alerts.silences.locator("[data-test=silence]").getByText("over").waitFor();
  await alerts.alert("lost gets no requests").locator("[data-test=alert-silence]").waitFor();

  // Whoever may only look sees the same, in their language, and changes nothing.
  const { body } = await api("POST", "/accounts", { name: "watcher", roles: ["viewer"] });
  const viewer = await s.window({ reducedMotion: "reduce", locale: "zh-CN" }, null);
  await signIn(viewer.context, gateway.console, "watcher", body.password, "another-test-password-7");
  await viewer.frame.goto("/");
  await viewer.page.locator("[data-test=overview-alerts]").getByText("条告警").waitFor();
  await viewer.page.locator("[data-test=alert-bell]").click();
  const seen = new Alerts(viewer.page);
  await seen.alert("lost-model 的所有部署均不可用").waitFor();
  assert.equal(await seen.open.getByRole("button").count(), 0);

  // What is over is told, and stands below.
  const gone = (await api("GET", "/models/lost-model")).body;
  assert.equal((await api("DELETE", "/models/lost-model", undefined, `"${gone.etag}"`)).status, 200);
  await until("the receiver to hear that it is over", () => told("model_down", "resolved"), 90_000);
  await alerts.over.getByText("No deployment of lost-model gets requests").waitFor();
  assert.deepEqual(s.complaints(), []);
});
