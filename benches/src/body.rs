//! One event's own fields, as a program that knows them would declare them: borrowed, with one derive per codec.

use firsthop_core::{Error, PropertiesWriter, Value};
use rkyv::with::InlineAsBox;

/// Which call made the event.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    bincode::Encode,
    bincode::BorrowDecode,
    wincode::SchemaWrite,
    wincode::SchemaRead,
    rkyv::Archive,
    rkyv::Serialize,
)]
#[serde(rename_all = "lowercase")]
#[rkyv(derive(Clone, Copy))]
#[repr(u8)]
pub enum Kind {
    /// `track`
    Track,
    /// `page`
    Page,
}

/// What a codec has to carry for one event. Whose it is and which number it has is for a frame, or a message, to say.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    serde::Serialize,
    serde::Deserialize,
    bincode::Encode,
    bincode::BorrowDecode,
    wincode::SchemaWrite,
    wincode::SchemaRead,
    rkyv::Archive,
    rkyv::Serialize,
)]
pub struct Body<'a> {
    /// Which call.
    pub kind: Kind,
    /// When, in milliseconds after the batch was begun.
    pub offset_ms: i64,
    /// What happened.
    #[rkyv(with = InlineAsBox)]
    pub name: &'a str,
    /// All that it says of itself.
    #[serde(borrow)]
    pub properties: ProductViewed<'a>,
}

/// Segment's "Product Viewed".
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    serde::Serialize,
    serde::Deserialize,
    bincode::Encode,
    bincode::BorrowDecode,
    wincode::SchemaWrite,
    wincode::SchemaRead,
    rkyv::Archive,
    rkyv::Serialize,
)]
pub struct ProductViewed<'a> {
    /// Database id.
    #[rkyv(with = InlineAsBox)]
    pub product_id: &'a str,
    /// Stock-keeping unit.
    #[rkyv(with = InlineAsBox)]
    pub sku: &'a str,
    /// Category.
    #[rkyv(with = InlineAsBox)]
    pub category: &'a str,
    /// Name.
    #[rkyv(with = InlineAsBox)]
    pub name: &'a str,
    /// Brand.
    #[rkyv(with = InlineAsBox)]
    pub brand: &'a str,
    /// Price of one.
    pub price: f64,
    /// How many.
    pub quantity: u32,
}

impl ProductViewed<'_> {
    /// Writes the properties as a user of the core would.
    ///
    /// # Errors
    /// [`Error::BufferFull`].
    #[inline]
    pub fn put(&self, properties: &mut PropertiesWriter<&mut [u8]>) -> Result<(), Error> {
        properties.put("product_id", Value::Str(self.product_id))?;
        properties.put("sku", Value::Str(self.sku))?;
        properties.put("category", Value::Str(self.category))?;
        properties.put("name", Value::Str(self.name))?;
        properties.put("brand", Value::Str(self.brand))?;
        properties.put("price", Value::F64(self.price))?;
        properties.put("quantity", Value::U64(self.quantity.into()))
    }
}

/// A number that depends on every value: decoding is not done before it is known, and every codec must find the same.
pub(crate) trait Sum {
    fn sum(&self) -> u64;
}

impl Sum for str {
    #[inline]
    fn sum(&self) -> u64 {
        self.len() as u64 + self.as_bytes().first().map_or(0, |&byte| u64::from(byte) << 8)
    }
}

impl Sum for Body<'_> {
    #[inline]
    fn sum(&self) -> u64 {
        (self.kind as u64)
            .wrapping_add_signed(self.offset_ms)
            .wrapping_add(self.name.sum())
            .wrapping_add(self.properties.sum())
    }
}

impl Sum for ProductViewed<'_> {
    #[inline]
    fn sum(&self) -> u64 {
        [self.product_id, self.sku, self.category, self.name, self.brand]
            .iter()
            .fold(self.price.to_bits().wrapping_add(self.quantity.into()), |sum, text| sum.wrapping_add(text.sum()))
    }
}
