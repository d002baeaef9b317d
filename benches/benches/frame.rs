//! Whole frames of a page: build, sign, check, verify, read; beside the bare MAC over the same bytes, and beside Segment's JSON with
//! the same MAC.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use firsthop_benches::{
    BareBlake3, BareHmac, Body, Codec, FRAME, FrameKit, Json, Visit, bodies, read_batch, read_frame,
};
use firsthop_core::{
    Alg, Annotation, Envelope, Frame, FrameSigner, FrameVerifier, Header, MacKey, Network, RegionKeyId,
    RegionSecretKey, SecretKey, SourceId, TenantId, Timestamp, Trust, Unsigned, WorkerId, crc32, seal_envelope,
};

const KEY: [u8; 32] = [42; 32];
const NO_KEY: Option<&MacKey> = None;
/// Events of the frames that are sealed.
const SEALED: [usize; 3] = [1, 50, FRAME];

fn mac_key(alg: Alg) -> MacKey {
    MacKey::new(alg, &KEY).expect("a symmetric algorithm")
}

/// The frame that the goals speak of: 300 events, signed with a page's HMAC.
fn frame_of_300(c: &mut Criterion) {
    let (bodies, visit) = (bodies(FRAME, 1), Visit::new(FRAME));
    let hmac = mac_key(Alg::HmacSha256Trunc128);
    let mut kit = FrameKit::new(Alg::HmacSha256Trunc128);
    let frame = kit.page(&visit, &bodies, &hmac).expect("300 events fit a frame").to_vec();
    let parsed = Frame::parse(&frame).expect("our own frame");

    let mut group = group(c, "frame-300", FRAME);
    let bare = BareHmac::new(&KEY);
    group.bench_function("HMAC-SHA256 alone", |b| b.iter(|| bare.tag(black_box(parsed.signed()))));
    group.bench_function("encode + sign (HMAC)", |b| b.iter(|| build(&mut kit, &visit, &bodies, &hmac)));
    group.bench_function("read (HMAC)", |b| b.iter(|| read(black_box(&frame), Some(&hmac))));
    group.bench_function("sign (HMAC)", |b| b.iter(|| hmac.sign(black_box(parsed.signed()))));
    group.bench_function("verify (HMAC)", |b| b.iter(|| black_box(&parsed).verify(&hmac)));

    let bare = BareBlake3::new(&KEY);
    let blake3 = mac_key(Alg::Blake3);
    let mut blake3_kit = FrameKit::new(Alg::Blake3);
    let blake3_frame = blake3_kit.page(&visit, &bodies, &blake3).expect("300 events fit a frame").to_vec();
    let blake3_parsed = Frame::parse(&blake3_frame).expect("our own frame");
    group.bench_function("BLAKE3 alone", |b| b.iter(|| bare.tag(black_box(blake3_parsed.signed()))));
    group.bench_function("encode + sign (BLAKE3)", |b| b.iter(|| build(&mut blake3_kit, &visit, &bodies, &blake3)));
    group.bench_function("read (BLAKE3)", |b| b.iter(|| read(black_box(&blake3_frame), Some(&blake3))));

    let mut plain = FrameKit::new(Alg::None);
    group.bench_function("encode (unsigned)", |b| b.iter(|| build(&mut plain, &visit, &bodies, &Unsigned)));
    let mut plain = FrameKit::new(Alg::None);
    let plain = plain.page(&visit, &bodies, &Unsigned).expect("300 events fit a frame");
    group.bench_function("decode (unsigned)", |b| b.iter(|| read(black_box(plain), NO_KEY)));
    group.bench_function("lengths + CRC", |b| b.iter(|| Frame::parse(black_box(&frame))));
    group.bench_function("CRC alone", |b| b.iter(|| crc32(&[black_box(parsed.signed())])));
}

/// The same events as Segment's `batch`, with the same MAC over the JSON.
fn json_of_300(c: &mut Criterion) {
    let (bodies, visit) = (bodies(FRAME, 1), Visit::new(FRAME));
    let batch = visit.batch(&bodies);
    let bare = BareHmac::new(&KEY);
    let mut json = Vec::new();

    let mut group = group(c, "json-300", FRAME);
    let mut encode = || {
        json.clear();
        serde_json::to_writer(&mut json, black_box(&batch)).expect("a batch is valid JSON");
        json.len()
    };
    group.bench_function("wire: encode", |b| b.iter(&mut encode));
    encode();
    group.bench_function("wire: HMAC-SHA256 alone", |b| b.iter(|| bare.tag(black_box(&json))));
    group.bench_function("wire: decode", |b| b.iter(|| read_batch(black_box(&json))));
    group.bench_function("wire: HMAC + decode", |b| {
        b.iter(|| {
            let json = black_box(&json);
            (bare.tag(json), read_batch(json))
        });
    });
    group.bench_function("wire: encode + HMAC", |b| {
        b.iter(|| {
            json.clear();
            serde_json::to_writer(&mut json, black_box(&batch)).expect("a batch is valid JSON");
            bare.tag(&json)
        });
    });

    // The bodies alone, against which a frame's shared context saves nothing.
    let mut json = Vec::new();
    let mut ends = Vec::new();
    for body in &bodies {
        Json::encode(body, &mut json);
        ends.push(json.len());
    }
    group.bench_function("body: HMAC + decode", |b| {
        b.iter(|| {
            let json = black_box(&json);
            let mut start = 0;
            let sum = ends
                .iter()
                .fold(0u64, |sum, &end| sum.wrapping_add(Json::decode(&json[std::mem::replace(&mut start, end)..end])));
            (bare.tag(json), sum)
        });
    });
    group.bench_function("body: encode + HMAC", |b| {
        b.iter(|| {
            json.clear();
            for body in black_box(&bodies) {
                Json::encode(body, &mut json);
            }
            bare.tag(&json)
        });
    });
}

/// What a page really sends: a frame of one, and a frame of twenty.
fn small_frames(c: &mut Criterion) {
    let hmac = mac_key(Alg::HmacSha256Trunc128);
    for count in [1, 20] {
        let (bodies, visit) = (bodies(count, 1), Visit::new(count));
        let mut kit = FrameKit::new(Alg::HmacSha256Trunc128);
        let frame = kit.page(&visit, &bodies, &hmac).expect("the events fit a frame").to_vec();
        let mut group = group(c, &format!("frame-{count}"), count);
        group.bench_function("encode + sign (HMAC)", |b| b.iter(|| build(&mut kit, &visit, &bodies, &hmac)));
        group.bench_function("read (HMAC)", |b| b.iter(|| read(black_box(&frame), Some(&hmac))));
    }
}

/// The edge's own work on a frame of 300, and signatures for outside.
fn hops(c: &mut Criterion) {
    let (bodies, visit) = (bodies(FRAME, 1), Visit::new(FRAME));
    let hmac = mac_key(Alg::HmacSha256Trunc128);
    let mut kit = FrameKit::new(Alg::HmacSha256Trunc128);
    let frame = kit.page(&visit, &bodies, &hmac).expect("300 events fit a frame");

    let created = Timestamp::from_millis(1_772_446_531_000);
    let mut header = Header::new(TenantId::new(0x5eed), SourceId::v7(created, [1; 10]), created);
    header.count = FRAME as u16;
    let annotation = Annotation {
        received_ms: created.as_millis(),
        pop: "ZRH",
        country: "CH",
        network: Network::V4([203, 0, 113]),
        trust: Trust::Session,
        ..Annotation::default()
    };
    let mut buf = vec![0; firsthop_core::limits::MAX_ENVELOPE];
    let mut group = group(c, "envelope", FRAME);
    for alg in [Alg::HmacSha256, Alg::Blake3] {
        let key = mac_key(alg);
        header.alg = alg;
        let mut seal = || {
            seal_envelope(&mut buf, &header, WorkerId::new(7), &annotation, black_box(frame), &key)
                .expect("a frame fits an envelope")
                .len()
        };
        group.bench_function(format!("seal ({alg:?})"), |b| b.iter(&mut seal));
        let len = seal();
        group.bench_function(format!("open ({alg:?})"), |b| {
            b.iter(|| {
                let envelope = Frame::parse(black_box(&buf[..len])).expect("our own envelope");
                envelope.verify(&key).expect("our own signature");
                Envelope::open(&envelope).expect("our own envelope").frame.len()
            });
        });
    }
    group.finish();

    let region = RegionSecretKey::new(RegionKeyId::new(1), KEY);
    let public = region.public();
    let mut sealing = FrameKit::new(Alg::HmacSha256Trunc128);
    let mut plain = FrameKit::new(Alg::HmacSha256Trunc128);
    let mut group = c.benchmark_group("sealed");
    for count in SEALED {
        let bodies = &bodies[..count];
        // Beside it the same frame in clear: what sealing adds, and what a hop does with a frame in any case.
        group.bench_function(format!("encode + sign {count}"), |b| {
            b.iter(|| plain.page(&visit, black_box(bodies), &hmac).expect("the events fit a frame").len());
        });
        let clear = plain.page(&visit, bodies, &hmac).expect("the events fit a frame").to_vec();
        group.bench_function(format!("verify + read {count}"), |b| b.iter(|| read(black_box(&clear), Some(&hmac))));
        group.bench_function(format!("encode + seal + sign {count}"), |b| {
            b.iter(|| sealing.sealed(&visit, black_box(bodies), &hmac, &public).expect("the events fit a frame").len());
        });
        let sealed = sealing.sealed(&visit, bodies, &hmac, &public).expect("the events fit a frame").to_vec();
        let (parsed, mut payload) = (Frame::parse(&sealed).expect("our own frame"), vec![0; sealed.len()]);
        group.bench_function(format!("open {count}"), |b| {
            b.iter(|| black_box(&parsed).unseal(&region, &mut payload).expect("our own seal").payload().len());
        });
    }
    group.finish();

    let secret = SecretKey::from_seed(&KEY);
    let public = secret.public();
    let tag = secret.sign(frame);
    let mut group = c.benchmark_group("ed25519");
    group.bench_function("sign", |b| b.iter(|| secret.sign(black_box(frame))));
    group.bench_function("verify", |b| b.iter(|| public.verify(black_box(frame), tag.as_bytes())));
}

#[inline]
fn build(kit: &mut FrameKit, visit: &Visit, bodies: &[Body<'_>], signer: &impl FrameSigner) -> usize {
    kit.page(visit, black_box(bodies), signer).expect("the events fit a frame").len()
}

#[inline]
fn read(frame: &[u8], key: Option<&impl FrameVerifier>) -> u64 {
    read_frame(frame, key).expect("our own frame")
}

fn group<'c>(c: &'c mut Criterion, name: &str, events: usize) -> BenchmarkGroup<'c, WallTime> {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(events as u64));
    group
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_millis(1500)).sample_size(40);
    targets = frame_of_300, json_of_300, small_frames, hops
}
criterion_main!(benches);
