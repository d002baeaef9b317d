// Who the visitor is and where: ids, consent, and the context that follows from them.
//
// No id outlives the page before the visitor has agreed to it, or the page has taken that upon itself with `persist`; and none does where the
// browser sends Global Privacy Control.

import type { Context } from './encoder.ts';
import type { Consent, LoadOptions } from './firsthop.d.ts';
import { createUuid } from './uuid.ts';
import { Field } from './wasm.ts';

/** The purposes, in the order of their bits. */
const PURPOSES = ['necessary', 'analytics', 'preferences', 'marketing'] as const;
const enum Bit {
  Marketing = 8,
}

const enum Limit {
  /** A visit ends when nothing happened for so long. */
  VisitMs = 30 * 60_000,
  /** How often the end of a visit is written down. */
  SaveMs = 5000,
}

export type Visitor = ReturnType<typeof createVisitor>;

export function createVisitor({ writeKey, gpc = true, persist = false, consent }: LoadOptions) {
  /** `fh_` and the tenant. */
  const store = writeKey.slice(0, 19);
  const refused = gpc && !!(navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl;
  const agreed: { [purpose: string]: boolean | undefined } = {};
  const query = new URLSearchParams(location.search);
  let bits = 0;
  let persisted = false;
  let seen = Date.now();
  let saved = 0;

  let context: Context = [
    createUuid(),
    ,
    createUuid(),
    navigator.language,
    Intl.DateTimeFormat().resolvedOptions().timeZone,
    ,
    ,
    ,
    document.referrer,
    ...['source', 'medium', 'campaign', 'term', 'content'].map((name) => query.get('utm_' + name)!),
    // Where OpenTelemetry, too, finds the trace that has brought the page: https://www.w3.org/TR/trace-context/
    document.querySelector<HTMLMetaElement>('meta[name=traceparent]')?.content,
  ];

  const change = (changes: { [field in Field]?: string | undefined }): Context => (context = Object.assign([...context], changes));

  /** Writes the ids down if it may, or takes them away. Storage may be closed. `again`: not if another tab has changed them, or taken them away. */
  const save = (again?: boolean): void => {
    saved = seen;
    try {
      if (again && !localStorage.getItem(store)?.startsWith(context[Field.AnonymousId]!)) return;
      if (persisted) localStorage.setItem(store, `${context[Field.AnonymousId]} ${context[Field.Visit]} ${seen}`);
      else localStorage.removeItem(store);
    } catch {}
  };

  const agree = (purposes?: Consent): void => {
    if (purposes) {
      Object.assign(agreed, purposes);
      bits = PURPOSES.reduce((sum, purpose, bit) => sum + (+!!(agreed[purpose] ?? !bit) << bit), 0);
      if (refused) bits &= ~Bit.Marketing;
    }
    const before = persisted;
    persisted = !refused && (agreed.analytics ?? persist);
    if (persisted && !before) {
      try {
        const [anonymousId, visit, last] = localStorage.getItem(store)!.split(' ');
        if (anonymousId) change({ [Field.AnonymousId]: anonymousId, ...(seen - +last! < Limit.VisitMs && { [Field.Visit]: visit }) });
      } catch {}
    }
    // What was written down is not used on.
    if (before && !persisted) change({ [Field.AnonymousId]: createUuid(), [Field.Visit]: createUuid() });
    // Where nothing was said yet, what an earlier page was allowed to keep stays, unread.
    if (persisted || refused || agreed.analytics === false) save();
  };
  agree(consent);

  return {
    agree,
    change,
    purposes: () => bits,

    /** The context of a call that was made then and there. */
    place(now: number, url: string, title: string): Context {
      if (now - seen > Limit.VisitMs) change({ [Field.Visit]: createUuid() });
      if (url !== context[Field.Url] || title !== context[Field.Title]) change({ [Field.Url]: url, [Field.Title]: title });
      seen = now;
      if (persisted && now - saved > Limit.SaveMs) save(true);
      return context;
    },

    forget(): void {
      change({ [Field.AnonymousId]: createUuid(), [Field.UserId]: undefined, [Field.Visit]: createUuid() });
      save();
    },
  };
}
