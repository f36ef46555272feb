// Instances: the cluster, what it shares, adding and removing.
import { Fields, Table } from "./entries.mjs";

export class Instances extends Table {
  constructor(page) {
    super(page);
    this.members = page.getByRole("table", { name: "Cluster" });
    this.balancer = page.locator("[data-test=balancers]");
    this.redis = page.locator("[data-test=redis]");
    this.source = page.locator("[data-test=source]");
    this.absent = page.locator("[data-test=absent]");
  }

  member(name) {
    return this.members.getByRole("row").filter({ hasText: name });
  }

  /** The line at HAProxy of the instance at this address. */
  server(address) {
    return this.balancer.getByRole("row").filter({ hasText: address });
  }

  /** Whether HAProxy sends clients there. */
  async takes(address) {
    const state = this.server(address).getByRole("cell").nth(1);
    return (await state.count()) > 0 && /^up\s*$/.test(await state.innerText());
  }

  async drain(name) {
    await this.member(name).locator("[data-test=drain]").click();
    await this.page.locator(".el-message-box").getByRole("button", { name: "Drain", exact: true }).click();
  }

  /** One that is drained has left the registry. */
  away(name) {
    return this.absent.getByRole("listitem").filter({ hasText: name });
  }

  async weigh(name, weight) {
    await this.member(name).locator("[data-test=weight]").click();
    const dialog = this.page.getByRole("dialog").filter({ hasText: `Weight of ${name}` });
    const field = dialog.locator("[data-test=weight-field] input");
    await field.fill(String(weight));
    await field.blur();
    await dialog.locator("[data-test=save]").click();
    await dialog.waitFor({ state: "hidden" });
  }

  async add(name, address) {
    await this.page.locator("[data-test=add-instance]").click();
    const dialog = this.page.getByRole("dialog").filter({ hasText: "Add an instance" });
    await dialog.locator("[data-test=join-name]").fill(name);
    await dialog.locator("[data-test=join-address]").fill(address);
    await dialog.locator("[data-test=join-make]").click();
    return new Fields(dialog);
  }
}
