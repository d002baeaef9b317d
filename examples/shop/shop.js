// The shop itself: hash routes, the views behind them, and what clicks and forms do. Each handler changes the basket, shows the change, and
// says what happened with one call to track.js.

import * as basket from './basket.js';
import * as catalogue from './catalogue.js';
import * as track from './track.js';
import * as views from './views.js';

const main = document.getElementById('main');
const RELATED = 4;

/** What the visitor typed at the checkout. In memory only: it is personal, and a reload may ask for it again. */
const details = { email: '', newsletter: false, name: '', street: '', postcode: '', city: '' };

/** The product list on show, for clicks on its cards and for sorting. */
let shown = null;

// ---- Routes: each returns { name, title, content, tracked }, or { redirect }. `tracked` runs after the page call.

const routes = [
  [/^\/$/, home],
  [/^\/category\/([\w-]+)$/, category],
  [/^\/search$/, search],
  [/^\/product\/([\w-]+)$/, product],
  [/^\/basket$/, basketView],
  [/^\/checkout\/(\w+)$/, checkout],
  [/^\/order\/([\w-]+)$/, order],
];

function home() {
  const list = { listId: 'home', products: catalogue.products };
  return {
    name: 'Home',
    title: 'Paper and things for the desk',
    content: views.list({ heading: 'Everything in the shop', products: list.products, banner: true }),
    list,
    tracked() {
      track.promotionViewed(catalogue.promotion);
      track.productListViewed(list);
    },
  };
}

function category([id]) {
  const found = catalogue.findCategory(id);
  if (!found) return missing();
  const list = { listId: found.id, category: found.name, products: catalogue.inCategory(id) };
  return {
    name: 'Category',
    title: found.name,
    content: views.list({ heading: found.name, intro: found.intro, products: list.products }),
    list,
    tracked: () => track.productListViewed(list),
  };
}

function search(_, params) {
  const query = (params.get('q') ?? '').trim();
  const list = { listId: 'search', products: catalogue.search(query) };
  const heading = `${list.products.length === 1 ? '1 result' : `${list.products.length} results`} for “${query}”`;
  return {
    name: 'Search',
    title: `Search: ${query}`,
    content: list.products.length ? views.list({ heading, products: list.products }) : views.nothingFound(query),
    list,
    tracked() {
      track.productsSearched(query);
      if (list.products.length) track.productListViewed(list);
    },
  };
}

function product([id], params) {
  const found = catalogue.findProduct(id);
  if (!found) return missing();
  const variant = catalogue.findVariant(found, params.get('sku'));
  const list = { listId: 'related', products: catalogue.related(found, RELATED) };
  return {
    name: 'Product',
    title: found.name,
    content: views.product(found, variant, list.products),
    list,
    tracked() {
      track.productViewed(found, variant);
      track.productListViewed(list);
    },
  };
}

function basketView() {
  return {
    name: 'Basket',
    title: 'Basket',
    content: views.basket(basket.lines(), basket.totals(), basket.coupon()),
    tracked: () => track.cartViewed(basket.cartId(), basket.lines()),
  };
}

function checkout([id]) {
  const index = views.steps.findIndex((step) => step.id === id);
  if (index < 0) return missing();
  if (basket.isEmpty()) return { redirect: '/basket' };
  const open = firstOpenStep();
  if (index > open) return { redirect: `/checkout/${views.steps[open].id}` };

  const { checkout: state, isNew } = basket.startCheckout();
  const lines = basket.lines();
  const totals = basket.totals(state.deliveryMethod);
  const deliveryPrices = Object.fromEntries(catalogue.deliveryMethods.map((m) => [m.id, basket.totals(m.id).delivery]));
  return {
    name: `Checkout ${views.steps[index].name}`,
    title: `Checkout: ${views.steps[index].name}`,
    content: views.checkout(index, { details, checkout: state, lines, totals, deliveryPrices, coupon: basket.coupon() }),
    tracked() {
      if (isNew) track.checkoutStarted(state, totals, basket.coupon(), lines);
      track.checkoutStepViewed(state, index + 1);
    },
  };
}

/** A reload or a pasted link may skip what has to be known first. */
function firstOpenStep() {
  if (!details.email) return 0;
  if (!details.street) return 1;
  return basket.checkoutUnderWay()?.paymentMethod ? 3 : 2;
}

function order([id]) {
  const placed = basket.findOrder(id);
  if (!placed) return missing();
  return {
    name: 'Order Confirmation',
    title: 'Thank you',
    content: views.order(placed, orderLines(placed), catalogue.coupons.find((c) => c.code === placed.couponCode)),
  };
}

const orderLines = (placed) => placed.lines.map(({ sku, quantity }) => ({ ...catalogue.findSku(sku), quantity }));

const missing = () => ({ name: 'Not Found', title: 'Not found', content: views.notFound() });

// ---- Showing a view

const scrolled = new Map();
let current = null;
let followedLink = false;

function locate() {
  const [path, query = ''] = location.hash.replace(/^#/, '').split('?');
  return { path: path || '/', params: new URLSearchParams(query) };
}

function show() {
  const { path, params } = locate();
  let view = missing();
  for (const [pattern, make] of routes) {
    const match = path.match(pattern);
    if (match) {
      view = make(match.slice(1), params);
      break;
    }
  }
  if (view.redirect) {
    location.replace(`#${view.redirect}`);
    return;
  }

  const arriving = current !== null;
  if (arriving) scrolled.set(current, scrollY);
  current = location.hash;
  shown = view.list ?? null;

  document.title = `${view.title} · ${catalogue.SHOP_NAME}`;
  main.innerHTML = view.content;
  main.dataset.path = path;
  main.dataset.name = view.name;
  document.getElementById('q').value = path === '/search' ? (params.get('q') ?? '') : '';
  markNavigation(path);
  showCount();

  if (arriving) {
    // Back and forward return to where the visitor was; a link starts at the top, with the heading in focus for those who cannot see it change.
    main.querySelector('h1')?.focus({ preventScroll: true });
    scrollTo(0, followedLink ? 0 : (scrolled.get(current) ?? 0));
  }
  followedLink = false;

  track.page(view.name, path);
  view.tracked?.();
}

function markNavigation(path) {
  for (const link of document.querySelectorAll('.nav a, .basket-link')) {
    if (link.hash === `#${path}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

function go(path) {
  followedLink = true;
  location.hash = path;
}

function showCount() {
  const badge = document.getElementById('basket-count');
  badge.textContent = basket.count();
  badge.hidden = basket.isEmpty();
}

let toastTimer;

function toast(text) {
  const box = document.getElementById('toast');
  box.textContent = text;
  box.classList.add('on');
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove('on'), 2600);
}

// ---- Basket

/** Brings a SKU to the wanted quantity and tells tracking the difference. */
function setQuantity(sku, wanted, position) {
  const change = basket.setQuantity(sku, wanted);
  const entry = { ...catalogue.findSku(sku), quantity: Math.abs(change), position };
  if (change > 0) track.productAdded(basket.cartId(), entry);
  if (change < 0) track.productRemoved(basket.cartId(), entry);
  showCount();
  return change;
}

function add(sku, quantity, position) {
  const change = setQuantity(sku, basket.quantityOf(sku) + quantity, position);
  const { product: item, variant } = catalogue.findSku(sku);
  toast(change > 0 ? `Added: ${item.name}, ${variant.name}` : 'That is all we have of it.');
}

/** Redraws the basket and puts the focus back on the control that was used, or on the heading if it is gone. */
function redrawBasket() {
  const focused = document.activeElement?.dataset?.testid;
  main.innerHTML = views.basket(basket.lines(), basket.totals(), basket.coupon());
  (main.querySelector(`[data-testid="${focused}"]`) ?? main.querySelector('h1')).focus({ preventScroll: true });
}

// ---- Clicks

const cardOf = (element) => {
  const { product: id, position } = element.closest('[data-product]').dataset;
  return { item: catalogue.findProduct(id), position: Number(position) };
};
const skuOf = (element) => element.closest('[data-sku]').dataset.sku;

const actions = {
  skip(_, event) {
    event.preventDefault();
    main.focus();
  },
  'product-click'(link) {
    const { item, position } = cardOf(link);
    track.productClicked(item, position);
  },
  'promotion-click'() {
    track.promotionClicked(catalogue.promotion);
  },
  'quick-add'(button) {
    const { item, position } = cardOf(button);
    add(item.variants[0].sku, 1, position);
  },
  increase(button) {
    setQuantity(skuOf(button), basket.quantityOf(skuOf(button)) + 1);
    redrawBasket();
  },
  decrease(button) {
    setQuantity(skuOf(button), basket.quantityOf(skuOf(button)) - 1);
    redrawBasket();
  },
  remove(button) {
    setQuantity(skuOf(button), 0);
    redrawBasket();
  },
  'coupon-remove'() {
    track.couponRemoved(basket.cartId(), basket.coupon(), basket.totals().discount);
    basket.setCoupon(null);
    redrawBasket();
  },
};

document.addEventListener('click', (event) => {
  const link = event.target.closest('a[href^="#/"]');
  if (link) followedLink = link.hash !== location.hash;
  const element = event.target.closest('[data-action]');
  if (element) actions[element.dataset.action](element, event);
});

// ---- Choices

const changes = {
  sort(select) {
    const { sorting, list } = catalogue.sorted(shown.products, select.value);
    document.getElementById('list').innerHTML = views.cards(list);
    track.productListFiltered({ ...shown, products: list }, sorting);
  },
  variant(input) {
    const { product: item, variant } = catalogue.findSku(input.value);
    document.getElementById('product-art').innerHTML = views.productPicture(item, variant);
    document.getElementById('variant-name').textContent = variant.name;
    document.getElementById('product-sku').textContent = variant.sku;
    // The address names what is on show, without another step in the history.
    history.replaceState(history.state, '', `#/product/${item.id}?sku=${variant.sku}`);
    current = location.hash;
    track.productViewed(item, variant);
  },
  deliveryMethod(input) {
    document.getElementById('sums').outerHTML = views.sums(basket.totals(input.value), basket.coupon());
  },
};

document.addEventListener('change', (event) => changes[event.target.dataset?.change]?.(event.target));

// ---- Forms

const forms = {
  search(form) {
    const query = form.q.value.trim();
    if (!query) return form.q.focus();
    const path = `/search?q=${encodeURIComponent(query)}`;
    if (location.hash === `#${path}`) show();
    else go(path);
  },

  add(form) {
    add(form.sku.value, Number(form.quantity.value));
  },

  coupon(form) {
    const code = form.code.value.trim().toUpperCase();
    const note = document.getElementById('coupon-note');
    if (!code) {
      note.textContent = 'Please enter a code.';
      return form.code.focus();
    }
    track.couponEntered(basket.cartId(), code);
    const problem = basket.couponProblem(code);
    if (problem) {
      track.couponDenied(basket.cartId(), code, problem);
      note.textContent = problem === 'expired' ? `${code} has expired.` : `We do not know ${code}.`;
      form.code.setAttribute('aria-invalid', 'true');
      return form.code.select();
    }
    basket.setCoupon(code);
    track.couponApplied(basket.cartId(), basket.coupon(), basket.totals().discount);
    redrawBasket();
  },

  newsletter(form) {
    const note = form.querySelector('[role=status]');
    if (!form.email.validity.valid) {
      note.textContent = 'Please enter an e-mail address.';
      return form.email.focus();
    }
    track.identify(basket.userId(), { newsletter: true });
    form.reset();
    note.textContent = 'Thank you. We shall write when there is something to say.';
  },

  checkout(form) {
    if (!valid(form)) return;
    const index = views.steps.findIndex((step) => step.id === form.dataset.step);
    completeStep[form.dataset.step](form);
    track.checkoutStepCompleted(basket.checkoutUnderWay(), index + 1);
    const next = views.steps[index + 1];
    if (next) return go(`/checkout/${next.id}`);

    const placed = basket.completeOrder();
    track.orderCompleted(placed, orderLines(placed));
    // Not a step in the history: going back must not offer to place the same order again.
    followedLink = true;
    location.replace(`#/order/${placed.orderId}`);
  },
};

const completeStep = {
  contact(form) {
    details.email = form.email.value.trim();
    details.newsletter = form.newsletter.checked;
    track.identify(basket.userId(), { plan: 'guest', newsletter: details.newsletter });
  },
  delivery(form) {
    for (const name of ['name', 'street', 'postcode', 'city']) details[name] = form[name].value.trim();
    basket.updateCheckout({ deliveryMethod: form.deliveryMethod.value });
  },
  payment(form) {
    basket.updateCheckout({ paymentMethod: form.paymentMethod.value });
    track.paymentInfoEntered(basket.checkoutUnderWay(), 3);
  },
  review() {},
};

function valid(form) {
  let first = null;
  for (const input of form.querySelectorAll('input[required]')) {
    const wrong = !input.validity.valid || input.value.trim() === '';
    input.setAttribute('aria-invalid', wrong);
    document.getElementById(`${input.id}-error`).textContent = wrong ? input.dataset.error : '';
    if (wrong) first ??= input;
  }
  first?.focus();
  return first === null;
}

document.addEventListener('submit', (event) => {
  const form = event.target.closest('[data-form]');
  if (!form) return;
  event.preventDefault();
  forms[form.dataset.form](form);
});

history.scrollRestoration = 'manual';
addEventListener('hashchange', show);
show();
