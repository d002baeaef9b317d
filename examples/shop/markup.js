// A template tag for HTML: what is put in is escaped, unless it is markup itself.

class Markup {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
}

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function render(value) {
  if (value instanceof Markup) return value.text;
  if (Array.isArray(value)) return value.map(render).join('');
  if (value === null || value === undefined || value === false) return '';
  return String(value).replace(/[&<>"']/g, (c) => escapes[c]);
}

export const html = (strings, ...values) => new Markup(strings.reduce((text, part, i) => text + render(values[i - 1]) + part));

/** Markup from a string that this program made itself, such as a drawing. */
export const trusted = (text) => new Markup(text);
