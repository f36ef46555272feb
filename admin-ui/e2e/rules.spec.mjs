// Rules and their templates: built without JSON, ordered, tried, shadowed; and what they decide at the gateway.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { faultsOf } from "./axe.mjs";
import { until } from "./gateway.mjs";
import { EntryDialog, Table } from "./pages/entries.mjs";
import { Rules } from "./pages/rules.mjs";
import { stage } from "./stage.mjs";

let s;
before(async () => {
  s = await stage();
  // Colours are looked at, and must not be on their way.
  await s.page.emulateMedia({ reducedMotion: "reduce" });
});
after(() => s?.end());
const status = async (headers, body) => (await s.gateway.chat(headers, body)).status;

test("a rule is built without JSON, decides, and is explained", async () => {
  const { page, frame } = s;
  const rules = new Rules(page);
  await frame.goto("/rules");
  await rules.create.click();
  const dialog = new EntryDialog(page, "New rule");
  await dialog.save();
  await dialog.problem("Name").waitFor();
  await dialog.root.locator("[data-test=name]").fill("no visitors");
  await rules.condition(dialog, "channel", "matches", "busy*");
  await dialog.saved();
  await until("the rule to decide", async () => (await status({ channelcode: "busy001" })) === 403, 5_000);
  const result = await rules.tryRequest("busy001");
  await result.getByText("Would be refused: 403").waitFor();
  await result.getByText("no visitors").first().waitFor();
  await page.keyboard.press("Escape");
});

test("what a rule does can be anything, also as JSON", async () => {
  const { page, frame, api } = s;
  const rules = new Rules(page);
  await frame.goto("/rules");
  await rules.press("no visitors", "Edit");
  const dialog = new EntryDialog(page, "no visitors");
  await dialog.check("Deny");
  await dialog.check("Cap output tokens at");
  await dialog.root.getByRole("spinbutton", { name: "Cap output tokens at" }).fill("99");
  await dialog.check("Tag the record");
  await dialog.root.getByRole("textbox", { name: "Tag the record" }).fill("busy");
  await dialog.saved();
  assert.deepEqual((await api("GET", "/rules/no%20visitors")).body.value.then, { tag: "busy", cap_max_tokens: 99 });
  await until("the rule to let requests pass", async () => (await status({ channelcode: "busy001" })) === 200, 5_000);
  await rules.press("no visitors", "Edit");
  await dialog.json(JSON.stringify({ name: "no visitors", priority: 50, when: { field: "channel", op: "eq", value: "busy001" }, then: [{ tag: "one" }, { deny: { status: 451, code: "gone", message: "" } }] }));
  await dialog.saved();
  await until("the rule of two actions to decide", async () => (await status({ channelcode: "busy001" })) === 451, 5_000);
  // Two actions are beyond the form, and survive an edit of something else there.
  await rules.press("no visitors", "Edit");
  await dialog.fill("Priority", 60);
  await dialog.saved();
  const { value } = (await api("GET", "/rules/no%20visitors")).body;
  assert.equal(value.then.length, 2);
  assert.equal(value.priority, 60);
});

test("dragging a rule, or its buttons, change which is asked first", async () => {
  const { page, frame } = s;
  const rules = new Rules(page);
  await frame.goto("/rules");
  await until("both rules", async () => (await rules.names()).length === 2, 5_000);
  assert.deepEqual(await rules.names(), ["no huge completions", "no visitors"]);
  await rules.drag("no visitors", "no huge completions");
  await until("the dragged rule on top", async () => (await rules.names())[0] === "no visitors", 5_000);
  await page.getByRole("button", { name: "Move down: no visitors" }).click();
  await until("the order of before", async () => (await rules.names())[0] === "no huge completions", 5_000);
});

test("a shadow rule decides nothing, and what it would have decided is shown", async () => {
  const { page, frame } = s;
  const rules = new Rules(page);
  await frame.goto("/rules");
  await rules.remove("no visitors");
  await frame.says("is deleted");
  await rules.create.click();
  const dialog = new EntryDialog(page, "New rule");
  await dialog.root.locator("[data-test=name]").fill("would refuse");
  await rules.condition(dialog, "channel", "is", "busy001");
  await dialog.root.locator(".el-switch").filter({ has: page.getByRole("switch", { name: "Shadow only" }) }).click();
  await dialog.saved();
  await until("requests to pass", async () => (await status({ channelcode: "busy001" })) === 200, 5_000);
  const panel = page.locator("[data-test=shadows]");
  await until("what the shadow rule matched", async () => {
    await status({ channelcode: "busy001" });
    return /would have decided \d+/.test(await panel.innerText());
  }, 20_000);
  await panel.getByRole("link").click();
  await page.getByRole("row").filter({ hasText: "shadow rule" }).first().waitFor();
});

test("what each shadow rule would have done is shown beside it, and told apart from rules in force", async () => {
  const { page, frame, api } = s;
  const rules = new Rules(page);
  const when = { field: "channel", op: "eq", value: "busy001" };
  const large = { field: "model", op: "eq", value: "chat-large" };
  for (const rule of [{ name: "would reroute", priority: 2, when: { all: [when, large] }, then: { shadow: { set_model: "chat-small" } } }, { name: "matches nobody", priority: 1, when: { field: "channel", op: "eq", value: "nobody" }, then: { shadow: { tag: "x" } } }]) {
    const made = await api("POST", "/rules", rule);
    assert.equal(made.status, 201, JSON.stringify(made.body));
  }
  const results = async (rule) => (await api("GET", `/rules/${encodeURIComponent(rule)}/shadow`)).body;
  await until("the new rule to match", async () => {
    await s.gateway.chat({ channelcode: "busy001" }, { model: "chat-large" });
    return (await results("would reroute")).hits > 0;
  });
  await frame.goto("/rules");
  assert.equal(await rules.item("no huge completions").getByRole("button", { name: "Shadow results" }).count(), 0);
  await rules.press("would reroute", "Shadow results");
  const drawer = page.getByRole("dialog", { name: "would reroute: as a shadow" });
  const { hits, requests } = await results("would reroute");
  await drawer.getByText(/of [\d,]+ requests matched/).waitFor();
  assert.match(await drawer.locator("[data-test=shadow-reroute]").innerText(), /would have gone elsewhere/);
  assert.equal(await drawer.locator("[data-test=shadow-refuse]").count(), 0);
  assert.match(await drawer.locator("[data-test=shadow-channels]").innerText(), /busy001/);
  assert.ok(hits < requests, `${hits} of ${requests}`);
  // It counts on while it is looked at.
  await s.gateway.chat({ channelcode: "busy001" }, { model: "chat-large" });
  await until("one more hit", async () => Number((await drawer.locator(".big").innerText()).replaceAll(",", "")) > hits);
  assert.deepEqual(await faultsOf(page, "[role=dialog]"), []);
  await page.keyboard.press("Escape");
  await drawer.waitFor({ state: "hidden" });
  await rules.press("matches nobody", "Shadow results");
  await page.locator("[data-test=shadow-none]").getByText("It has matched none of").waitFor();
  await page.keyboard.press("Escape");
  for (const name of ["would reroute", "matches nobody"]) await rules.remove(name);
});

test("a rule template is written once and used with values of its own", async () => {
  const { page, frame, api } = s;
  const rules = new Rules(page);
  const table = new Table(page);
  await frame.goto("/rules");
  await rules.tab("Rule templates");
  await page.locator("[data-test=new-rule-template]").click();
  const dialog = new EntryDialog(page, "New rule template");
  await dialog.save();
  await dialog.problem("Name").waitFor();
  await dialog.root.locator("[data-test=name]").fill("at most");
  await dialog.saved();
  await table.press("at most", "Use it");
  const rule = new EntryDialog(page, "New rule");
  await rule.root.locator("[data-test=name]").fill("at most 10");
  await rule.root.locator("[data-test=parameter-limit]").fill("10");
  await rule.saved();
  assert.deepEqual((await api("GET", "/rules/at%20most%2010")).body.value.with, { limit: 10 });
  await until("the template's rule to decide", async () => (await status({ channelcode: "busy001" }, { max_tokens: 11 })) === 400, 5_000);
  assert.equal(await status({ channelcode: "busy001" }, { max_tokens: 9 }), 200);
  // A template in use stays; without its rule it goes.
  await rules.tab("Rule templates");
  await table.remove("at most");
  await page.locator(".el-message--error").first().waitFor();
  await rules.tab("Rules");
  await rules.remove("at most 10");
  await rules.tab("Rule templates");
  await table.press("at most", "Edit");
  const edit = new EntryDialog(page, "at most");
  await edit.fill("What it is for", "caps answers");
  await edit.saved();
  await page.getByText("caps answers").waitFor();
  await table.remove("at most");
  await until("the template to be gone", async () => (await api("GET", "/rule-templates/at%20most")).status === 404, 5_000);
  assert.deepEqual(s.complaints(), []);
});
