// Every page in both languages, light and dark, wide and narrow: no accessibility fault, nothing wider than the window, no
// text cut off. `make screenshots` keeps what it sees in docs/screenshots; any other run leaves the tree as it was.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { faultsOf } from "./axe.mjs";
import { until } from "./gateway.mjs";
import { stage } from "./stage.mjs";
import * as sample from "./sample.mjs";

const SHOTS = process.env.TOLLGATE_SCREENSHOTS;
/** Dialogs, and looks that differ little from others, are for whoever looks through all of them. */
const ALL = Boolean(process.env.TOLLGATE_SCREENSHOTS_ALL);
const PAGES = ["/", "/usage", "/requests", "/alerts", "/channels", "/channels/wechat001", "/channels/wechat001/edit", "/templates", "/models", "/models/chat-large", "/models/chat-large/edit", "/providers", "/experiments", "/rules", "/counting", "/instances", "/history", "/audit", "/accounts", "/settings"];
const LOOKS = [
  { name: "desktop", options: {} },
  { name: "phone", options: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true } },
  { name: "dark-zh", options: { viewport: { width: 1280, height: 800 }, colorScheme: "dark", locale: "zh-CN" } },
  { name: "phone-zh", options: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, locale: "zh-CN", colorScheme: "dark" }, extra: true },
];

let s;
before(async () => {
  s = await stage({ gateway: { documents: sample.documents } });
  await sample.fill(s);
  s.traffic();
  if (SHOTS) mkdirSync(SHOTS, { recursive: true });
});
after(() => s?.end());

/** The page has what it came for: no spinner, no empty chart of a series that is being asked for. */
async function settled(page) {
  await page.locator("main h1").first().waitFor();
  await page.waitForLoadState("load");
  await until("nothing to be loading", async () => (await page.locator(".el-loading-mask:visible, [aria-busy=true]").count()) === 0, 15_000);
  await page.evaluate(() => document.fonts.ready);
  await page.waitForTimeout(450);
}

/** Texts that do not fit where they stand. */
function cutOff() {
  const found = [];
  for (const element of document.querySelectorAll("main *, header *, aside *")) {
    const style = getComputedStyle(element);
    const own = [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
    const hidden = ["hidden", "clip"].includes(style.overflowX) && !element.closest(".sr, .head, svg, .el-textarea");
    if (own && hidden && element.clientWidth > 1 && element.scrollWidth > element.clientWidth + 1) found.push(`${element.className || element.tagName}: ${element.textContent.trim().slice(0, 60)}`);
  }
  return found;
}

/** Tables of which columns are out of sight, though the window is not a phone's. */
function hiddenColumns() {
  if (window.innerWidth < 1_200) return [];
  return [...document.querySelectorAll("main .table")].filter((table) => table.scrollWidth > table.clientWidth + 1).map((table) => `${table.getAttribute("aria-label")}: ${table.scrollWidth - table.clientWidth} px`);
}

for (const look of LOOKS) {
  test(`every page, ${look.name}`, async () => {
    const faults = [];
    const { page, frame, trouble } = await s.window({ reducedMotion: "reduce", ...look.options });
    for (const path of PAGES) {
      await frame.goto(path);
      await settled(page);
      // A picture of the live charts wants some seconds of them.
      if (SHOTS && path === "/") await page.waitForTimeout(20_000);
      const at = `${look.name} ${path}`;
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (wide > 1) faults.push(`${at}: ${wide} px wider than the window`);
      for (const text of await page.evaluate(cutOff)) faults.push(`${at}: cut off: ${text}`);
      for (const table of await page.evaluate(hiddenColumns)) faults.push(`${at}: columns out of sight: ${table}`);
      for (const fault of await faultsOf(page)) faults.push(`${at}: ${fault}`);
      if (SHOTS && (ALL || !look.extra)) await page.screenshot({ path: join(SHOTS, `${look.name}${path === "/" ? "-overview" : path.replaceAll("/", "-")}.png`) });
      if (look.options.locale === "zh-CN") {
        const text = await page.locator("main h1").first().innerText();
        if (path.split("/").length <= 2 && !/[\u4e00-\u9fff]/.test(text)) faults.push(`${at}: not in Chinese: ${text}`);
      }
    }
    assert.deepEqual(trouble, [], look.name);
    assert.deepEqual(faults, []);
  });
}

test("dialogs and drawers stand the same looks", async () => {
  const faults = [];
  for (const look of LOOKS.slice(1, 3)) {
    const { page, frame } = await s.window({ reducedMotion: "reduce", ...look.options });
    for (const [path, opener] of [["/rules", "[data-test=new-rule]"], ["/rules", "[data-test=try]"], ["/rules", "[data-test=shadow-open]"], ["/providers", "[data-test=new-provider]"], ["/counting", "[data-test=new-counting]"], ["/accounts", "[data-test=new-account]"], ["/accounts", "[data-test=new-role]"], ["/templates", "[data-test=new-template]"], ["/instances", "[data-test=add-instance]"], ["/channels/partner003", "[data-test=new-key]"], ["/requests", "[role=row] .link"], ["/channels/wechat001", "[data-test=emergency]"]]) {
      await frame.goto(path);
      await settled(page);
      await page.locator(opener).first().click();
      await page.getByRole("dialog").first().waitFor();
      await page.waitForTimeout(400);
      const at = `${look.name} ${path} ${opener}`;
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (wide > 1) faults.push(`${at}: ${wide} px wider than the window`);
      for (const fault of await faultsOf(page, "[role=dialog]")) faults.push(`${at}: ${fault}`);
      if (SHOTS && ALL) await page.screenshot({ path: join(SHOTS, `${look.name}-dialog${path.replaceAll("/", "-")}-${opener.replace(/\W+/g, "")}.png`) });
    }
  }
  assert.deepEqual(faults, []);
  assert.deepEqual(s.complaints(), []);
});

test("the console is usable by keyboard alone, and in another language at a click", async () => {
  const { page, frame } = await s.window();
  await frame.goto("/channels");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.locator("main h1").filter({ hasText: "New channel" }).waitFor();
  await frame.language("中文");
  await page.locator("main h1").filter({ hasText: "新建渠道" }).waitFor();
  await page.reload();
  await page.locator("main h1").filter({ hasText: "新建渠道" }).waitFor();
});
