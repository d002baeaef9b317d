// The products, drawn: one function per kind, on a 400 × 400 canvas, in the colours of the variant. No image is ever fetched.

const PAPER = '#f7f2e7';
const LINE = '#cfc6b4';
const GOLD = '#d8b25c';
const GLASS = '#cbd9da';
const SHADE = 'fill="#1a1408" opacity=".14"';
const GLINT = 'fill="#fff" opacity=".28"';

const repeat = (count, draw) => Array.from({ length: count }, (_, i) => draw(i)).join('');

const drawings = {
  notebook: ({ main, dark, accent }) => `
    <g transform="rotate(-7 200 200)">
      <rect x="122" y="84" width="194" height="262" rx="9" ${SHADE}/>
      <path d="M214 322v46l8-8 8 8v-46z" fill="${accent}"/>
      <rect x="112" y="76" width="192" height="258" rx="7" fill="${PAPER}"/>
      <path d="M116 331h186M116 327h187" stroke="${LINE}" stroke-width="1.5"/>
      <rect x="106" y="68" width="192" height="256" rx="8" fill="${main}"/>
      <path d="M114 68h26v256h-26a8 8 0 0 1-8-8V76a8 8 0 0 1 8-8z" fill="${dark}"/>
      <path d="M140 68v256" stroke="#fff" stroke-opacity=".18" stroke-width="2"/>
      <rect x="172" y="116" width="82" height="54" rx="3" fill="${PAPER}"/>
      <path d="M184 134h58M184 146h58M184 158h36" stroke="${LINE}" stroke-width="3" stroke-linecap="round"/>
      <rect x="272" y="68" width="8" height="256" fill="${dark}"/>
    </g>`,

  fountainPen: ({ main, dark, accent }) => `
    <g transform="rotate(-42 200 200)">
      <rect x="44" y="190" width="300" height="32" rx="16" ${SHADE}/>
      <path d="M58 160h162v34H58a17 17 0 0 1 0-34z" fill="${main}"/>
      <path d="M220 162h44q8 0 12 5l3 4v12l-3 4q-4 5-12 5h-44z" fill="${dark}"/>
      <rect x="216" y="160" width="7" height="34" fill="${accent}"/>
      <path d="M279 167l62 8.5q5 1.5 0 3L279 187z" fill="${accent}"/>
      <path d="M296 177h44" stroke="#7d5f22" stroke-width="1.6"/>
      <circle cx="296" cy="177" r="2.8" fill="#7d5f22"/>
      <rect x="56" y="165" width="158" height="6" rx="3" ${GLINT}/>
      <rect x="94" y="246" width="176" height="40" rx="16" ${SHADE}/>
      <path d="M98 230h150a19 19 0 0 1 0 38H98a5 5 0 0 1-5-5v-28a5 5 0 0 1 5-5z" fill="${main}"/>
      <rect x="98" y="230" width="10" height="38" fill="${accent}"/>
      <path d="M250 245h-94a5 5 0 0 0 0 10h94z" fill="${accent}"/>
      <rect x="112" y="235" width="134" height="5" rx="2.5" ${GLINT}/>
    </g>`,

  ink: ({ main, dark, accent }) => `
    <ellipse cx="206" cy="322" rx="112" ry="13" ${SHADE}/>
    <rect x="164" y="132" width="72" height="40" fill="${GLASS}" opacity=".9"/>
    <path d="M136 162h128q22 0 22 22v112q0 24-24 24H138q-24 0-24-24V184q0-22 22-22z" fill="${GLASS}" opacity=".9"/>
    <path d="M126 204h148v88q0 16-16 16H142q-16 0-16-16z" fill="${main}"/>
    <ellipse cx="200" cy="204" rx="74" ry="8" fill="${dark}"/>
    <rect x="150" y="84" width="100" height="54" rx="9" fill="#45423c"/>
    <path d="${repeat(9, (i) => `M${160 + i * 10} 94v34`)}" stroke="#fff" stroke-opacity=".14" stroke-width="3" stroke-linecap="round"/>
    <rect x="148" y="222" width="104" height="66" rx="3" fill="${PAPER}"/>
    <circle cx="200" cy="244" r="11" fill="${main}"/>
    <circle cx="204" cy="240" r="3" fill="${accent}"/>
    <path d="M172 266h56M182 276h36" stroke="${LINE}" stroke-width="3" stroke-linecap="round"/>
    <rect x="120" y="180" width="6" height="116" rx="3" fill="#fff" opacity=".6"/>`,

  letter: ({ main, dark, accent }) => `
    <g transform="rotate(4 200 200)">
      <rect x="80" y="160" width="252" height="166" rx="7" ${SHADE}/>
      <path d="M74 160L200 84l126 76v144H74z" fill="${dark}"/>
      <rect x="98" y="76" width="204" height="190" rx="3" fill="${PAPER}"/>
      <path d="M122 106h92M122 126h156M122 142h156M122 158h140M122 174h150M122 190h112" stroke="${LINE}" stroke-width="3.5" stroke-linecap="round"/>
      <path d="M74 162l126 88 126-88v144a7 7 0 0 1-7 7H81a7 7 0 0 1-7-7z" fill="${main}"/>
      <path d="M77 311l94-82M323 311l-94-82" stroke="${dark}" stroke-width="2.5"/>
      <circle cx="200" cy="250" r="21" fill="${accent}"/>
      <circle cx="200" cy="250" r="13" fill="none" stroke="#fff" stroke-opacity=".4" stroke-width="2.5"/>
      <path d="M194 256q6-16 12-4" fill="none" stroke="#fff" stroke-opacity=".55" stroke-width="2.5" stroke-linecap="round"/>
    </g>`,

  pencils: ({ main, dark, accent }) => {
    const lift = [10, -6, 14, 0, -12, 6];
    return `
    <rect x="90" y="226" width="240" height="122" rx="7" ${SHADE}/>
    ${repeat(6, (i) => {
      const x = 88 + i * 38;
      const y = 126 + lift[i];
      return `<path d="M${x} ${y}h34V330h-34z" fill="${main}"/>
      <path d="M${x} ${y}h11V330h-11z" fill="${dark}"/>
      <path d="M${x + 23} ${y}h11V330h-11z" fill="#fff" opacity=".2"/>
      <path d="M${x} ${y}q5.5-9 11 0 6-9 12 0 5.5-9 11 0l-13-46h-8z" fill="#e9cfa6"/>
      <path d="M${x + 11} ${y - 39}l2-7h8l2 7z" fill="#3d3b38"/><path d="M${x + 13} ${y - 46}l4-13 4 13z" fill="#3d3b38"/>`;
    })}
    <path d="M80 224q0-6 6-6h228q6 0 6 6v112q0 6-6 6H86q-6 0-6-6z" fill="${accent}"/>
    <rect x="152" y="248" width="96" height="64" rx="3" fill="${PAPER}"/>
    <path d="M170 270h60M170 284h60M184 298h32" stroke="${LINE}" stroke-width="3" stroke-linecap="round"/>`;
  },

  planner: ({ main, dark, accent }) => `
    <g transform="rotate(5 200 200)">
      <rect x="102" y="80" width="214" height="268" rx="6" ${SHADE}/>
      <rect x="98" y="72" width="212" height="264" rx="5" fill="${LINE}"/>
      <rect x="95" y="69" width="212" height="262" rx="5" fill="#e9e1d0"/>
      <rect x="92" y="66" width="212" height="260" rx="5" fill="${PAPER}"/>
      <path d="M97 66h202a5 5 0 0 1 5 5v37H92V71a5 5 0 0 1 5-5z" fill="${main}"/>
      <rect x="92" y="104" width="212" height="4" fill="${dark}"/>
      <path d="M110 87h74" stroke="#fff" stroke-opacity=".85" stroke-width="6" stroke-linecap="round"/>
      ${repeat(7, (i) => `<circle cx="116" cy="${126 + i * 29}" r="7" ${i < 3 ? `fill="${accent}"` : `fill="none" stroke="${LINE}" stroke-width="2.5"`}/>
      <path d="M136 ${126 + i * 29}h${[96, 70, 112, 58, 104, 84, 40][i]}" stroke="${LINE}" stroke-width="4" stroke-linecap="round"/>
      <path d="M104 ${140.5 + i * 29}h188" stroke="${LINE}" stroke-opacity=".55" stroke-width="1.2"/>`)}
    </g>`,

  ruler: ({ main, dark, accent }) => `
    <g transform="rotate(-38 200 200)">
      <rect x="34" y="178" width="344" height="66" rx="5" ${SHADE}/>
      <rect x="28" y="166" width="344" height="66" rx="4" fill="${main}"/>
      <path d="M28 170a4 4 0 0 1 4-4h336a4 4 0 0 1 4 4v8H28z" fill="${accent}" opacity=".7"/>
      <path d="${repeat(31, (i) => `M${50 + i * 10} 232v-${i % 10 === 0 ? 30 : i % 5 === 0 ? 22 : 13}`)}" stroke="${dark}" stroke-width="2"/>
      <circle cx="44" cy="190" r="6" fill="${dark}" opacity=".55"/>
      <path d="M238 188h96" stroke="${dark}" stroke-opacity=".5" stroke-width="4" stroke-linecap="round"/>
    </g>`,

  pocket: ({ main, dark, accent }) => {
    const book = (colour, angle) => `
      <g transform="rotate(${angle} 200 350)">
        <rect x="139" y="94" width="134" height="192" rx="12" ${SHADE}/>
        <rect x="134" y="86" width="132" height="190" rx="11" fill="${colour}"/>
        <path d="M145 86h7v190h-7a11 11 0 0 1-11-11V97a11 11 0 0 1 11-11z" fill="#000" opacity=".16"/>
        <path d="M143 126v18M143 218v18" stroke="#eee" stroke-opacity=".75" stroke-width="3" stroke-linecap="round"/>
        <path d="M182 124h56M182 138h36" stroke="#fff" stroke-opacity=".65" stroke-width="4.5" stroke-linecap="round"/>
      </g>`;
    return `<g transform="translate(0 22)">${book(dark, -21)}${book(main, 1)}${book(accent, 23)}</g>`;
  },

  mechanicalPencil: ({ main, dark, accent }) => `
    <g transform="rotate(-42 200 200)">
      <rect x="46" y="200" width="320" height="24" rx="11" ${SHADE}/>
      <rect x="26" y="190" width="34" height="16" rx="5" fill="${accent}"/>
      <rect x="54" y="184" width="196" height="28" rx="4" fill="${main}"/>
      <rect x="250" y="184" width="70" height="28" fill="${dark}"/>
      <path d="${repeat(8, (i) => `M${256 + i * 8.5} 185v26`)}" stroke="${accent}" stroke-opacity=".5" stroke-width="2.5"/>
      <path d="M320 185l34 10v6l-34 10z" fill="${accent}"/>
      <rect x="354" y="196" width="14" height="4" fill="${accent}"/>
      <rect x="368" y="197" width="12" height="2.4" fill="#3d3b38"/>
      <path d="M70 178h84a5 5 0 0 1 0 10H70z" fill="${accent}"/>
      <rect x="58" y="191" width="188" height="5" rx="2.5" ${GLINT}/>
      <rect x="200" y="184" width="4" height="28" fill="${dark}"/>
    </g>`,

  tape: ({ main, dark, accent }) => {
    const ring = 'M-66 0a66 66 0 1 0 132 0a66 66 0 1 0-132 0zM-34 0a34 34 0 1 0 68 0a34 34 0 1 0-68 0z';
    const roll = (colour, x, y, pattern) => `
      <g transform="translate(${x} ${y})">
        <path transform="translate(7 9)" fill-rule="evenodd" d="${ring}" ${SHADE}/>
        <path fill-rule="evenodd" d="${ring}" fill="${colour}"/>
        <circle r="51" fill="none" stroke="#fff" stroke-opacity=".6" ${pattern}/>
        <circle r="37" fill="none" stroke="#e2d3b4" stroke-width="7"/>
        <circle r="65" fill="none" stroke="#000" stroke-opacity=".1" stroke-width="2"/>
      </g>`;
    return `
    ${roll(dark, 138, 156, 'stroke-width="7" stroke-dasharray="1 19" stroke-linecap="round"')}
    ${roll(accent, 268, 176, 'stroke-width="15" stroke-dasharray="4 9"')}
    <path d="M196 328h142l-7 8 7 8-7 8 7 8H196z" fill="${main}"/>
    <path d="M214 344h104" stroke="#fff" stroke-opacity=".6" stroke-width="3" stroke-dasharray="10 9"/>
    ${roll(main, 194, 294, 'stroke-width="3" stroke-dasharray="10 9"')}`;
  },

  sketchbook: ({ main, dark, accent }) => `
    <g transform="rotate(-5 200 200)">
      <rect x="72" y="112" width="278" height="204" rx="8" ${SHADE}/>
      <rect x="70" y="104" width="272" height="202" rx="6" fill="${PAPER}"/>
      <rect x="64" y="98" width="272" height="202" rx="7" fill="${main}"/>
      <path d="M122 252q34-62 62-26 14-44 44-62 34 22 76 88z" fill="none" stroke="${accent}" stroke-width="4" stroke-linejoin="round" stroke-linecap="round"/>
      <path d="M184 226q12 16 18 26M228 164q4 40 22 88" fill="none" stroke="${accent}" stroke-opacity=".6" stroke-width="3" stroke-linecap="round"/>
      <circle cx="278" cy="146" r="15" fill="none" stroke="${accent}" stroke-width="4"/>
      ${repeat(10, (i) => `<circle cx="82" cy="${116 + i * 18.6}" r="4.5" fill="${dark}"/>
      <path d="M82 ${116 + i * 18.6}q-30-8-28 3 2 7 22 2" fill="none" stroke="#8d9396" stroke-width="3.5" stroke-linecap="round"/>`)}
    </g>`,

  penRoll: ({ main, dark, accent }) => `
    <rect x="76" y="176" width="264" height="166" rx="12" ${SHADE}/>
    <path d="M106 190V92q0-8 8-8t8 8v98z" fill="#2f6f73"/>
    <path d="M106 100h16v10h-16z" fill="${GOLD}"/>
    <path d="M150 190v-86l9-26 9 26v86z" fill="#dda63a"/><path d="M150 104l9-26 9 26q-4.5-6-9 0-4.5-6-9 0z" fill="#e9cfa6"/><path d="M156 87l3-9 3 9z" fill="#3d3b38"/>
    <path d="M193 190V78h14v112z" fill="#8a9196"/><path d="M195 78V62h10v16z" fill="#c9cfd3"/>
    <path d="M236 190v-78q0-9 9-9t9 9v78z" fill="#b5533c"/><path d="M241 104l4-28 4 28z" fill="#6b3326"/>
    <path d="M280 190V96q0-7 7-7t7 7v94z" fill="#5d93a0"/>
    <path d="M68 176q0-10 10-10h244q10 0 10 10v146q0 12-12 12H80q-12 0-12-12z" fill="${main}"/>
    <path d="M68 176q0-10 10-10h244q10 0 10 10v14H68z" fill="${dark}"/>
    <path d="M68 196h264" stroke="#fff" stroke-opacity=".45" stroke-width="2" stroke-dasharray="7 6"/>
    <path d="M136 202v126M180 202v126M222 202v126M266 202v126" stroke="${dark}" stroke-width="2.5" stroke-dasharray="7 6"/>
    <rect x="62" y="244" width="276" height="26" rx="4" fill="${accent}"/>
    <path d="M68 249h264M68 265h264" stroke="#fff" stroke-opacity=".3" stroke-width="1.5" stroke-dasharray="6 5"/>
    <rect x="184" y="236" width="34" height="42" rx="6" fill="none" stroke="${GOLD}" stroke-width="6"/>
    <path d="M201 257h22" stroke="${GOLD}" stroke-width="5" stroke-linecap="round"/>`,
};

/** The drawing as an `<svg>`; with a `label` it is announced as an image, without one it is decoration. */
export function art(kind, colours, label) {
  const role = label ? `role="img" aria-label="${label.replace(/[&"<]/g, (c) => `&#${c.charCodeAt(0)};`)}"` : 'aria-hidden="true"';
  return `<svg class="art" viewBox="0 0 400 400" ${role}>${drawings[kind](colours)}</svg>`;
}

/** The banner's still life: letter, ink and pen on one table. */
export function scene() {
  const put = (kind, colours, x, y, scale) => `<g transform="translate(${x} ${y}) scale(${scale})">${drawings[kind](colours)}</g>`;
  return `<svg class="art" viewBox="0 0 560 380" aria-hidden="true">
    ${put('letter', { main: '#d79a8b', dark: '#b57466', accent: '#9c3f35' }, 20, -20, 0.98)}
    ${put('ink', { main: '#2d5b93', dark: '#1e4069', accent: '#e8c15b' }, 322, 90, 0.66)}
    ${put('fountainPen', { main: '#2f6f73', dark: '#204c50', accent: '#d8b25c' }, 250, -54, 0.7)}
  </svg>`;
}
