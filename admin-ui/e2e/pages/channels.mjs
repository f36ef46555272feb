// Channels: the list, the form with its limits, the page of one.
import { Fields, Table } from "./entries.mjs";

export class ChannelForm extends Fields {
  constructor(page) {
    super(page);
    this.code = page.locator("[data-test=code]");
    this.name = page.locator("[data-test=name]");
    this.save = page.locator("[data-test=save]");
  }

  async trust() {
    await this.page.locator("[data-test=trusted]").click();
  }

  async addLimit(preset) {
    await this.page.getByRole("button", { name: `+ ${preset}`, exact: true }).click();
  }

  /** The maximum of the limit that is open. */
  async maximum(n) {
    const field = this.page.getByRole("spinbutton", { name: "Maximum" });
    await field.fill(String(n));
    await field.blur();
  }

  async openLimit(index) {
    await this.page.locator(".limits .limit .open").nth(index).click();
  }

  problems() {
    return this.page.locator(".el-form-item__error, .problem").allInnerTexts();
  }
}

export class Channels extends Table {
  constructor(page) {
    super(page);
    this.create = page.locator("[data-test=new-channel]");
    this.search = page.getByPlaceholder("Search code, name, tags");
  }
}
