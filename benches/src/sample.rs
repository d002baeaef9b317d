//! The data: a shop's products, seen in an order that a fixed seed decides.

use crate::{Body, Kind, ProductViewed};

/// Events in the frame that the goals speak of.
pub const FRAME: usize = 300;

/// The secret that a dedup window hashes with: random bits, as its users are told to give it.
pub const DEDUP_KEY: (u64, u64) = (0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);

/// SplitMix64: the same sequence on every machine.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `bound`.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// So many random 128-bit ids.
#[must_use]
pub fn random_ids(count: usize, seed: u64) -> Vec<u128> {
    let mut random = Random::new(seed);
    (0..count).map(|_| u128::from(random.next()) << 64 | u128::from(random.next())).collect()
}

/// "Product Viewed", and now and then "Product Clicked", so many times, with Segment's names for the properties.
///
/// Texts differ in length and some are not ASCII, so that no branch predictor and no shortcut sees the same 300 times.
#[must_use]
pub fn bodies(count: usize, seed: u64) -> Vec<Body<'static>> {
    let mut random = Random::new(seed);
    let mut offset_ms = 0;
    (0..count)
        .map(|_| {
            offset_ms += 200 + random.below(9_000) as i64;
            let (product_id, sku, category, name, brand, price) =
                PRODUCTS[random.below(PRODUCTS.len() as u64) as usize];
            Body {
                kind: Kind::Track,
                offset_ms,
                name: if random.below(4) == 0 { "Product Clicked" } else { "Product Viewed" },
                properties: ProductViewed {
                    product_id,
                    sku,
                    category,
                    name,
                    brand,
                    price,
                    quantity: 1 + random.below(3) as u32,
                },
            }
        })
        .collect()
}

type Product = (&'static str, &'static str, &'static str, &'static str, &'static str, f64);

/// The first is the example of Segment's own documentation of the event.
const PRODUCTS: [Product; 16] = [
    ("507f1f77bcf86cd799439011", "G-32", "Games", "Monopoly: 3rd Edition", "Hasbro", 18.99),
    ("65a1c0de9b1e8a0012f3a001", "KM-0417", "Kitchen", "Burr coffee grinder, steel", "Halden", 129.0),
    ("65a1c0de9b1e8a0012f3a002", "KM-0418", "Kitchen", "Kaffeemühle mit Mahlwerk aus Keramik", "Halden", 74.5),
    ("65a1c0de9b1e8a0012f3a003", "BK-9780131103627", "Books", "The C Programming Language", "Prentice Hall", 61.33),
    ("65a1c0de9b1e8a0012f3a004", "SH-42-BLK", "Shoes", "Trail running shoe, black, size 42", "Nordkamm", 139.9),
    ("65a1c0de9b1e8a0012f3a005", "SH-39-RED", "Shoes", "Trail running shoe, red, size 39", "Nordkamm", 139.9),
    ("65a1c0de9b1e8a0012f3a006", "EL-USBC-2M", "Electronics", "USB-C cable, 2 m", "Voltline", 12.95),
    ("65a1c0de9b1e8a0012f3a007", "EL-CHG-65W", "Electronics", "Charger 65 W, three ports", "Voltline", 49.0),
    ("65a1c0de9b1e8a0012f3a008", "GD-1170", "Garden", "Watering can, 10 l, zinc", "Weidenhof", 34.8),
    ("65a1c0de9b1e8a0012f3a009", "GD-1171", "Garden", "Garden hose, 20 m", "Weidenhof", 27.25),
    ("65a1c0de9b1e8a0012f3a00a", "TY-88", "Toys", "Wooden train set, 48 pieces", "Lumi", 44.4),
    ("65a1c0de9b1e8a0012f3a00b", "TY-91", "Toys", "Kite", "Lumi", 15.0),
    ("65a1c0de9b1e8a0012f3a00c", "HM-LAMP-3", "Home", "Desk lamp with dimmer", "Fjellys", 89.99),
    ("65a1c0de9b1e8a0012f3a00d", "HM-RUG-200", "Home", "Wool rug, 200 × 140 cm", "Fjellys", 219.0),
    ("65a1c0de9b1e8a0012f3a00e", "FD-OLIVE-05", "Food", "Olive oil, extra virgin, 0.5 l", "Terrabruna", 13.6),
    ("65a1c0de9b1e8a0012f3a00f", "FD-CREME-6", "Food", "Crème brûlée set, 6 bowls and torch", "Terrabruna", 56.7),
];
