//! The other codecs, each by its own fast path: into a buffer that is kept, out of it by borrowing where the codec can.

use rkyv::{api::high::to_bytes_in, rancor, util::AlignedVec};

use crate::body::{ArchivedBody, Body, Sum};

/// One codec for event bodies.
///
/// Errors panic: the data is ours, and a benchmark that went on after one would measure something else.
pub trait Codec {
    /// What it is called in the table.
    const NAME: &'static str;
    /// What it encodes: the borrowed struct, where the codec has a use for one.
    type Input<'a>;
    /// What it writes into.
    type Out: Default + AsRef<[u8]>;

    /// The input of one event; not timed.
    fn input<'a>(body: &Body<'a>) -> Self::Input<'a>;
    /// Empties the buffer and keeps its memory.
    fn clear(out: &mut Self::Out);
    /// Appends one event.
    fn encode(input: &Self::Input<'_>, out: &mut Self::Out);
    /// Decodes one event, with UTF-8 checks, and adds up every value in it.
    fn decode(bytes: &[u8]) -> u64;
}

macro_rules! borrowed {
    () => {
        type Input<'a> = Body<'a>;
        type Out = Vec<u8>;

        fn input<'a>(body: &Body<'a>) -> Body<'a> {
            *body
        }

        fn clear(out: &mut Vec<u8>) {
            out.clear();
        }
    };
}

/// serde_json.
#[derive(Debug)]
pub struct Json;

impl Codec for Json {
    const NAME: &'static str = "serde_json";
    borrowed!();

    #[inline]
    fn encode(input: &Body<'_>, out: &mut Vec<u8>) {
        serde_json::to_writer(out, input).expect("a body is valid JSON");
    }

    #[inline]
    fn decode(bytes: &[u8]) -> u64 {
        serde_json::from_slice::<Body<'_>>(bytes).expect("our own JSON").sum()
    }
}

/// postcard through serde: what the frame's format is made of, without names of properties.
#[derive(Debug)]
pub struct Postcard;

impl Codec for Postcard {
    const NAME: &'static str = "postcard";
    borrowed!();

    #[inline]
    fn encode(input: &Body<'_>, out: &mut Vec<u8>) {
        // postcard's own writer for a Vec goes byte by byte; a slice is its fast way.
        let mut buf = [0; 1024];
        out.extend_from_slice(postcard::to_slice(input, &mut buf).expect("a body fits"));
    }

    #[inline]
    fn decode(bytes: &[u8]) -> u64 {
        postcard::from_bytes::<Body<'_>>(bytes).expect("our own bytes").sum()
    }
}

/// rmp-serde, structs as maps: names of fields included, as in JSON.
#[derive(Debug)]
pub struct MessagePack;

impl Codec for MessagePack {
    const NAME: &'static str = "rmp-serde (named)";
    borrowed!();

    #[inline]
    fn encode(input: &Body<'_>, out: &mut Vec<u8>) {
        rmp_serde::encode::write_named(out, input).expect("a body is valid MessagePack");
    }

    #[inline]
    fn decode(bytes: &[u8]) -> u64 {
        rmp_serde::from_slice::<Body<'_>>(bytes).expect("our own bytes").sum()
    }
}

/// bincode 2, standard configuration (varints).
#[derive(Debug)]
pub struct Bincode;

impl Codec for Bincode {
    const NAME: &'static str = "bincode 2";
    borrowed!();

    #[inline]
    fn encode(input: &Body<'_>, out: &mut Vec<u8>) {
        let at = out.len();
        out.resize(at + 1024, 0);
        let used = bincode::encode_into_slice(input, &mut out[at..], bincode::config::standard()).expect("a body fits");
        out.truncate(at + used);
    }

    #[inline]
    fn decode(bytes: &[u8]) -> u64 {
        bincode::borrow_decode_from_slice::<Body<'_>, _>(bytes, bincode::config::standard())
            .expect("our own bytes")
            .0
            .sum()
    }
}

/// wincode: bincode 1's format, maintained.
#[derive(Debug)]
pub struct Wincode;

impl Codec for Wincode {
    const NAME: &'static str = "wincode";
    borrowed!();

    #[inline]
    fn encode(input: &Body<'_>, out: &mut Vec<u8>) {
        wincode::serialize_into(out, input).expect("a body fits");
    }

    #[inline]
    fn decode(bytes: &[u8]) -> u64 {
        wincode::deserialize::<Body<'_>>(bytes).expect("our own bytes").sum()
    }
}

/// rkyv 0.8: decoding is checked access, without a copy.
#[derive(Debug)]
pub struct Rkyv;

impl Codec for Rkyv {
    const NAME: &'static str = "rkyv (checked)";
    type Input<'a> = Body<'a>;
    type Out = AlignedVec;

    fn input<'a>(body: &Body<'a>) -> Body<'a> {
        *body
    }

    fn clear(out: &mut AlignedVec) {
        out.clear();
    }

    #[inline]
    fn encode(input: &Body<'_>, out: &mut AlignedVec) {
        *out = to_bytes_in::<_, rancor::Panic>(input, core::mem::take(out)).expect("a body fits");
    }

    #[inline]
    fn decode(bytes: &[u8]) -> u64 {
        rkyv::access::<ArchivedBody<'_>, rancor::Failure>(bytes).expect("our own bytes").sum()
    }
}

impl Sum for ArchivedBody<'_> {
    #[inline]
    fn sum(&self) -> u64 {
        let p = &self.properties;
        [&p.product_id, &p.sku, &p.category, &p.name, &p.brand, &self.name].iter().fold(
            (self.kind as u64)
                .wrapping_add_signed(self.offset_ms.to_native())
                .wrapping_add(p.price.to_native().to_bits())
                .wrapping_add(p.quantity.to_native().into()),
            |sum, text| sum.wrapping_add(text.as_ref().sum()),
        )
    }
}

/// prost 0.14 by derive. Protocol Buffers' generated structs own their strings: encoding begins from such a struct,
/// built beforehand, and decoding has to allocate.
#[derive(Debug)]
pub struct Prost;

/// The body as a protobuf message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProtoBody {
    /// Which call.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// When.
    #[prost(sint64, tag = "2")]
    pub offset_ms: i64,
    /// What happened.
    #[prost(string, tag = "3")]
    pub name: String,
    /// All that it says of itself.
    #[prost(message, required, tag = "4")]
    pub properties: ProtoProductViewed,
}

/// The properties as a protobuf message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProtoProductViewed {
    /// Database id.
    #[prost(string, tag = "1")]
    pub product_id: String,
    /// Stock-keeping unit.
    #[prost(string, tag = "2")]
    pub sku: String,
    /// Category.
    #[prost(string, tag = "3")]
    pub category: String,
    /// Name.
    #[prost(string, tag = "4")]
    pub name: String,
    /// Brand.
    #[prost(string, tag = "5")]
    pub brand: String,
    /// Price of one.
    #[prost(double, tag = "6")]
    pub price: f64,
    /// How many.
    #[prost(uint32, tag = "7")]
    pub quantity: u32,
}

impl Codec for Prost {
    const NAME: &'static str = "prost";
    type Input<'a> = ProtoBody;
    type Out = Vec<u8>;

    fn input<'a>(body: &Body<'a>) -> ProtoBody {
        let p = &body.properties;
        ProtoBody {
            kind: body.kind as u32,
            offset_ms: body.offset_ms,
            name: body.name.into(),
            properties: ProtoProductViewed {
                product_id: p.product_id.into(),
                sku: p.sku.into(),
                category: p.category.into(),
                name: p.name.into(),
                brand: p.brand.into(),
                price: p.price,
                quantity: p.quantity,
            },
        }
    }

    fn clear(out: &mut Vec<u8>) {
        out.clear();
    }

    #[inline]
    fn encode(input: &ProtoBody, out: &mut Vec<u8>) {
        prost::Message::encode(input, out).expect("a Vec grows");
    }

    #[inline]
    fn decode(bytes: &[u8]) -> u64 {
        let body: ProtoBody = prost::Message::decode(bytes).expect("our own bytes");
        let p = &body.properties;
        [&p.product_id, &p.sku, &p.category, &p.name, &p.brand, &body.name].iter().fold(
            u64::from(body.kind)
                .wrapping_add_signed(body.offset_ms)
                .wrapping_add(p.price.to_bits())
                .wrapping_add(p.quantity.into()),
            |sum, text| sum.wrapping_add(text.as_str().sum()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies;

    fn carries_every_value<C: Codec>() {
        let mut out = C::Out::default();
        for body in bodies(50, 1) {
            C::clear(&mut out);
            C::encode(&C::input(&body), &mut out);
            assert_eq!(C::decode(out.as_ref()), body.sum(), "{}", C::NAME);
        }
    }

    #[test]
    fn every_codec_carries_every_value() {
        carries_every_value::<Json>();
        carries_every_value::<Postcard>();
        carries_every_value::<MessagePack>();
        carries_every_value::<Bincode>();
        carries_every_value::<Wincode>();
        carries_every_value::<Rkyv>();
        carries_every_value::<Prost>();
    }
}
