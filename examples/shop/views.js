// What each view looks like: functions from the shop's data to HTML. They change nothing and track nothing.

import { art, scene } from './art.js';
import { CURRENCY, deliveryMethods, findCategory, paymentMethods, promotion, sortings } from './catalogue.js';
import { html, trusted } from './markup.js';

const euro = new Intl.NumberFormat('en-IE', { style: 'currency', currency: CURRENCY });

const money = (cents) => euro.format(cents / 100);
const freeOr = (cents) => (cents === 0 ? 'Free' : money(cents));

const picture = (product, variant, label) => trusted(art(product.art, variant.colours, label));

const icons = {
  plus: trusted('<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 5v14M5 12h14"/></svg>'),
  minus: trusted('<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 12h14"/></svg>'),
  tick: trusted('<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 12.5l4.5 4.5L19 7.5"/></svg>'),
};

// ---- Lists

export function cards(products) {
  return html`${products.map((product, i) => card(product, i + 1))}`;
}

function card(product, position) {
  const variant = product.variants[0];
  return html`<li class="card" data-testid="product-${product.id}" data-product="${product.id}" data-position="${position}">
    <a class="card-link" href="#/product/${product.id}" data-action="product-click" data-testid="open-${product.id}">
      <span class="tile tile-${product.category}">${picture(product, variant)}</span>
      <span class="card-brand">${product.brand}</span>
      <span class="card-name">${product.name}</span>
    </a>
    <div class="card-foot">
      <span class="price">${money(product.price)}</span>
      <span class="dots" aria-hidden="true">${product.variants.map((v) => html`<i style="background:${v.colours.main}"></i>`)}</span>
      <button class="round" type="button" data-action="quick-add" data-testid="add-${product.id}" aria-label="Add ${product.name}, ${variant.name} to basket">${icons.plus}</button>
    </div>
  </li>`;
}

export function list({ heading, intro, products, sort, banner }) {
  return html`${banner ? html`<div class="wrap">${hero()}</div>` : ''}
  <section class="wrap">
    <div class="list-head">
      <div>
        ${banner ? html`<h2>${heading}</h2>` : html`<h1 tabindex="-1">${heading}</h1>`}
        ${intro ? html`<p class="muted">${intro}</p>` : ''}
      </div>
      ${products.length > 1
        ? html`<label class="sort">Sort by
          <select data-change="sort" data-testid="sort">${sortings.map((s) => html`<option value="${s.id}" ${s.id === sort ? trusted('selected') : ''}>${s.name}</option>`)}</select>
        </label>`
        : ''}
    </div>
    <ul class="grid" id="list" data-testid="product-list">${cards(products)}</ul>
  </section>`;
}

function hero() {
  return html`<section class="hero" aria-labelledby="hero-title" data-testid="promotion-${promotion.id}">
    <div class="hero-text">
      <p class="eyebrow">Paper and things for the desk</p>
      <h1 id="hero-title" tabindex="-1">Somebody would like a letter from you.</h1>
      <p>Paper that takes ink on both sides, and ink that is worth the paper. Ten per cent off your first order with <b class="code">WELCOME10</b>.</p>
      <a class="button" href="#${promotion.target}" data-action="promotion-click" data-testid="promotion-click">See ink and paper</a>
    </div>
    <div class="hero-art">${trusted(scene())}</div>
  </section>`;
}

export function nothingFound(query) {
  return html`<section class="wrap empty">
    <h1 tabindex="-1">Nothing found for “${query}”</h1>
    <p class="muted">Try “notebook”, “ink” or “brass”.</p>
    <p><a class="button ghost" href="#/">See everything</a></p>
  </section>`;
}

export function notFound() {
  return html`<section class="wrap empty">
    <h1 tabindex="-1">There is no such page</h1>
    <p class="muted">It may have sold out.</p>
    <p><a class="button ghost" href="#/">See everything</a></p>
  </section>`;
}

// ---- Product

export function product(item, variant, others) {
  const category = findCategory(item.category);
  return html`<div class="wrap">
    <nav class="crumbs" aria-label="Breadcrumb"><ol>
      <li><a href="#/">Shop</a></li>
      <li><a href="#/category/${category.id}">${category.name}</a></li>
      <li aria-current="page">${item.name}</li>
    </ol></nav>
    <article class="product">
      <div class="tile tile-large tile-${item.category}" id="product-art">${picture(item, variant, `${item.name}, ${variant.name}`)}</div>
      <form class="product-info" data-form="add" data-product="${item.id}">
        <p class="eyebrow">${item.brand}</p>
        <h1 tabindex="-1" data-testid="product-name">${item.name}</h1>
        <p class="product-price"><span class="price" data-testid="product-price">${money(item.price)}</span> <span class="muted small">incl. VAT, plus delivery</span></p>
        <p>${item.description}</p>
        <fieldset class="variants">
          <legend>Colour: <b id="variant-name">${variant.name}</b></legend>
          ${item.variants.map((v) => html`<label class="swatch">
            <input class="sr" type="radio" name="sku" value="${v.sku}" ${v === variant ? trusted('checked') : ''} data-change="variant" data-testid="variant-${v.sku}">
            <i style="background:${v.colours.main}"></i><span class="sr">${v.name}</span>
          </label>`)}
        </fieldset>
        <div class="buy">
          <label class="sr" for="quantity">Quantity</label>
          <select id="quantity" name="quantity" data-testid="quantity">${[1, 2, 3, 4, 5, 6].map((n) => html`<option>${n}</option>`)}</select>
          <button class="button wide" type="submit" data-testid="add-to-basket">Add to basket</button>
        </div>
        <dl class="facts">
          ${Object.entries(item.details).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
          <div><dt>Item no.</dt><dd id="product-sku">${variant.sku}</dd></div>
        </dl>
      </form>
    </article>
    <section aria-labelledby="related-title">
      <h2 id="related-title">Goes well with</h2>
      <ul class="grid" id="list" data-testid="product-list">${cards(others)}</ul>
    </section>
  </div>`;
}

export const productPicture = (item, variant) => picture(item, variant, `${item.name}, ${variant.name}`);

// ---- Basket

export function basket(lines, totals, coupon) {
  if (lines.length === 0) {
    return html`<section class="wrap empty">
      <h1 tabindex="-1">Your basket is empty</h1>
      <p class="muted">It would look better with a notebook in it.</p>
      <p><a class="button" href="#/">Go shopping</a></p>
    </section>`;
  }
  return html`<div class="wrap">
    <h1 tabindex="-1">Basket</h1>
    <div class="two">
      <ul class="lines" data-testid="lines">${lines.map(line)}</ul>
      <aside class="panel" aria-label="Summary">
        ${sums(totals, coupon)}
        ${coupon
          ? html`<p class="coupon-on"><span>${icons.tick} <b>${coupon.code}</b> ${coupon.name}</span>
            <button class="link" type="button" data-action="coupon-remove" data-testid="coupon-remove">Remove</button></p>`
          : html`<form class="coupon" data-form="coupon" novalidate>
            <label for="coupon">Coupon code</label>
            <div class="coupon-row">
              <input id="coupon" name="code" autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="40" aria-describedby="coupon-note" data-testid="coupon">
              <button class="button ghost" type="submit" data-testid="coupon-apply">Apply</button>
            </div>
            <p class="error" id="coupon-note" role="alert" data-testid="coupon-note"></p>
          </form>`}
        <a class="button wide" href="#/checkout/contact" data-testid="checkout">Go to checkout</a>
        <p class="small muted center">An example: nothing is charged.</p>
      </aside>
    </div>
  </div>`;
}

function line({ product: item, variant, quantity }) {
  const name = `${item.name}, ${variant.name}`;
  return html`<li class="line" data-sku="${variant.sku}" data-testid="line-${variant.sku}">
    <a class="tile tile-small tile-${item.category}" href="#/product/${item.id}?sku=${variant.sku}" tabindex="-1" aria-hidden="true">${picture(item, variant)}</a>
    <div class="line-text">
      <a class="line-name" href="#/product/${item.id}?sku=${variant.sku}">${item.name}</a>
      <span class="muted small">${variant.name} · ${money(item.price)}</span>
    </div>
    <div class="stepper" role="group" aria-label="Quantity of ${name}">
      <button type="button" data-action="decrease" data-testid="decrease-${variant.sku}" aria-label="One less of ${name}">${icons.minus}</button>
      <output aria-live="polite" data-testid="quantity-${variant.sku}">${quantity}</output>
      <button type="button" data-action="increase" data-testid="increase-${variant.sku}" aria-label="One more of ${name}">${icons.plus}</button>
    </div>
    <span class="price line-price">${money(item.price * quantity)}</span>
    <button class="link line-remove" type="button" data-action="remove" data-testid="remove-${variant.sku}" aria-label="Remove ${name}">Remove</button>
  </li>`;
}

export function sums(totals, coupon) {
  return html`<dl class="sums" id="sums">
    <div><dt>Items</dt><dd>${money(totals.items)}</dd></div>
    ${totals.discount ? html`<div><dt>Discount${coupon ? ` (${coupon.code})` : ''}</dt><dd data-testid="discount">−${money(totals.discount)}</dd></div>` : ''}
    <div><dt>Delivery</dt><dd>${freeOr(totals.delivery)}</dd></div>
    <div class="sums-total"><dt>Total <span class="small muted">incl. ${money(totals.tax)} VAT</span></dt><dd data-testid="total">${money(totals.total)}</dd></div>
  </dl>`;
}

// ---- Checkout

export const steps = [
  { id: 'contact', name: 'Contact', next: 'Continue to delivery' },
  { id: 'delivery', name: 'Delivery', next: 'Continue to payment' },
  { id: 'payment', name: 'Payment', next: 'Continue to review' },
  { id: 'review', name: 'Review', next: 'Place order' },
];

export function checkout(stepIndex, { details, checkout: state, lines, totals, deliveryPrices, coupon }) {
  const step = steps[stepIndex];
  const content = { contact, delivery, payment, review }[step.id];
  return html`<div class="wrap">
    <h1 tabindex="-1" class="sr">Checkout: ${step.name}</h1>
    <ol class="steps" aria-label="Checkout steps">
      ${steps.map((s, i) => html`<li ${i === stepIndex ? trusted('aria-current="step"') : ''} class="${i < stepIndex ? 'done' : ''}">
        ${i < stepIndex ? html`<a href="#/checkout/${s.id}"><i>${icons.tick}</i><span>${s.name}</span></a>` : html`<span><i>${i + 1}</i><span>${s.name}</span></span>`}
      </li>`)}
    </ol>
    <div class="two">
      <form class="step-form" data-form="checkout" data-step="${step.id}" novalidate>
        ${content(details, state, deliveryPrices)}
        <div class="step-actions">
          ${stepIndex === 0 ? html`<a href="#/basket">Back to basket</a>` : html`<a href="#/checkout/${steps[stepIndex - 1].id}">Back</a>`}
          <button class="button" type="submit" data-testid="${step.id === 'review' ? 'place-order' : `continue-${step.id}`}">${step.id === 'review' ? `Place order · ${money(totals.total)}` : step.next}</button>
        </div>
      </form>
      <aside class="panel" aria-label="Your order">
        <ul class="mini">${lines.map(miniLine)}</ul>
        ${sums(totals, coupon)}
      </aside>
    </div>
  </div>`;
}

const miniLine = ({ product: item, variant, quantity }) => html`<li>
  <span class="tile tile-mini tile-${item.category}">${picture(item, variant)}<b>${quantity}</b></span>
  <span>${item.name}<br><span class="muted small">${variant.name}</span></span>
  <span class="price">${money(item.price * quantity)}</span>
</li>`;

function field({ name, label, value, type = 'text', autocomplete, error, wide = true, inputmode, placeholder }) {
  return html`<div class="field ${wide ? 'wide' : ''}">
    <label for="${name}">${label}</label>
    <input id="${name}" name="${name}" type="${type}" value="${value}" required autocomplete="${autocomplete}" ${inputmode ? html`inputmode="${inputmode}"` : ''} placeholder="${placeholder}" data-error="${error}" aria-describedby="${name}-error" data-testid="checkout-${name}">
    <p class="error" id="${name}-error"></p>
  </div>`;
}

function contact(details) {
  return html`<h2>How do we reach you?</h2>
    <div class="fields">
      ${field({ name: 'email', label: 'E-mail address', type: 'email', value: details.email, autocomplete: 'email', placeholder: 'you@example.com', error: 'Please enter an e-mail address, such as you@example.com.' })}
    </div>
    <label class="check"><input type="checkbox" name="newsletter" ${details.newsletter ? trusted('checked') : ''} data-testid="checkout-newsletter"> Post from the shop, four times a year</label>
    <p class="hint">What you type here stays in this page’s memory. It is neither stored nor sent: the events carry a random id instead.</p>`;
}

function delivery(details, state, prices) {
  return html`<h2>Where shall it go?</h2>
    <div class="fields">
      ${field({ name: 'name', label: 'Name', value: details.name, autocomplete: 'name', error: 'Please enter a name.' })}
      ${field({ name: 'street', label: 'Street and number', value: details.street, autocomplete: 'street-address', error: 'Please enter street and number.' })}
      ${field({ name: 'postcode', label: 'Postcode', value: details.postcode, autocomplete: 'postal-code', wide: false, error: 'Please enter a postcode.' })}
      ${field({ name: 'city', label: 'Town', value: details.city, autocomplete: 'address-level2', wide: false, error: 'Please enter a town.' })}
    </div>
    <fieldset class="choices">
      <legend>Delivery</legend>
      ${deliveryMethods.map((m) => {
        const note = m.freeFrom ? `${m.note}, free from ${money(m.freeFrom)}` : m.note;
        return choice('deliveryMethod', m, m.id === state.deliveryMethod, freeOr(prices[m.id]), note);
      })}
    </fieldset>`;
}

function payment(details, state) {
  return html`<h2>How would you like to pay?</h2>
    <fieldset class="choices">
      <legend class="sr">Payment</legend>
      ${paymentMethods.map((m, i) => choice('paymentMethod', m, state.paymentMethod ? m.id === state.paymentMethod : i === 0, '', m.note))}
    </fieldset>
    <p class="hint">This is an example: there is no card number to enter, and nothing is charged.</p>`;
}

const choice = (group, { id, name }, checked, price, note) => html`<label class="choice">
  <input type="radio" name="${group}" value="${id}" ${checked ? trusted('checked') : ''} data-change="${group}" data-testid="${group === 'deliveryMethod' ? 'delivery' : 'payment'}-${id}">
  <span><b>${name}</b><span class="muted small">${note}</span></span>
  <span class="price">${price}</span>
</label>`;

function review(details, state) {
  const deliveryName = deliveryMethods.find((m) => m.id === state.deliveryMethod).name;
  const paymentName = paymentMethods.find((m) => m.id === state.paymentMethod).name;
  return html`<h2>Is everything right?</h2>
    <dl class="review">
      <div><dt>Contact</dt><dd>${details.email}</dd><dd><a href="#/checkout/contact" aria-label="Change contact">Change</a></dd></div>
      <div><dt>Delivery</dt><dd>${details.name}<br>${details.street}<br>${details.postcode} ${details.city}<br><span class="muted">${deliveryName}</span></dd><dd><a href="#/checkout/delivery" aria-label="Change delivery">Change</a></dd></div>
      <div><dt>Payment</dt><dd>${paymentName}</dd><dd><a href="#/checkout/payment" aria-label="Change payment">Change</a></dd></div>
    </dl>`;
}

// ---- Confirmation

export function order(placed, lines, coupon) {
  const deliveryName = deliveryMethods.find((m) => m.id === placed.deliveryMethod).name;
  return html`<div class="wrap narrow">
    <div class="thanks">
      <span class="thanks-mark">${icons.tick}</span>
      <h1 tabindex="-1">Thank you. It’s on its way.</h1>
      <p>Order <b data-testid="order-id">${placed.orderId}</b> · ${deliveryName}</p>
      <p class="muted small">Well, it would be: this is an example shop.</p>
    </div>
    <div class="panel">
      <ul class="mini">${lines.map(miniLine)}</ul>
      ${sums(placed.totals, coupon)}
    </div>
    <p class="center"><a class="button ghost" href="#/" data-testid="keep-browsing">Keep browsing</a></p>
  </div>`;
}
