// The drawer with emergency actions, and the banner of what is in force.
export class Emergency {
  constructor(page) {
    this.page = page;
    this.root = page.getByRole("dialog").filter({ has: page.locator("[data-test=in-force]") });
    this.inForce = this.root.locator("[data-test=in-force]");
    this.banner = page.locator("[data-test=maintenance-banner]");
  }

  /** From the top of any page. */
  async open() {
    await this.page.locator("[data-test=emergency-open]").click();
    await this.root.waitFor();
  }

  /** From the page of a channel or a model. */
  async openHere() {
    await this.page.locator("main [data-test=emergency]").click();
    await this.root.waitFor();
  }

  async close() {
    await this.page.keyboard.press("Escape");
    await this.root.waitFor({ state: "hidden" });
  }

  /** What the actions are about: `A channel`, `A model` or `Everything`. */
  async about(kind, name) {
    await this.root.getByText(kind, { exact: true }).click();
    if (!name) return;
    await this.root.locator("[data-test=emergency-name]").click();
    await this.page.keyboard.type(name);
    await this.page.getByRole("option", { name, exact: true }).click();
  }

  async because(reason) {
    await this.root.locator("[data-test=emergency-reason]").fill(reason);
  }

  async press(what) {
    await this.root.locator(`[data-test=${what}]`).click();
  }

  /** Does what is asked about first; `yes` is the button's name. */
  async sure(what, yes) {
    await this.press(what);
    await this.page.locator(".el-message-box").getByRole("button", { name: yes, exact: true }).click();
  }

  limit(name) {
    return this.root.locator("[data-test=emergency-limit]").filter({ hasText: name });
  }

  async topUp(name, by) {
    const limit = this.limit(name);
    await limit.locator("[data-test=top-up]").click();
    await limit.locator("[data-test=top-up-by] input").fill(String(by));
    await limit.locator("[data-test=top-up-add]").click();
  }

  async reset(name) {
    await this.limit(name).locator("[data-test=reset]").click();
    await this.page.locator(".el-message-box").getByRole("button", { name: "Reset", exact: true }).click();
  }

  async takeBack(text) {
    await this.inForce.getByRole("listitem").filter({ hasText: text }).getByRole("button").click();
  }
}
