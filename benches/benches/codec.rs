//! Event bodies: encode and decode, the same fields in every codec, 300 events an iteration.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use firsthop_benches::{
    Bincode, Codec, FRAME, FrameKit, Json, MessagePack, Postcard, Prost, Rkyv, Wincode, bodies, read_frame,
    read_frame_typed,
};
use firsthop_core::{Alg, MacKey, Unsigned};

const NO_KEY: Option<&MacKey> = None;

fn encode(c: &mut Criterion) {
    let mut group = group(c, "body-encode");
    let bodies = bodies(FRAME, 1);
    let mut kit = FrameKit::new(Alg::None);
    group.bench_function("firsthop", |b| {
        b.iter(|| kit.bare(black_box(&bodies), &Unsigned).map(<[u8]>::len).expect("300 bodies fit a frame"));
    });
    encode_with::<Postcard>(&mut group);
    encode_with::<Bincode>(&mut group);
    encode_with::<Wincode>(&mut group);
    encode_with::<Rkyv>(&mut group);
    encode_with::<Prost>(&mut group);
    encode_with::<MessagePack>(&mut group);
    encode_with::<Json>(&mut group);
}

fn encode_with<C: Codec>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let bodies = bodies(FRAME, 1);
    let inputs: Vec<_> = bodies.iter().map(C::input).collect();
    let mut out = C::Out::default();
    group.bench_function(C::NAME, |b| {
        b.iter(|| {
            C::clear(&mut out);
            for input in black_box(&inputs) {
                C::encode(input, &mut out);
            }
            out.as_ref().len()
        });
    });
}

fn decode(c: &mut Criterion) {
    let mut group = group(c, "body-decode");
    let bodies = bodies(FRAME, 1);
    let mut kit = FrameKit::new(Alg::None);
    let frame = kit.bare(&bodies, &Unsigned).expect("300 bodies fit a frame");
    group.bench_function("firsthop", |b| {
        b.iter(|| read_frame(black_box(frame), NO_KEY).expect("our own frame"));
    });
    group.bench_function("firsthop (into the struct)", |b| {
        b.iter(|| read_frame_typed(black_box(frame), NO_KEY).expect("our own frame"));
    });
    decode_with::<Postcard>(&mut group);
    decode_with::<Bincode>(&mut group);
    decode_with::<Wincode>(&mut group);
    decode_with::<Rkyv>(&mut group);
    decode_with::<Prost>(&mut group);
    decode_with::<MessagePack>(&mut group);
    decode_with::<Json>(&mut group);
}

/// Where each event ends is known beforehand, which spares the others the framing that our figure includes.
fn decode_with<C: Codec>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut out = C::Out::default();
    let mut at = 0;
    let ranges: Vec<_> = bodies(FRAME, 1)
        .iter()
        .map(|body| {
            C::encode(&C::input(body), &mut out);
            let start = std::mem::replace(&mut at, out.as_ref().len());
            start..at
        })
        .collect();
    group.bench_function(C::NAME, |b| {
        b.iter(|| {
            let bytes = black_box(out.as_ref());
            ranges.iter().fold(0u64, |sum, range| sum.wrapping_add(C::decode(&bytes[range.clone()])))
        });
    });
}

fn group<'c>(c: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(FRAME as u64));
    group
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_millis(1500)).sample_size(40);
    targets = encode, decode
}
criterion_main!(benches);
