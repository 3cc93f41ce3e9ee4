// Buys, refunds and lists with openapi-fetch and the types that openapi-typescript made of our document. The compiler has
// to find nothing wrong with it, which is why what may be absent is asked for.
import createClient from "openapi-fetch";
import type { components, paths } from "./cartwright.js";

declare const process: { env: Record<string, string> };
declare const console: { log(text: string): void };

interface Given {
  address: string;
  tenant_id: string;
  client_id: string;
  client_secret: string;
}
const given: Given = JSON.parse(process.env.GIVEN);

function sure<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`no ${what}`);
  return value;
}

async function until<T>(read: () => Promise<T>, isSo: (found: T) => boolean): Promise<T> {
  const deadline = Date.now() + 120_000;
  for (;;) {
    const found = await read();
    if (isSo(found)) return found;
    if (Date.now() > deadline) throw new Error(JSON.stringify(found));
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

const caller = (token?: string) =>
  createClient<paths>({ baseUrl: given.address, headers: token ? { Authorization: `Bearer ${token}` } : {} });

const anybody = caller();
const session = sure((await anybody.POST("/v1/sessions", { body: { tenant_id: given.tenant_id } })).data, "session");
const shopper = caller(session.access_token);
const cart = sure((await shopper.POST("/v1/carts", { body: {} })).data, "cart");
await shopper.PUT("/v1/carts/{cart_id}/lines/{sku}", {
  params: { path: { cart_id: cart.id, sku: "SKU-2" } },
  body: { quantity: 2 },
});
const started = sure(
  (
    await shopper.POST("/v1/checkouts", {
      params: { header: { "Idempotency-Key": "one", Prefer: "wait=1" } },
      body: { cart_id: cart.id, payment: { method: "pm_card_visa" }, accept_price_changes: false },
    })
  ).data,
  "checkout",
);
const over: components["schemas"]["CheckoutState"][] = ["confirmed", "failed", "canceled", "expired"];
const checkout = await until(
  async () =>
    sure(
      (
        await shopper.GET("/v1/checkouts/{checkout_id}", {
          params: { path: { checkout_id: started.id }, header: { Prefer: "wait=30" } },
        })
      ).data,
      "checkout",
    ),
  (found) => over.includes(found.state),
);
const order_id = sure(checkout.order_id, "order");

const granted = await anybody.POST("/oauth/token", {
  body: { grant_type: "client_credentials", client_id: given.client_id, client_secret: given.client_secret },
  headers: { "Content-Type": "application/x-www-form-urlencoded" },
});
const machine = caller(sure(granted.data, "token").access_token);
const path = { order_id };
const read = async () => sure((await machine.GET("/v1/orders/{order_id}", { params: { path } })).data, "order");
const captured = await until(read, (found) => found.captured_minor === found.total_minor);
const refund = sure(
  (
    await machine.POST("/v1/orders/{order_id}/refunds", {
      params: { path, header: { "Idempotency-Key": "refund" } },
      body: { reason: "too small", restock: true, lines: [{ line_id: captured.lines[0].line_id, quantity: 1 }] },
    })
  ).data,
  "refund",
);
const order = await until(read, (found) => found.refunded_minor === refund.amount_minor);
const listed = sure((await machine.GET("/v1/orders", { params: { query: { number: order.number } } })).data, "list");
if (listed.items.length !== 1 || listed.next_cursor !== null) throw new Error(JSON.stringify(listed));
const absent = await machine.GET("/v1/orders/{order_id}", { params: { path: { order_id: cart.id } } });
if (absent.error?.code !== "order-not-found") throw new Error(JSON.stringify(absent.error));
console.log(JSON.stringify({ number: order.number, total: order.total_minor, refunded: order.refunded_minor }));
