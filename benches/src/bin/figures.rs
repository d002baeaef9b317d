//! What is not a time: bytes per event in every codec, memory per id and wrong answers of the dedup structures. Prints JSON.

use std::{
    collections::HashSet,
    fs,
    hint::black_box,
    sync::{Mutex, PoisonError},
};

use fastbloom::BloomFilter;
use firsthop_benches::{
    Bincode, Codec, DEDUP_KEY, FRAME, FrameKit, Json, MessagePack, Postcard, Prost, Rkyv, Visit, Wincode, bodies,
    random_ids,
};
use firsthop_core::{Alg, DedupWindow, MacKey, Unsigned};
use serde_json::{Map, Value, json};

const IDS: usize = 1_000_000;

static WINDOW: Mutex<DedupWindow<{ 1 << 20 }>> = Mutex::new(DedupWindow::new((0, 0)));

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{:#}", json!({ "body": bodies_alone()?, "wire": on_the_wire()?, "dedup": dedup()? }));
    Ok(())
}

/// Bytes per event of 300 bodies. Ours include the frame's header, CRC and the names of the properties.
fn bodies_alone() -> Result<Value, firsthop_core::Error> {
    let bodies = bodies(FRAME, 1);
    let mut sizes = Map::new();
    let frame = FrameKit::new(Alg::None).bare(&bodies, &Unsigned)?.len();
    sizes.insert("firsthop".into(), per_event(frame, FRAME));
    let mut add = |name: &str, bytes| sizes.insert(name.into(), per_event(bytes, FRAME));
    add(Postcard::NAME, size::<Postcard>());
    add(Bincode::NAME, size::<Bincode>());
    add(Wincode::NAME, size::<Wincode>());
    add(Rkyv::NAME, size::<Rkyv>());
    add(Prost::NAME, size::<Prost>());
    add(MessagePack::NAME, size::<MessagePack>());
    add(Json::NAME, size::<Json>());
    Ok(sizes.into())
}

fn size<C: Codec>() -> usize {
    let mut out = C::Out::default();
    for body in bodies(FRAME, 1) {
        C::encode(&C::input(&body), &mut out);
    }
    out.as_ref().len()
}

/// Bytes per event as they travel: signed frames with context, beside Segment's JSON.
fn on_the_wire() -> Result<Value, Box<dyn std::error::Error>> {
    let key = MacKey::new(Alg::HmacSha256Trunc128, &[42; 32])?;
    let mut sizes = Map::new();
    for count in [1, 20, FRAME] {
        let (bodies, visit) = (bodies(count, 1), Visit::new(count));
        let mut kit = FrameKit::new(Alg::HmacSha256Trunc128);
        let mut add = |name: String, bytes| sizes.insert(name, per_event(bytes, count));
        add(format!("firsthop, {count}"), kit.page(&visit, &bodies, &key)?.len());
        add(format!("firsthop, {count}, each on its own page"), kit.wandering(&visit, &bodies, &key)?.len());
        add(format!("segment, {count}"), serde_json::to_vec(&visit.batch(&bodies))?.len());
    }
    Ok(sizes.into())
}

fn per_event(bytes: usize, events: usize) -> Value {
    json!((bytes as f64 / events as f64 * 10.0).round() / 10.0)
}

/// Resident memory that a million ids bring, and what is answered wrongly.
fn dedup() -> Result<Value, Box<dyn std::error::Error>> {
    let (ids, others) = (random_ids(IDS, 1), random_ids(IDS, 2));
    let before = resident()?;

    let mut window = WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
    window.reset(DEDUP_KEY);
    for &id in &ids {
        window.insert(id);
    }
    let (with_window, window_wrong) = (resident()?, others.iter().filter(|&&id| window.contains(id)).count());

    let mut set: HashSet<u128> = HashSet::with_capacity(IDS);
    set.extend(&ids);
    let with_set = resident()?;
    black_box(&set);

    let mut bloom = BloomFilter::with_false_pos(1e-4).seed(&7).expected_items(IDS);
    for id in &ids {
        bloom.insert(id);
    }
    let (with_bloom, bloom_wrong) = (resident()?, others.iter().filter(|id| bloom.contains(id)).count());

    let per_id = |bytes: usize| per_event(bytes, IDS);
    Ok(json!({
        "bytesPerId": {
            "DedupWindow": per_id(with_window - before),
            "HashSet<u128>": per_id(with_set - with_window),
            "fastbloom 1e-4": per_id(with_bloom - with_set),
        },
        "falsePositivesPerMillion": { "DedupWindow": window_wrong, "HashSet<u128>": 0, "fastbloom 1e-4": bloom_wrong },
    }))
}

/// Resident memory of this process in bytes (Linux).
fn resident() -> Result<usize, Box<dyn std::error::Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    let kib: usize = line.split_whitespace().nth(1).ok_or("no figure behind VmRSS")?.parse()?;
    Ok(kib * 1024)
}
