// What forms and tables have in common: fields by their labels, choices, problems at a field, rows.
export class Fields {
  constructor(scope) {
    this.scope = scope;
    this.page = typeof scope.page === "function" ? scope.page() : scope;
  }

  /** The form item with this label; of several, the first. */
  item(label) {
    return this.scope.locator(".el-form-item").filter({ has: this.page.locator(".el-form-item__label", { hasText: exactly(label) }) }).first();
  }

  async fill(label, text) {
    const field = this.item(label).locator("input, textarea").first();
    await field.fill(String(text));
    await field.blur();
  }

  async value(label) {
    return this.item(label).locator("input, textarea").first().inputValue();
  }

  /** Picks an option of a select. */
  async choose(label, option) {
    await pick(this.page, this.item(label).locator(".el-select__wrapper"), option);
  }

  /** Types into a list of tags. */
  async tag(label, text) {
    const field = this.item(label).locator("input").first();
    await field.fill(text);
    await field.press("Enter");
  }

  async check(label) {
    await this.scope.locator(".el-checkbox").filter({ hasText: label }).first().click();
  }

  /** What is said to be wrong at a field. */
  problem(label) {
    return this.item(label).locator(".el-form-item__error");
  }
}

/** Opens a select and picks an option of the list that belongs to it. */
export async function pick(page, select, option) {
  await select.click();
  const list = await select.getByRole("combobox").getAttribute("aria-controls");
  await page.locator(`[id="${list}"]`).getByRole("option", { name: new RegExp(`^${escaped(option)}(\\s|$)`) }).first().click();
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

export function exactly(text) {
  return new RegExp(`^\\s*${escaped(text)}\\s*$`);
}

/** A dialog over an entry. */
export class EntryDialog extends Fields {
  constructor(page, title) {
    super(page.getByRole("dialog").filter({ has: page.locator(".el-dialog__title", { hasText: exactly(title) }) }));
    this.root = this.scope;
  }

  async save() {
    await this.root.locator("[data-test=save]").click();
  }

  async saved() {
    await this.save();
    await this.root.waitFor({ state: "hidden" });
  }

  async cancel() {
    await this.root.getByRole("button", { name: "Cancel" }).click();
  }

  async json(text) {
    await this.root.getByText("JSON", { exact: true }).click();
    await this.root.getByRole("textbox", { name: "JSON" }).fill(text);
  }
}

/** A list of entries. */
export class Table {
  constructor(page) {
    this.page = page;
  }

  row(text) {
    return this.page.getByRole("row").filter({ hasText: text });
  }

  async press(text, button) {
    await this.row(text).getByRole("button", { name: button, exact: true }).click();
  }

  /** Deletes, and says yes to the question. */
  async remove(text) {
    await this.press(text, "Delete");
    await this.page.locator(".el-message-box").getByRole("button", { name: "Delete" }).click();
  }

  async undo() {
    await this.page.locator(".el-message").getByRole("button", { name: "Undo" }).last().click();
  }
}
