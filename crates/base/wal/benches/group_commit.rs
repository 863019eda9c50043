//! What group commit gives: frames in flight against frames per second, with a real `fdatasync` per group.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;
use futures::future::try_join_all;
use triptych_wal::{OsDisk, Wal, WalConfig};

const FRAME_BYTES: usize = 16 << 10;

fn group_commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("group_commit");
    group.sample_size(10);
    let payload = Bytes::from(vec![0xa5; FRAME_BYTES]);
    for in_flight in [1_usize, 16, 256] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (wal, _) = Wal::open(Arc::new(OsDisk), dir.path(), "bench", &WalConfig::default()).expect("open");
        group.throughput(Throughput::Bytes((in_flight * FRAME_BYTES) as u64));
        group.bench_function(BenchmarkId::new("16KiB_in_flight", in_flight), |b| {
            b.iter(|| {
                let tickets = (0..in_flight).map(|_| {
                    let permit = wal.try_reserve(FRAME_BYTES).expect("room");
                    wal.enqueue(permit, [Bytes::new(), payload.clone()]).expect("open")
                });
                black_box(block_on(try_join_all(tickets)).expect("synced"));
            });
            let cut = wal.cut();
            block_on(cut.written());
            wal.truncate(&cut).ok();
        });
    }
    group.finish();
}

/// Reading a log back, intact and with a damaged frame header in the middle.
fn replay(c: &mut Criterion) {
    let mut group = c.benchmark_group("replay");
    group.sample_size(10);
    let dir = tempfile::tempdir().expect("temporary directory");
    let (wal, _) = Wal::open(Arc::new(OsDisk), dir.path(), "bench", &WalConfig::default()).expect("open");
    let frames = 4096;
    for _ in 0..frames {
        let permit = block_on(wal.reserve(FRAME_BYTES)).expect("room");
        let payload = Bytes::from(vec![0xa5; FRAME_BYTES]);
        drop(wal.enqueue(permit, [Bytes::new(), payload]).expect("open"));
    }
    drop(wal);
    group.throughput(Throughput::Bytes((frames * FRAME_BYTES) as u64));
    group.bench_function("64MiB", |b| {
        b.iter(|| {
            let (_wal, replay) =
                Wal::open(Arc::new(OsDisk), dir.path(), "bench", &WalConfig::default()).expect("open");
            black_box(replay.count())
        });
    });
    group.finish();
}

criterion_group!(benches, group_commit, replay);
criterion_main!(benches);
