// Models: the form with its deployments, prices and experiment, and the page of one.
import { Fields, pick } from "./entries.mjs";

export class ModelForm extends Fields {
  constructor(page) {
    super(page);
    this.name = page.locator("[data-test=name]");
    this.save = page.locator("[data-test=save]");
  }

  /** A further deployment, at a provider. */
  async addDeployment(provider) {
    await this.page.locator("[data-test=add-deployment]").click();
    const row = this.page.locator(".deployment").last();
    await pick(this.page, row.locator(".el-select__wrapper").first(), provider);
    return new Fields(row);
  }

  deployment(index) {
    return this.page.locator(".deployment").nth(index);
  }

  /** A price's fields, once it is switched on. */
  async price(prefix, amounts) {
    const box = this.page.locator(`[data-test="priced-${prefix}"]`);
    if (!(await box.locator("input").isChecked())) await box.click();
    const title = prefix === "price" ? "What channels pay" : "What the provider takes";
    for (const [kind, amount] of Object.entries(amounts)) {
      const field = this.page.getByRole("textbox", { name: `${title}: ${kind}`, exact: true });
      await field.fill(String(amount));
      await field.blur();
    }
  }
}

export class ModelPage {
  constructor(page) {
    this.page = page;
  }

  /** Puts so much of the traffic on the newest version. */
  async canary(share) {
    await this.page.getByRole("button", { name: share, exact: true }).click();
    await this.page.locator("[data-test=canary-save]").click();
  }
}
