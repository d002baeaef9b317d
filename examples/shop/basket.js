// What the visitor has in the basket and where the checkout stands. It knows nothing of the page or of tracking. All amounts are euro cents.

import { coupons, deliveryMethods, findSku } from './catalogue.js';

const KEY = 'shop.session';
const VAT_PERCENT = 19;
const MAX_QUANTITY = 20;

const fresh = () => ({ cartId: newId(), lines: [], couponCode: null, checkout: null, orders: [], userId: null });
const state = restore();

/** A random UUID. `crypto.randomUUID` is absent where a page comes over plain HTTP from anywhere but localhost. */
export function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

function restore() {
  try {
    const saved = { ...fresh(), ...JSON.parse(sessionStorage.getItem(KEY)) };
    saved.lines = saved.lines.filter((line) => findSku(line.sku));
    return saved;
  } catch {
    return fresh();
  }
}

function save() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(state));
  } catch {
    // Storage is switched off or full: the basket then lives as long as the page.
  }
}

export const cartId = () => state.cartId;
export const isEmpty = () => state.lines.length === 0;
export const count = () => state.lines.reduce((sum, line) => sum + line.quantity, 0);

/** The basket's lines, each with its product and variant. */
export const lines = () => state.lines.map(({ sku, quantity }) => ({ ...findSku(sku), quantity }));

export const quantityOf = (sku) => state.lines.find((line) => line.sku === sku)?.quantity ?? 0;

/** Sets how many of a SKU are in the basket (0 takes it out) and returns the change that it made: positive added, negative removed. */
export function setQuantity(sku, wanted) {
  const before = quantityOf(sku);
  const quantity = Math.max(0, Math.min(MAX_QUANTITY, Math.trunc(wanted) || 0));
  const line = state.lines.find((l) => l.sku === sku);
  if (quantity === 0) state.lines = state.lines.filter((l) => l !== line);
  else if (line) line.quantity = quantity;
  else state.lines.push({ sku, quantity });
  // A changed basket is another order: the next visit to the checkout starts a new one.
  if (quantity !== before) state.checkout = null;
  save();
  return quantity - before;
}

/** Why a code is refused, or null. */
export function couponProblem(code) {
  const coupon = coupons.find((c) => c.code === code);
  if (!coupon) return 'unknown';
  return coupon.active ? null : 'expired';
}

export const coupon = () => coupons.find((c) => c.code === state.couponCode) ?? null;

export function setCoupon(code) {
  state.couponCode = code;
  save();
}

/**
 * What the order costs. Shelf prices include VAT, so `total = items − discount + delivery` is what the visitor pays. For the books the same
 * total is split without a cent's difference: `total = revenue + netDelivery + tax`.
 */
export function totals(deliveryId) {
  const items = lines().reduce((sum, line) => sum + line.product.price * line.quantity, 0);
  const discount = Math.round((items * (coupon()?.percent ?? 0)) / 100);
  const goods = items - discount;
  const method = deliveryMethods.find((m) => m.id === deliveryId) ?? deliveryMethods[0];
  const delivery = goods === 0 || goods >= (method.freeFrom ?? Infinity) ? 0 : method.price;
  const total = goods + delivery;
  const net = (gross) => Math.round((gross * 100) / (100 + VAT_PERCENT));
  const revenue = net(goods);
  const netDelivery = net(delivery);
  return { items, discount, delivery, total, revenue, netDelivery, tax: total - revenue - netDelivery };
}

export const checkoutUnderWay = () => state.checkout;

/** The checkout that is under way, or a new one; `isNew` tells the first call from the others. */
export function startCheckout() {
  const isNew = state.checkout === null;
  if (isNew) {
    state.checkout = { id: newId(), orderId: newOrderId(), deliveryMethod: deliveryMethods[0].id, paymentMethod: null };
    save();
  }
  return { checkout: state.checkout, isNew };
}

export function updateCheckout(changes) {
  Object.assign(state.checkout, changes);
  save();
}

/** Turns the basket into an order and empties it. */
export function completeOrder() {
  const { id, orderId, deliveryMethod, paymentMethod } = state.checkout;
  const order = {
    orderId,
    checkoutId: id,
    deliveryMethod,
    paymentMethod,
    lines: state.lines,
    couponCode: state.couponCode,
    totals: totals(deliveryMethod),
  };
  Object.assign(state, { cartId: newId(), lines: [], couponCode: null, checkout: null });
  state.orders.push(order);
  save();
  return order;
}

export const findOrder = (orderId) => state.orders.find((order) => order.orderId === orderId);

/**
 * The id by which tracking knows a visitor who gave an e-mail address: random, and for this tab only. A real shop uses its own customer
 * number here; an e-mail address or its hash is personal data and is no id.
 */
export function userId() {
  state.userId ??= newId();
  save();
  return state.userId;
}

// No letters or digits that are read wrong on the phone.
function newOrderId() {
  const alphabet = '23456789ABCDEFGHJKMNPQRSTVWXYZ';
  return 'D-' + Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => alphabet[b % alphabet.length]).join('');
}
