//! Deduplication of a million random ids: insert, hit, miss, and the steady state in which every new id displaces the oldest.

use std::{
    collections::{HashSet, VecDeque},
    hint::black_box,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fastbloom::BloomFilter;
use firsthop_benches::{DEDUP_KEY, random_ids};
use firsthop_core::{DedupWindow, Insert};

const IDS: usize = 1_000_000;
/// The power of two that holds a million.
const WINDOW: usize = 1 << 20;

/// 24 MB: too large for a stack, and nothing in the binary, since it is all zero.
static SHARED: Mutex<DedupWindow<WINDOW>> = Mutex::new(DedupWindow::new((0, 0)));

fn window() -> MutexGuard<'static, DedupWindow<WINDOW>> {
    let mut window = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    window.reset(DEDUP_KEY);
    window
}

fn bloom() -> BloomFilter {
    BloomFilter::with_false_pos(1e-4).seed(&7).expected_items(IDS)
}

/// One million calls an iteration, all of new ids; what prepares an iteration is not timed.
fn each<T>(
    iterations: u64,
    prepare: impl FnOnce() -> T,
    reset: impl Fn(&mut T),
    fresh: impl Fn(&mut T) -> usize,
) -> Duration {
    let mut set = prepare();
    (0..iterations)
        .map(|_| {
            reset(&mut set);
            let start = Instant::now();
            black_box(fresh(&mut set));
            start.elapsed()
        })
        .sum()
}

fn insert(c: &mut Criterion) {
    let ids = random_ids(IDS, 1);
    let mut group = c.benchmark_group("dedup-insert");
    group.throughput(Throughput::Elements(IDS as u64)).sample_size(10);
    group.bench_function("DedupWindow", |b| {
        b.iter_custom(|n| {
            each(
                n,
                window,
                |set| set.reset(DEDUP_KEY),
                |set| ids.iter().filter(|&&id| set.insert(id) == Insert::Fresh).count(),
            )
        });
    });
    group.bench_function("HashSet<u128>", |b| {
        b.iter_custom(|n| {
            each(
                n,
                || HashSet::with_capacity(IDS),
                HashSet::clear,
                |set| ids.iter().filter(|&&id| set.insert(id)).count(),
            )
        });
    });
    group.bench_function("fastbloom 1e-4", |b| {
        b.iter_custom(|n| each(n, bloom, BloomFilter::clear, |set| ids.iter().filter(|id| !set.insert(id)).count()));
    });
}

fn lookups(c: &mut Criterion) {
    let (ids, others) = (random_ids(IDS, 1), random_ids(IDS, 2));
    let mut window = window();
    let mut set = HashSet::with_capacity(IDS);
    let mut bloom = bloom();
    for id in &ids {
        window.insert(*id);
        set.insert(*id);
        bloom.insert(id);
    }
    for (name, asked) in [("dedup-hit", &ids), ("dedup-miss", &others)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(IDS as u64)).sample_size(10);
        group.bench_function("DedupWindow", |b| {
            b.iter(|| asked.iter().filter(|&&id| window.contains(black_box(id))).count());
        });
        group.bench_function("HashSet<u128>", |b| {
            b.iter(|| asked.iter().filter(|id| set.contains(black_box(id))).count());
        });
        group.bench_function("fastbloom 1e-4", |b| {
            b.iter(|| asked.iter().filter(|id| bloom.contains(black_box(id))).count());
        });
    }
}

/// The set that does what the window does needs a queue beside it.
fn displace(c: &mut Criterion) {
    let (ids, others) = (random_ids(WINDOW, 1), random_ids(IDS, 2));
    let mut group = c.benchmark_group("dedup-displace");
    group.throughput(Throughput::Elements(IDS as u64)).sample_size(10);
    group.bench_function("DedupWindow", |b| {
        b.iter_custom(|n| {
            let fill = |set: &mut MutexGuard<'_, DedupWindow<WINDOW>>| {
                set.reset(DEDUP_KEY);
                ids.iter().for_each(|&id| assert_ne!(set.insert(id), Insert::Duplicate));
            };
            each(n, window, fill, |set| others.iter().filter(|&&id| set.insert(id) != Insert::Duplicate).count())
        });
    });
    group.bench_function("HashSet<u128> + VecDeque", |b| {
        b.iter_custom(|n| {
            let prepare = || (HashSet::with_capacity(WINDOW), VecDeque::with_capacity(WINDOW));
            let fill = |(set, queue): &mut (HashSet<u128>, VecDeque<u128>)| {
                set.clear();
                queue.clear();
                set.extend(&ids);
                queue.extend(&ids);
            };
            each(n, prepare, fill, |(set, queue)| {
                let fresh = others.iter().filter(|&&id| {
                    let fresh = set.insert(id);
                    if fresh {
                        if let Some(oldest) = queue.pop_front() {
                            set.remove(&oldest);
                        }
                        queue.push_back(id);
                    }
                    fresh
                });
                fresh.count()
            })
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_millis(1500));
    targets = insert, lookups, displace
}
criterion_main!(benches);
