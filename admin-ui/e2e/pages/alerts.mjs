// The page of alerts, the bell on top of every page, and the part of the settings about both.
export class Alerts {
  constructor(page) {
    this.page = page;
    this.bell = page.locator("[data-test=alert-bell]");
    this.open = page.locator("[data-test=alerts-open]");
    this.over = page.locator("[data-test=alerts-over]");
    this.silences = page.locator("[data-test=silences]");
    this.receivers = page.locator("[data-test=receivers]");
    this.settings = page.locator("[data-test=alert-settings]");
  }

  alert(text) {
    return this.open.locator("[data-test=alert]").filter({ hasText: text });
  }

  /** Says that somebody looks at it. */
  async acknowledge(text, comment) {
    await this.alert(text).locator("[data-test=alert-ack]").click();
    const box = this.page.locator(".el-message-box");
    await box.locator("input").fill(comment);
    await box.getByRole("button", { name: "I look at it", exact: true }).click();
  }

  async silence(text, comment) {
    await this.alert(text).locator("[data-test=alert-silence]").click();
    await this.page.locator("[data-test=silence-comment]").fill(comment);
    await this.page.locator("[data-test=silence-save]").click();
  }

  /** In the settings; `name` finds it again. */
  async addReceiver(name, url, secret) {
    await this.settings.locator("[data-test=receiver-add]").click();
    const form = this.settings.locator("[data-test=receiver]").last();
    await form.locator("[data-test=receiver-name]").fill(name);
    await form.locator("[data-test=receiver-url]").fill(url);
    await form.locator("[data-test=receiver-secret]").fill(secret);
  }

  rule(name) {
    return this.settings.locator("[data-test=alert-rule]").filter({ hasText: name });
  }

  async save() {
    await this.page.locator("[data-test=save]").click();
  }
}
