// What the shop sells. Prices are in euro cents and include VAT; a product's variants differ in colour and share its price.

export const CURRENCY = 'EUR';
export const SHOP_NAME = 'Deckle';

export const categories = [
  { id: 'notebooks', name: 'Notebooks', intro: 'Sewn, stapled and spiral-bound. Every page lies flat.' },
  { id: 'writing', name: 'Writing', intro: 'Pens and pencils that get better with use.' },
  { id: 'ink-paper', name: 'Ink & Paper', intro: 'For letters worth keeping, and plans worth making.' },
  { id: 'desk', name: 'Desk', intro: 'Small tools that stay on the table for years.' },
];

const variant = (sku, name, main, dark, accent) => ({ sku, name, colours: { main, dark, accent } });

export const products = [
  {
    id: 'field-notebook',
    name: 'Field Notebook A5',
    brand: 'Nordkante',
    category: 'notebooks',
    price: 1850,
    art: 'notebook',
    description: 'A thread-sewn notebook with 160 dotted pages, a cloth spine and a band that does not go slack. It opens flat from the first page to the last.',
    details: { Format: 'A5, 148 × 210 mm', Paper: '100 g/m², dotted', Pages: '160' },
    variants: [
      variant('NK-FN5-MOS', 'Moss', '#6f8560', '#4d6143', '#c65f43'),
      variant('NK-FN5-CLY', 'Clay', '#c2765a', '#96543d', '#35595c'),
      variant('NK-FN5-SLT', 'Slate', '#6b7c8c', '#4a5966', '#d9a441'),
    ],
  },
  {
    id: 'fountain-pen',
    name: 'Kolm Fountain Pen',
    brand: 'Steg',
    category: 'writing',
    price: 4900,
    art: 'fountainPen',
    description: 'An everyday fountain pen in turned resin with a steel nib that starts at the first stroke. Takes cartridges, and a converter is in the box.',
    details: { Nib: 'Steel, fine', Filling: 'Cartridge or converter', Weight: '21 g' },
    variants: [
      variant('ST-KLM-PET', 'Petrol', '#2f6f73', '#204c50', '#d8b25c'),
      variant('ST-KLM-BRQ', 'Brick', '#b5533c', '#823828', '#d8b25c'),
      variant('ST-KLM-OAT', 'Oat', '#d9c7a3', '#a8936b', '#c08a4e'),
    ],
  },
  {
    id: 'bottled-ink',
    name: 'Bottled Ink 50 ml',
    brand: 'Blauholz',
    category: 'ink-paper',
    price: 1450,
    art: 'ink',
    description: 'Fountain pen ink that shades from line to line and washes out of the pen with plain water. The square bottle tips on its edge for the last drops.',
    details: { Volume: '50 ml', Base: 'Dye, water-soluble', Bottle: 'Glass, refillable' },
    variants: [
      variant('BH-INK-BLU', 'Harbour blue', '#2d5b93', '#1e4069', '#e8c15b'),
      variant('BH-INK-WAL', 'Walnut', '#7a4b2e', '#553320', '#d98a4b'),
      variant('BH-INK-FIR', 'Fir green', '#35694f', '#234a37', '#c9b458'),
    ],
  },
  {
    id: 'letter-set',
    name: 'Letter Set',
    brand: 'Deckle',
    category: 'ink-paper',
    price: 1600,
    art: 'letter',
    description: 'Twenty sheets of laid cotton paper and ten lined envelopes. Heavy enough for ink on both sides, light enough for one stamp.',
    details: { Sheets: '20, A5', Envelopes: '10, C6, lined', Paper: '110 g/m², laid, 30 % cotton' },
    variants: [
      variant('DK-LTR-ROS', 'Rosewood', '#d79a8b', '#b57466', '#9c3f35'),
      variant('DK-LTR-SEA', 'Sea grass', '#a3b79c', '#7d947a', '#3f6b60'),
    ],
  },
  {
    id: 'graphite-pencils',
    name: 'Graphite Pencils, Box of Six',
    brand: 'Steg',
    category: 'writing',
    price: 980,
    art: 'pencils',
    description: 'Six hexagonal pencils in cedar, from 2H to 4B. The lead is glued along its whole length, so that it survives a fall from the table.',
    details: { Grades: '2H, HB, B, 2B, 3B, 4B', Wood: 'Cedar, FSC', Finish: 'Water-based lacquer' },
    variants: [
      variant('ST-GP6-MUS', 'Mustard', '#dda63a', '#b07f22', '#38585c'),
      variant('ST-GP6-INK', 'Ink blue', '#456a98', '#2f4c70', '#d9a441'),
    ],
  },
  {
    id: 'planner-pad',
    name: 'Weekly Planner Pad',
    brand: 'Deckle',
    category: 'ink-paper',
    price: 1350,
    art: 'planner',
    description: 'One week to a page and room beside each day for what came up. Undated, so that a holiday wastes no paper.',
    details: { Format: 'A4, landscape fold', Sheets: '54, tear-off', Paper: '90 g/m², recycled' },
    variants: [
      variant('DK-WPP-CRL', 'Coral', '#d97b5f', '#b35a41', '#d97b5f'),
      variant('DK-WPP-PNE', 'Pine', '#4f7d6b', '#38594c', '#4f7d6b'),
    ],
  },
  {
    id: 'brass-ruler',
    name: 'Brass Ruler 15 cm',
    brand: 'Steg',
    category: 'desk',
    price: 1700,
    art: 'ruler',
    description: 'Solid brass, two millimetres thick, with engraved marks that cannot rub off. It darkens where you hold it; a cloth brings the shine back.',
    details: { Length: '15 cm', Material: 'Solid brass, 2 mm', Marks: 'Engraved, 1 mm' },
    variants: [
      variant('ST-RUL-BRS', 'Brushed brass', '#cfa655', '#8f6d2c', '#f0d9a0'),
      variant('ST-RUL-STL', 'Steel', '#aab2b8', '#69737a', '#dfe4e7'),
    ],
  },
  {
    id: 'pocket-notebooks',
    name: 'Pocket Notebooks, Set of Three',
    brand: 'Nordkante',
    category: 'notebooks',
    price: 1290,
    art: 'pocket',
    description: 'Three slim notebooks with stapled spines and rounded corners: plain, lined and squared. One for the coat, one for the bag, one to lose.',
    details: { Format: 'A6, 105 × 148 mm', Paper: '90 g/m², three rulings', Pages: '3 × 48' },
    variants: [
      variant('NK-PK3-ERT', 'Earth', '#b98a5a', '#7e9077', '#c7694c'),
      variant('NK-PK3-SEA', 'Sea', '#5f8796', '#3f6675', '#a9bfae'),
    ],
  },
  {
    id: 'mechanical-pencil',
    name: 'Linea Mechanical Pencil',
    brand: 'Steg',
    category: 'writing',
    price: 2400,
    art: 'mechanicalPencil',
    description: 'Aluminium, with a knurled grip and the balance point just behind it. The lead sleeve draws in, for pockets.',
    details: { Lead: '0.7 mm', Body: 'Anodised aluminium', Weight: '16 g' },
    variants: [
      variant('ST-LIN-GRA', 'Graphite', '#69737a', '#454d53', '#c9cfd3'),
      variant('ST-LIN-COP', 'Copper', '#c47f5a', '#8f5638', '#efd3c1'),
    ],
  },
  {
    id: 'paper-tape',
    name: 'Paper Tape, Three Rolls',
    brand: 'Deckle',
    category: 'desk',
    price: 840,
    art: 'tape',
    description: 'Thin rice-paper tape that holds, lets go without a mark and can be written on. Three rolls that go together.',
    details: { Rolls: '3 × 10 m', Width: '15 mm', Material: 'Rice paper, acrylic glue' },
    variants: [
      variant('DK-TAP-MKT', 'Market', '#d3765c', '#7f9a83', '#e0b65a'),
      variant('DK-TAP-LGN', 'Lagoon', '#5d93a0', '#8d86ad', '#cfd6a5'),
    ],
  },
  {
    id: 'sketchbook',
    name: 'Spiral Sketchbook',
    brand: 'Nordkante',
    category: 'notebooks',
    price: 2200,
    art: 'sketchbook',
    description: 'Forty sheets that take pencil, ink and a light wash without waves. The hard back makes a table of any knee.',
    details: { Format: '250 × 190 mm', Paper: '180 g/m², fine grain', Sheets: '40, perforated' },
    variants: [
      variant('NK-SKB-KRF', 'Kraft', '#c59d6c', '#8a6640', '#6d4f30'),
      variant('NK-SKB-CHL', 'Charcoal', '#66696d', '#43464a', '#e5e1d8'),
    ],
  },
  {
    id: 'pen-roll',
    name: 'Canvas Pen Roll',
    brand: 'Deckle',
    category: 'desk',
    price: 2900,
    art: 'penRoll',
    description: 'Waxed canvas with five pockets and a strap of vegetable-tanned leather. Rolls up to the size of a sandwich and keeps ink off the lunch.',
    details: { Pockets: '5', Material: 'Waxed cotton, leather', Rolled: '200 × 60 mm' },
    variants: [
      variant('DK-ROL-OLV', 'Olive', '#7c8052', '#595c39', '#8b5a35'),
      variant('DK-ROL-SND', 'Sand', '#c9b088', '#9c845c', '#7a4b2e'),
    ],
  },
];

export const promotion = {
  id: 'letters-welcome10',
  name: 'Write a letter: 10 % off the first order',
  creative: 'letter_desk',
  position: 'home_banner_top',
  target: '/category/ink-paper',
};

export const coupons = [
  { code: 'WELCOME10', name: '10 % off the first order', percent: 10, active: true },
  { code: 'SPRING15', name: '15 % off in spring', percent: 15, active: false },
];

export const deliveryMethods = [
  { id: 'standard', name: 'Standard', note: '2–4 working days', price: 490, freeFrom: 6000 },
  { id: 'express', name: 'Express', note: 'Next working day', price: 990 },
  { id: 'pickup', name: 'Collect in the shop', note: 'Ready in two hours', price: 0 },
];

export const paymentMethods = [
  { id: 'card', name: 'Card', note: 'Here your payment provider’s own form would appear.' },
  { id: 'invoice', name: 'Invoice', note: 'Pay within 14 days of delivery.' },
  { id: 'transfer', name: 'Bank transfer', note: 'We send the goods when the money has arrived.' },
];

export const findProduct = (id) => products.find((product) => product.id === id);
export const findVariant = (product, sku) => product.variants.find((v) => v.sku === sku) ?? product.variants[0];
export const findCategory = (id) => categories.find((category) => category.id === id);

/** The product and variant behind a stock-keeping unit, or undefined if the shop no longer sells it. */
export function findSku(sku) {
  for (const product of products) {
    const found = product.variants.find((v) => v.sku === sku);
    if (found) return { product, variant: found };
  }
  return undefined;
}

export const inCategory = (id) => products.filter((product) => product.category === id);

/** Products that contain every word of the query, in any of their texts. */
export function search(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return [];
  return products.filter((product) => {
    const text = [product.name, product.brand, findCategory(product.category).name, product.description, ...product.variants.map((v) => v.name)]
      .join(' ')
      .toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

/** Up to `count` others: those of the same category first. */
export function related(product, count) {
  const others = products.filter((other) => other !== product);
  const near = (other) => (other.category === product.category ? 0 : 1);
  return others.sort((a, b) => near(a) - near(b)).slice(0, count);
}

export const sortings = [
  { id: 'featured', name: 'Featured' },
  { id: 'price-asc', name: 'Price, low to high', type: 'price', value: 'asc', compare: (a, b) => a.price - b.price },
  { id: 'price-desc', name: 'Price, high to low', type: 'price', value: 'desc', compare: (a, b) => b.price - a.price },
  { id: 'name-asc', name: 'Name', type: 'name', value: 'asc', compare: (a, b) => a.name.localeCompare(b.name) },
];

/** The list in the order that the visitor chose, and the sorting that was used. */
export function sorted(list, id) {
  const sorting = sortings.find((s) => s.id === id) ?? sortings[0];
  return { sorting, list: sorting.compare ? [...list].sort(sorting.compare) : list };
}
