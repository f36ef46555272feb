// The frame around every page: signing in, the menu, language and colours.
export class Console {
  constructor(page, base) {
    this.page = page;
    this.base = base;
  }

  async signIn(name, password) {
    await this.page.goto(this.base);
    await this.page.locator("#login-name").fill(name);
    await this.page.locator("#login-password").fill(password);
    await this.page.getByRole("button", { name: /^(Sign in|登录)$/ }).click();
  }

  /** The first sign-in with a generated password asks for another one. */
  async changePassword(current, next) {
    const dialog = this.page.getByRole("dialog").filter({ hasText: /Change password|修改密码/ });
    const fields = dialog.locator("input[type=password]");
    await fields.nth(0).fill(current);
    await fields.nth(1).fill(next);
    await fields.nth(2).fill(next);
    await dialog.getByRole("button", { name: /^(Save|保存)$/ }).click();
    await dialog.waitFor({ state: "hidden" });
  }

  async goto(path) {
    await this.page.goto(this.base + path);
    await this.page.locator("main h1").first().waitFor();
  }

  async menu(name) {
    await this.page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
    await this.page.locator("main h1").first().waitFor();
  }

  menuNames() {
    return this.page.getByRole("navigation").getByRole("link").allInnerTexts();
  }

  async language(label) {
    await this.page.locator("header").getByText(label, { exact: true }).click();
  }

  /** A message that says so appears. */
  async says(text) {
    await this.page.locator(".el-message").filter({ hasText: text }).first().waitFor();
  }

  async confirm(button) {
    await this.page.locator(".el-message-box").getByRole("button", { name: button }).click();
  }
}
