//! Without the bucket.

use triptych_blob::Operation;

use super::*;

/// Every text of the tenant that a question would see, copies once.
fn visible(process: &Generations<Texts>, tenant: &TenantId) -> BTreeSet<String> {
    let (heads, stores) = process.parts(&QueryContext::unlimited(tenant.clone())).unwrap();
    let spooled = stores.iter().flat_map(|store| store.get(tenant).cloned().unwrap_or_default());
    heads.iter().flat_map(TextHead::texts).chain(spooled).collect()
}

impl World {
    async fn spooled(&self) -> usize {
        let all: Vec<_> = self.spool.list(None).try_collect().await.unwrap();
        all.len()
    }

    /// With all its tasks; the replay is done.
    async fn running(&self) -> (Arc<Generations<Texts>>, Tasks) {
        let process = self.open();
        let tasks = Tasks::new(Shutdown::new());
        process.start(&tasks, &Handle::current(), ["a", "b", "c"]);
        while !process.is_replayed() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (process, tasks)
    }

    /// As after a start: the spool is opened, then the log replayed.
    async fn opened(&self) -> Arc<Generations<Texts>> {
        let process = self.open();
        process.spool.open(&Texts).await.unwrap();
        process.replay(|| false).await.unwrap();
        process
    }
}

fn text(number: usize) -> String {
    format!("{number:04}{}", "x".repeat(996))
}

#[tokio::test]
async fn an_hour_without_the_bucket() {
    let mut world = World::new();
    world.heads_bytes_max = 20_000;
    let (process, tasks) = world.running().await;
    world.bucket.fail(Fault { operation: Some(Operation::Put), ..Fault::default() });
    // Five times what memory holds.
    let mut texts = BTreeSet::new();
    for number in 0..100 {
        let one = text(number);
        while push(&process, &tenant(0), &one).await.is_err() {
            process.forget_retained(Duration::ZERO);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(process.memory.used() <= 20_000);
        texts.insert(one);
        assert_eq!(visible(&process, &tenant(0)), texts, "readable all along");
    }
    assert!(process.spool.waiting() > 0);
    assert!(world.in_bucket(&tenant(0)).await.is_empty());

    // The process dies, another one finds it all on its disk.
    tasks.shutdown().trigger();
    let copy = tempfile::tempdir().unwrap();
    copy_dir(world.dir.path(), copy.path());
    drop(process);
    world.dir = copy;
    let (process, _tasks) = world.running().await;
    assert_eq!(visible(&process, &tenant(0)), texts);

    // The bucket is back: all of it goes there, and nothing stays here.
    world.bucket.heal();
    process.flush_upto(process.rotate().unwrap_or(0)).await;
    assert_eq!(world.in_bucket(&tenant(0)).await, texts);
    assert_eq!(visible(&process, &tenant(0)), texts, "until the store-gateways have seen it");
    // The last segment that was replayed goes with what is written after it.
    push(&process, &tenant(0), "and goes on").await.unwrap();
    process.flush_upto(process.rotate().unwrap()).await;
    for _ in 0..2 {
        world.clock.advance(HOUR);
        process.tick().await;
    }
    assert_eq!((process.spool.stores().len(), world.spooled().await, segments(&world)), (0, 0, 0));
}

#[tokio::test]
async fn a_tenant_that_never_goes_holds_up_nobody() {
    let world = World::new();
    let process = world.opened().await;
    world.bucket.fail(Fault { path: "texts/tenant-1/".into(), ..Fault::default() });
    for number in 0..3 {
        for t in 0..3 {
            push(&process, &tenant(t), &format!("{number} of {t}")).await.unwrap();
        }
        process.rotate().unwrap();
    }
    process.bring_away_upto(u64::MAX).await;
    assert_eq!(process.spool.waiting(), 3, "one unit of each generation, with the tenant that does not go");
    for t in [0, 2] {
        assert_eq!(world.in_bucket(&tenant(t)).await.len(), 3);
    }
    world.clock.advance(HOUR);
    process.tick().await;
    assert_eq!(segments(&world), 0, "the write-ahead log does not grow");
    assert_eq!(visible(&process, &tenant(1)).len(), 3);
    assert_eq!(visible(&process, &tenant(0)).len(), 0, "the others are in the bucket alone");

    world.bucket.heal();
    process.flush_upto(u64::MAX).await;
    assert_eq!(world.in_bucket(&tenant(1)).await.len(), 3);
}

/// A flush brought a part to the bucket and then failed; the generation goes to the spool. Store-gateways may not have seen that part, so it
/// has to be in the spool too.
#[tokio::test]
async fn what_a_failed_flush_has_written_is_readable_from_the_spool() {
    let world = World::new();
    let process = world.opened().await;
    let texts = BTreeSet::from(["early".to_owned(), "late one".to_owned()]);
    for text in &texts {
        push(&process, &tenant(0), text).await.unwrap();
    }
    process.rotate().unwrap();
    let late = crc("late one");
    world.bucket.fail(Fault { path: format!("texts/tenant-0/{late}"), ..Fault::default() });
    process.bring_away_upto(u64::MAX).await;
    assert_eq!(world.in_bucket(&tenant(0)).await, BTreeSet::from(["early".to_owned()]));
    assert_eq!(process.spool.waiting(), 1);
    world.clock.advance(HOUR);
    process.tick().await;
    assert_eq!(visible(&process, &tenant(0)), texts);
}

/// Whoever asked for a flush goes away, at every step of what goes to the spool: nothing that only a draft holds counts as flushed.
#[tokio::test]
async fn a_spool_that_is_dropped_loses_nothing() {
    let texts = BTreeSet::from(["early".to_owned(), "late one".to_owned()]);
    for steps in 0.. {
        let world = World::new();
        let process = world.opened().await;
        for text in &texts {
            push(&process, &tenant(0), text).await.unwrap();
        }
        process.rotate().unwrap();
        world.spool.hesitate(5);
        let generation = process.state.read().frozen.front().unwrap().generation.clone();
        let mut spooling = Box::pin(process.spool(&generation));
        let mut is_done = false;
        for _ in 0..steps {
            is_done |= futures::poll!(&mut spooling).is_ready();
            tokio::task::yield_now().await;
            if is_done {
                break;
            }
        }
        drop(spooling);
        process.flush_upto(u64::MAX).await;
        assert_eq!(world.in_bucket(&tenant(0)).await, texts, "dropped after {steps} steps");
        assert_eq!(visible(&process, &tenant(0)), texts);
        for _ in 0..2 {
            world.clock.advance(HOUR);
            process.tick().await;
        }
        assert_eq!(world.spooled().await, 0, "dropped after {steps} steps");
        if is_done {
            assert!(steps > 3);
            break;
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_the_bucket_is_back() {
    let mut world = World::new();
    world.config.disk_bytes_max = 60_000;
    let process = world.opened().await;
    world.bucket.fail(Fault::default());
    let mut taken = 0;
    let refused = loop {
        match push(&process, &tenant(0), &noise(taken)).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        process.tick().await;
    };
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    assert!(refused.retry_after.is_some());
    assert!(refused.to_string().contains("of 60000 bytes"), "{refused}");
    assert!(taken > 10, "{taken}");

    world.bucket.heal();
    process.flush_upto(process.rotate().unwrap()).await;
    world.clock.advance(HOUR);
    process.tick().await;
    process.tick().await;
    push(&process, &tenant(0), "again").await.unwrap();
}

/// A text that does not compress.
fn noise(seed: usize) -> String {
    let mut state = seed as u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    std::iter::repeat_with(next).take(1000).collect()
}

/// The disk fails, and the process dies, at every single write of a spool.
#[tokio::test]
async fn a_spool_that_fails_half_way_loses_nothing() {
    for writes in 0..7 {
        for dies in [false, true] {
            let mut world = World::new();
            let process = world.opened().await;
            for t in 0..2 {
                push(&process, &tenant(t), &format!("of {t}")).await.unwrap();
            }
            process.rotate().unwrap();
            let generation = process.state.read().frozen[0].generation.clone();
            world.spool.fail_after_writes(writes);
            let spooled = process.spool(&generation).await;
            assert_eq!(
                spooled.is_ok(),
                writes >= 5,
                "two objects for each tenant, and the mark: {spooled:?}"
            );
            world.spool.heal();
            let process = if dies {
                let copy = tempfile::tempdir().unwrap();
                copy_dir(world.dir.path(), copy.path());
                drop(process);
                world.dir = copy;
                world.opened().await
            } else {
                process
            };
            for t in 0..2 {
                assert_eq!(visible(&process, &tenant(t)).len(), 1, "{writes} {dies}");
            }
            if let Some(newest) = process.rotate() {
                process.flush_upto(newest).await;
            }
            process.flush_upto(0).await;
            for t in 0..2 {
                assert_eq!(world.in_bucket(&tenant(t)).await.len(), 1, "{writes} {dies}");
            }
        }
    }
}

/// Half of a unit is in the bucket for so long that it is taken for left behind and removed.
#[tokio::test]
async fn what_was_copied_long_ago_is_copied_again() {
    let world = World::new();
    let process = world.opened().await;
    push(&process, &tenant(0), "kept").await.unwrap();
    process.rotate().unwrap();
    let generation = process.state.read().frozen[0].generation.clone();
    process.spool(&generation).await.unwrap();
    world.bucket.fail(Fault { path: "meta".into(), operation: Some(Operation::Put), ..Fault::default() });
    process.upload_round().await.unwrap_err();
    let half: Vec<_> = world.bucket.list(None).try_collect().await.unwrap();
    assert_eq!(half.len(), 1, "{half:?}");
    world.clock.advance(12 * HOUR);
    world.bucket.delete(&half[0].location).await.unwrap();
    world.bucket.heal();
    assert!(process.upload_round().await.unwrap());
    assert_eq!(world.in_bucket(&tenant(0)).await, BTreeSet::from(["kept".to_owned()]));
}
