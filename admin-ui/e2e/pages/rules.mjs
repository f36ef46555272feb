// Rules: the list in its order, the builder, and trying a request.
import { pick } from "./entries.mjs";

export class Rules {
  constructor(page) {
    this.page = page;
    this.create = page.locator("[data-test=new-rule]");
  }

  item(name) {
    return this.page.locator(".rules li").filter({ has: this.page.getByText(name, { exact: true }) });
  }

  names() {
    return this.page.locator(".rules li b").allInnerTexts();
  }

  async press(name, button) {
    await this.item(name).getByRole("button", { name: button, exact: true }).click();
  }

  async remove(name) {
    await this.press(name, "Delete");
    await this.page.locator(".el-message-box").getByRole("button", { name: "Delete" }).click();
    await this.item(name).waitFor({ state: "detached" });
  }

  async drag(name, onto) {
    await this.item(name).dragTo(this.item(onto));
  }

  async tab(name) {
    await this.page.locator("[data-test=rule-tabs]").getByText(name, { exact: true }).click();
  }

  /** One more comparison at the end of the dialog's condition. */
  async condition(dialog, field, operator, value) {
    await dialog.root.getByRole("button", { name: "+ condition" }).click();
    const leaf = dialog.root.locator(".leaf").last();
    await leaf.getByRole("textbox", { name: "Value" }).fill(value);
    await pick(this.page, leaf.locator(".el-select__wrapper").nth(0), field);
    await pick(this.page, leaf.locator(".el-select__wrapper").nth(1), operator);
  }

  async tryRequest(channel) {
    await this.page.locator("[data-test=try]").click();
    await this.page.locator("[data-test=try-channel]").fill(channel);
    await this.page.locator("[data-test=try-run]").click();
    return this.page.locator("[data-test=try-result]");
  }
}
