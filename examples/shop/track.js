// Everything the shop tells analytics, in one file. Copy from here.
//
// Event and property names are those of the e-commerce vocabulary that analytics tools share (Segment's Ecommerce Spec v2), so dashboards
// that know it need no mapping. One function for each thing a visitor does; the shop calls them with its own objects, and this file alone
// decides what leaves the page: no name, no address, no e-mail.
//
// `window.firsthop` is read anew at every call: until the SDK has loaded it is the queue from index.html, afterwards the SDK itself.

import { CURRENCY, SHOP_NAME, findCategory } from './catalogue.js';

const listeners = new Set();

/** Calls `listener(method, args)` for every tracking call: for the events drawer; you need not copy it. */
export const onCall = (listener) => listeners.add(listener);

function call(method, ...args) {
  window.firsthop[method](...args);
  for (const listener of listeners) listener(method, args);
}

const track = (event, properties) => call('track', event, properties);

// ---- Pages and people

let referrer = document.referrer;

/** A view was shown. The path is given because the SDK would see the same `location.pathname` for every view of a single-page shop. */
export function page(name, path) {
  const url = location.href;
  call('page', name, withoutEmpty({ path, title: document.title, url, referrer }));
  referrer = url;
}

/** A visitor gave an e-mail address, in the newsletter form or at the checkout. The address itself stays out of it. */
export function identify(userId, traits) {
  call('identify', userId, traits);
}

// ---- Browsing

export function productsSearched(query) {
  track('Products Searched', { query });
}

export function productListViewed({ listId, category, products }) {
  track('Product List Viewed', withoutEmpty({ list_id: listId, category, products: listed(products) }));
}

export function productListFiltered({ listId, category, products }, sorting) {
  const sorts = sorting.type ? [{ type: sorting.type, value: sorting.value }] : [];
  track('Product List Filtered', withoutEmpty({ list_id: listId, category, sorts, products: listed(products) }));
}

export function productClicked(product, position) {
  track('Product Clicked', { ...productProperties(product, product.variants[0]), position });
}

export function productViewed(product, variant) {
  track('Product Viewed', { ...productProperties(product, variant), currency: CURRENCY, value: euros(product.price) });
}

// ---- Promotions

export function promotionViewed(promotion) {
  track('Promotion Viewed', promotionProperties(promotion));
}

export function promotionClicked(promotion) {
  track('Promotion Clicked', promotionProperties(promotion));
}

// ---- Basket

/** `quantity` is how many were added by this action, not how many are in the basket now. */
export function productAdded(cartId, { product, variant, quantity, position }) {
  track('Product Added', withoutEmpty({ cart_id: cartId, ...productProperties(product, variant), quantity, currency: CURRENCY, position }));
}

/** `quantity` is how many were taken out by this action. */
export function productRemoved(cartId, { product, variant, quantity }) {
  track('Product Removed', { cart_id: cartId, ...productProperties(product, variant), quantity, currency: CURRENCY });
}

export function cartViewed(cartId, lines) {
  track('Cart Viewed', { cart_id: cartId, currency: CURRENCY, products: lines.map(lineProperties) });
}

export function couponEntered(cartId, code) {
  track('Coupon Entered', { cart_id: cartId, coupon_id: code });
}

export function couponApplied(cartId, coupon, discount) {
  track('Coupon Applied', { cart_id: cartId, coupon_id: coupon.code, coupon_name: coupon.name, discount: euros(discount) });
}

export function couponDenied(cartId, code, reason) {
  track('Coupon Denied', { cart_id: cartId, coupon_id: code, reason });
}

export function couponRemoved(cartId, coupon, discount) {
  track('Coupon Removed', { cart_id: cartId, coupon_id: coupon.code, coupon_name: coupon.name, discount: euros(discount) });
}

// ---- Checkout

export function checkoutStarted(checkout, totals, coupon, lines) {
  track('Checkout Started', withoutEmpty({
    checkout_id: checkout.id,
    order_id: checkout.orderId,
    affiliation: SHOP_NAME,
    value: euros(totals.total),
    ...moneyProperties(totals),
    coupon: coupon?.code,
    currency: CURRENCY,
    products: lines.map(lineProperties),
  }));
}

export function checkoutStepViewed(checkout, step) {
  track('Checkout Step Viewed', stepProperties(checkout, step));
}

export function checkoutStepCompleted(checkout, step) {
  track('Checkout Step Completed', stepProperties(checkout, step));
}

export function paymentInfoEntered(checkout, step) {
  track('Payment Info Entered', { ...stepProperties(checkout, step), order_id: checkout.orderId });
}

/** Once, when the order is placed: not when its confirmation is shown, which a reload shows again. */
export function orderCompleted(order, lines) {
  track('Order Completed', withoutEmpty({
    checkout_id: order.checkoutId,
    order_id: order.orderId,
    affiliation: SHOP_NAME,
    subtotal: euros(order.totals.revenue),
    total: euros(order.totals.total),
    ...moneyProperties(order.totals),
    coupon: order.couponCode,
    currency: CURRENCY,
    products: lines.map(lineProperties),
  }));
}

// ---- From the shop's objects to the names everybody uses

const euros = (cents) => cents / 100;

function productProperties(product, variant) {
  return {
    product_id: product.id,
    sku: variant.sku,
    category: findCategory(product.category).name,
    name: product.name,
    brand: product.brand,
    variant: variant.name,
    price: euros(product.price),
    url: new URL(`#/product/${product.id}`, location.href).href,
  };
}

const listed = (products) => products.map((product, i) => ({ ...productProperties(product, product.variants[0]), position: i + 1 }));

const lineProperties = ({ product, variant, quantity }) => ({ ...productProperties(product, variant), quantity });

// Net of VAT, except the discount, so that revenue + shipping + tax is what the visitor pays.
const moneyProperties = (totals) => ({
  revenue: euros(totals.revenue),
  shipping: euros(totals.netDelivery),
  tax: euros(totals.tax),
  discount: euros(totals.discount),
});

const promotionProperties = ({ id, creative, name, position }) => ({ promotion_id: id, creative, name, position });

const stepProperties = ({ id, deliveryMethod, paymentMethod }, step) =>
  withoutEmpty({ checkout_id: id, step, shipping_method: deliveryMethod, payment_method: paymentMethod });

// A property that has no value is left out, so that "no coupon" looks the same in every row.
function withoutEmpty(properties) {
  return Object.fromEntries(Object.entries(properties).filter(([, value]) => value !== undefined && value !== null && value !== ''));
}
