// A scripted visit to the shop: browses, searches, compares, buys, and comes back to buy again. For system tests and for a demo that moves.
//
// It works through the page's test ids alone and keeps its own account of what each step has to send, from the catalogue and from what a
// visitor sees (the order number), never from the tracking code: so the list that it returns can be held against what arrived.

import { findCategory, inCategory, products, promotion, related, search, sorted } from './catalogue.js';

const VAT = 1.19;
const FREE_DELIVERY_FROM = 6000;
const STANDARD_DELIVERY = 490;

/** Does things on the page and notes the calls that have to follow. */
class Visitor {
  /** @param {import('playwright-core').Page} page */
  constructor(page) {
    this.page = page;
    this.expected = [];
    this.basket = []; // { product, variant, quantity }, in the order of the basket
    this.coupon = null;
  }

  expect(type, event, properties) {
    this.expected.push({ type, event, properties });
  }
  track(event, properties) {
    this.expect('track', event, properties);
  }

  id(testId) {
    return this.page.getByTestId(testId);
  }
  click(testId) {
    return this.id(testId).click();
  }

  /** Waits until the view is on show and notes its page call. */
  async arrive(name, path) {
    await this.page.locator(`main[data-path="${path}"][data-name="${name}"]`).waitFor();
    this.expect('page', name, { path });
  }

  listViewed(listId, list, category) {
    this.track('Product List Viewed', {
      list_id: listId,
      ...(category && { category }),
      products: list.map((product, i) => ({ ...described(product), position: i + 1 })),
    });
  }

  // ---- Browsing

  async arriveHome() {
    await this.arrive('Home', '/');
    this.track('Promotion Viewed', promoted());
    this.listViewed('home', products);
  }

  async followPromotion() {
    await this.click('promotion-click');
    this.track('Promotion Clicked', promoted());
    await this.arriveCategory('ink-paper');
  }

  async openCategory(id) {
    await this.click(`nav-${id}`);
    await this.arriveCategory(id);
  }

  async arriveCategory(id) {
    await this.arrive('Category', `/category/${id}`);
    this.listViewed(id, inCategory(id), findCategory(id).name);
  }

  async searchFor(query) {
    const found = search(query);
    await this.id('search').fill(query);
    await this.click('search-submit');
    await this.arrive('Search', '/search');
    await this.page.getByRole('heading', { level: 1, name: `“${query}”` }).waitFor();
    this.track('Products Searched', { query });
    if (found.length) this.listViewed('search', found);
    return found;
  }

  async sortBy(sorting, listId, list) {
    const { sorting: { type, value }, list: inOrder } = sorted(list, sorting);
    await this.id('sort').selectOption(sorting);
    this.track('Product List Filtered', { list_id: listId, sorts: [{ type, value }], products: inOrder.map((product) => ({ sku: product.variants[0].sku })) });
    return inOrder;
  }

  async openProduct(list, index) {
    const product = list[index];
    await this.click(`open-${product.id}`);
    this.track('Product Clicked', { ...described(product), position: index + 1 });
    await this.arrive('Product', `/product/${product.id}`);
    this.viewed(product, product.variants[0]);
    this.listViewed('related', related(product, 4));
    return product;
  }

  viewed(product, variant) {
    this.track('Product Viewed', { ...described(product, variant), currency: 'EUR', value: product.price / 100 });
  }

  async chooseVariant(product, variant) {
    await this.page.locator('label', { has: this.id(`variant-${variant.sku}`) }).click();
    this.viewed(product, variant);
  }

  async subscribe() {
    await this.id('newsletter-email').fill('visitor@example.com');
    await this.click('newsletter-submit');
    this.expected.push({ type: 'identify', traits: { newsletter: true } });
  }

  // ---- Basket

  put(product, variant, quantity, position) {
    const line = this.basket.find((l) => l.variant === variant);
    if (line) line.quantity += quantity;
    else this.basket.push({ product, variant, quantity });
    this.track('Product Added', { ...described(product, variant), quantity, currency: 'EUR', ...(position && { position }) });
  }

  take(sku, quantity) {
    const line = this.basket.find((l) => l.variant.sku === sku);
    line.quantity -= quantity;
    this.basket = this.basket.filter((l) => l.quantity > 0);
    this.track('Product Removed', { ...described(line.product, line.variant), quantity, currency: 'EUR' });
  }

  async addChosen(product, variant, quantity) {
    await this.id('quantity').selectOption(String(quantity));
    await this.click('add-to-basket');
    this.put(product, variant, quantity);
  }

  async quickAdd(list, index) {
    const product = list[index];
    await this.click(`add-${product.id}`);
    this.put(product, product.variants[0], 1, index + 1);
  }

  async openBasket() {
    await this.click('basket');
    await this.arrive('Basket', '/basket');
    this.track('Cart Viewed', { currency: 'EUR', products: this.lines() });
  }

  async oneMore(sku) {
    const { product, variant } = this.basket.find((l) => l.variant.sku === sku);
    await this.click(`increase-${sku}`);
    this.put(product, variant, 1);
  }

  async oneLess(sku) {
    await this.click(`decrease-${sku}`);
    this.take(sku, 1);
  }

  async removeLine(sku) {
    const { quantity } = this.basket.find((l) => l.variant.sku === sku);
    await this.click(`remove-${sku}`);
    this.take(sku, quantity);
  }

  async enterCoupon(code, outcome) {
    await this.id('coupon').fill(code);
    await this.click('coupon-apply');
    this.track('Coupon Entered', { coupon_id: code });
    if (outcome.reason) {
      this.track('Coupon Denied', { coupon_id: code, reason: outcome.reason });
      return;
    }
    this.coupon = { code, percent: outcome.percent };
    this.track('Coupon Applied', { coupon_id: code, discount: this.sums().discount });
  }

  lines() {
    return this.basket.map(({ product, variant, quantity }) => ({ ...described(product, variant), quantity }));
  }

  /** The order's amounts in euros, worked out apart from the shop, in whole cents: shelf prices and delivery include the VAT. */
  sums() {
    const items = this.basket.reduce((sum, { product, quantity }) => sum + product.price * quantity, 0);
    const discount = Math.round((items * (this.coupon?.percent ?? 0)) / 100);
    const goods = items - discount;
    const delivery = goods >= FREE_DELIVERY_FROM ? 0 : STANDARD_DELIVERY;
    const total = goods + delivery;
    const revenue = Math.round(goods / VAT);
    const shipping = Math.round(delivery / VAT);
    const inCents = { total, revenue, shipping, tax: total - revenue - shipping, discount };
    return Object.fromEntries(Object.entries(inCents).map(([name, amount]) => [name, amount / 100]));
  }

  // ---- Checkout

  async buy({ payment, newsletter }) {
    const { total, ...sums } = this.sums();
    const order = { currency: 'EUR', ...sums, ...(this.coupon && { coupon: this.coupon.code }), products: this.lines() };
    const step = (number, method) => ({ step: number, shipping_method: 'standard', ...(method && { payment_method: method }) });

    await this.click('checkout');
    await this.arrive('Checkout Contact', '/checkout/contact');
    this.track('Checkout Started', { ...order, value: total });
    this.track('Checkout Step Viewed', step(1));
    await this.id('checkout-email').fill('visitor@example.com');
    await this.id('checkout-newsletter').setChecked(newsletter);
    await this.click('continue-contact');
    this.expected.push({ type: 'identify', traits: { plan: 'guest', newsletter } });
    this.track('Checkout Step Completed', step(1));

    await this.arrive('Checkout Delivery', '/checkout/delivery');
    this.track('Checkout Step Viewed', step(2));
    await this.id('checkout-name').fill('A Visitor');
    await this.id('checkout-street').fill('Example Street 1');
    await this.id('checkout-postcode').fill('00000');
    await this.id('checkout-city').fill('Exampletown');
    await this.id('delivery-standard').check();
    await this.click('continue-delivery');
    this.track('Checkout Step Completed', step(2));

    await this.arrive('Checkout Payment', '/checkout/payment');
    this.track('Checkout Step Viewed', step(3));
    await this.id(`payment-${payment}`).check();
    await this.click('continue-payment');
    this.track('Payment Info Entered', step(3, payment));
    this.track('Checkout Step Completed', step(3, payment));

    await this.arrive('Checkout Review', '/checkout/review');
    this.track('Checkout Step Viewed', step(4, payment));
    await this.click('place-order');
    this.track('Checkout Step Completed', step(4, payment));
    const orderId = await this.id('order-id').innerText();
    this.track('Order Completed', { ...order, order_id: orderId, total, subtotal: sums.revenue });
    await this.arrive('Order Confirmation', `/order/${orderId}`);
    this.basket = [];
    this.coupon = null;
  }
}

/** What any event about a product has to say of it. */
function described(product, variant = product.variants[0]) {
  return {
    product_id: product.id,
    sku: variant.sku,
    name: product.name,
    brand: product.brand,
    category: findCategory(product.category).name,
    variant: variant.name,
    price: product.price / 100,
  };
}

const promoted = () => ({ promotion_id: promotion.id, creative: promotion.creative, name: promotion.name, position: promotion.position });

/** One visit from the home page to the confirmation; `turn` varies what is looked at and bought. */
async function shopOnce(visitor, turn) {
  if (turn % 2 === 0) await visitor.followPromotion();
  else await visitor.openCategory('notebooks');

  const found = await visitor.searchFor(['ink', 'pencil', 'notebook', 'brass'][turn % 4]);
  const product = await visitor.openProduct(found, 0);
  const variant = product.variants[1];
  await visitor.chooseVariant(product, variant);
  await visitor.addChosen(product, variant, 1 + (turn % 3));

  await visitor.openCategory('desk');
  const desk = await visitor.sortBy('price-desc', 'desk', inCategory('desk'));
  await visitor.quickAdd(desk, 0);
  await visitor.quickAdd(desk, 2);

  await visitor.openBasket();
  await visitor.oneMore(desk[2].variants[0].sku);
  await visitor.oneLess(variant.sku);
  await visitor.removeLine(desk[0].variants[0].sku);
  if (turn % 2 === 0) {
    await visitor.enterCoupon('SPRING15', { reason: 'expired' });
    await visitor.enterCoupon('WELCOME10', { percent: 10 });
  }
  await visitor.buy({ payment: ['card', 'invoice', 'transfer'][turn % 3], newsletter: turn % 2 === 1 });
}

/**
 * Makes a visit on a page that has just been opened at the shop's home, and returns the calls that it must have made, in order, each as
 * `{ type: 'track' | 'page', event, properties }` or `{ type: 'identify', traits }`. Properties that only the page knows (ids, URLs, titles)
 * are left out: compare with `difference`.
 *
 * @param {import('playwright-core').Page} page
 * @param {{ orders?: number, calls?: number }} options how many orders to place, of some 45 calls each; if that makes fewer than `calls`, the visit goes
 *   on browsing until it has made exactly so many.
 */
export async function visit(page, { orders = 1, calls = 0 } = {}) {
  const visitor = new Visitor(page);
  await visitor.arriveHome();
  for (let turn = 0; turn < orders; turn += 1) {
    if (turn > 0) {
      await visitor.click('keep-browsing');
      await visitor.arriveHome();
    }
    await shopOnce(visitor, turn);
  }
  await browseUntil(visitor, calls);
  return visitor.expected;
}

/** Looks around without buying. What is left over is made up of a newsletter (one call) and of categories (two), so that the number is exact. */
async function browseUntil(visitor, calls) {
  const missing = () => calls - visitor.expected.length;
  const next = (turn) => ['writing', 'desk', 'notebooks', 'ink-paper'][turn % 4];
  let turn = 0;
  for (; missing() >= 6; turn += 1) {
    await visitor.openCategory(next(turn));
    await visitor.openProduct(inCategory(next(turn)), turn % 3);
  }
  if (missing() % 2 === 1) await visitor.subscribe();
  for (; missing() > 0; turn += 1) await visitor.openCategory(next(turn));
}

/** The first way in which the recorded calls differ from the expected ones, in words, or null. A recorded call may say more, never less. */
export function difference(expected, recorded) {
  for (let i = 0; i < Math.max(expected.length, recorded.length); i += 1) {
    if (!(i in recorded)) return `call ${i + 1} of ${expected.length} is missing: ${describe(expected[i])}`;
    if (!(i in expected)) return `call ${i + 1} is one too many: ${describe(recorded[i])}`;
    const where = unlike(expected[i], recorded[i], '');
    if (where) return `call ${i + 1}, ${describe(expected[i])}: ${where}`;
  }
  return null;
}

const describe = ({ type, event }) => (event ? `${type} “${event}”` : type);

function unlike(expected, recorded, path) {
  if (expected === null || typeof expected !== 'object') {
    return Object.is(expected, recorded) ? null : `${path.slice(1)} should be ${JSON.stringify(expected)}, is ${JSON.stringify(recorded)}`;
  }
  if (recorded === null || typeof recorded !== 'object') return `${path.slice(1)} is ${JSON.stringify(recorded)}`;
  if (Array.isArray(expected) && expected.length !== recorded.length) return `${path.slice(1)} has ${recorded.length} entries, not ${expected.length}`;
  for (const key of Object.keys(expected)) {
    const where = unlike(expected[key], recorded[key], `${path}.${key}`);
    if (where) return where;
  }
  return null;
}
